/* A UDP server with a heap of a given size, every cache line of it written; an answer changes 20 pages of it.
 *
 *     heap_server PORT MEGABYTES
 */
#include <arpa/inet.h>
#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

enum { BLOCK = 1 << 20, CHANGES = 20 };

int main(int argc, char **argv)
{
    if (argc != 3)
        errx(2, "usage: heap_server PORT MEGABYTES");
    size_t blocks = strtoul(argv[2], NULL, 10);
    char **block = malloc(blocks * sizeof *block);
    for (size_t i = 0; i < blocks; i++) {
        block[i] = malloc(BLOCK);
        for (size_t k = 0; k < BLOCK; k += 64)
            block[i][k] = (char)(i + k);
    }
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in self = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(argv[1]))};
    self.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || bind(fd, (struct sockaddr *)&self, sizeof self) < 0)
        err(1, "bind");
    for (unsigned long turn = 1;; turn++) {
        char text[64];
        struct sockaddr_in from;
        socklen_t size = sizeof from;
        if (recvfrom(fd, text, sizeof text, 0, (struct sockaddr *)&from, &size) < 0)
            err(1, "recvfrom");
        for (unsigned long i = 0; i < CHANGES; i++)
            block[(turn * 7 + i * 13) % blocks][(turn * 31 + i * 977) % (BLOCK / 4096) * 4096]++;
        int length = snprintf(text, sizeof text, "%lu", turn);
        sendto(fd, text, (size_t)length, 0, (struct sockaddr *)&from, size);
    }
}
