/* Ping-pong of 1-byte messages over UDP: bench_pingpong serve PORT | play PORT ROUNDS. The player prints microseconds a
 * round trip, the median of ten parts. */
#include <arpa/inet.h>
#include <err.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[2]))};
    int fd = socket(AF_INET, SOCK_DGRAM, 0), rounds = argc > 3 ? atoi(argv[3]) : 0;
    char c = 'x';
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (!strcmp(argv[1], "serve")) {
        if (bind(fd, (struct sockaddr *)&a, sizeof a) < 0)
            err(1, "bind");
        for (;;) {
            socklen_t size = sizeof a;
            if (recvfrom(fd, &c, 1, 0, (struct sockaddr *)&a, &size) < 0 ||
                sendto(fd, &c, 1, 0, (struct sockaddr *)&a, size) < 0)
                err(1, "serve");
        }
    }
    double parts[10];
    for (int part = 0; part < 10; part++) {
        double begun = now();
        for (int i = 0; i < rounds / 10; i++)
            if (sendto(fd, &c, 1, 0, (struct sockaddr *)&a, sizeof a) < 0 || recv(fd, &c, 1, 0) < 0)
                err(1, "play");
        parts[part] = (now() - begun) / (rounds / 10);
    }
    qsort(parts, 10, sizeof *parts, compare);
    printf("%.2f\n", parts[5]);
    return 0;
}
