/* Takes numbers from number_server: number_client PORT COUNT NAME. Prints what it got, one a line, and gives up at the
 * first answer that is not the one to its request. It asks once and waits for ever, as a program may in a perfect world. */
#include <arpa/inet.h>
#include <err.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

int main(int argc, char **argv)
{
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))}, from;
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    unsigned long last = 0;
    for (long i = 0; i < atol(argv[2]) && argc == 4; i++) {
        char request[128], answer[256], echo[128];
        socklen_t size = sizeof from;
        unsigned long number;
        snprintf(request, sizeof request, "%s-%ld", argv[3], i);
        if (sendto(fd, request, strlen(request), 0, (struct sockaddr *)&server, sizeof server) < 0)
            err(1, "sendto");
        ssize_t n = recvfrom(fd, answer, sizeof answer - 1, 0, (struct sockaddr *)&from, &size);
        if (n < 0)
            err(1, "recvfrom");
        answer[n] = '\0';
        if (sscanf(answer, "%lu for %127s", &number, echo) != 2 || strcmp(echo, request) || number <= last)
            errx(1, "asked %s after %lu, got %s", request, last, answer);
        if (from.sin_port != server.sin_port || from.sin_addr.s_addr != server.sin_addr.s_addr)
            errx(1, "the answer is from %s:%d", inet_ntoa(from.sin_addr), ntohs(from.sin_port));
        last = number;
        printf("%ld %lu\n", i, number);
        fflush(stdout);
    }
    printf("done\n");
    return 0;
}
