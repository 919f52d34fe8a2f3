/* Take a number: answers each request with the next number. No logs, no retries, no copies of answers. */
#include <arpa/inet.h>
#include <err.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

int main(int argc, char **argv)
{
    struct sockaddr_in self = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[argc - 1]))};
    self.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&self, sizeof self) < 0)
        err(1, "bind");
    for (unsigned long next = 1;; next++) {
        char request[256], answer[320];
        struct sockaddr_in from;
        socklen_t size = sizeof from;
        ssize_t n = recvfrom(fd, request, sizeof request - 1, 0, (struct sockaddr *)&from, &size);
        if (n < 0)
            err(1, "recvfrom");
        request[n] = '\0';
        int length = snprintf(answer, sizeof answer, "%lu for %s", next, request);
        if (sendto(fd, answer, (size_t)length, 0, (struct sockaddr *)&from, size) < 0)
            err(1, "sendto");
    }
}
