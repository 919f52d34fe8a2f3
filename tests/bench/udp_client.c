/* Asks a UDP counter (tests/subjects/udp_counter.c), one request outstanding.
 *
 *     udp_client PORT REQUESTS     prints the round trip in microseconds: median, 90 % and 99 % quantile
 *
 * A lost datagram is sent again after 2 seconds and is not counted; a server that is starting is waited for.
 */
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* True when the answer came at the first try. */
static int ask(int fd, long number)
{
    char request[64], answer[512];
    int length = snprintf(request, sizeof request, "%ld INC key", number);
    for (int tries = 0; tries < 400; tries++) {
        errno = 0;
        if (send(fd, request, (size_t)length, 0) == length)
            while (recv(fd, answer, sizeof answer, 0) > 0)
                if (strtol(answer, NULL, 10) == number)
                    return tries == 0;
        if (errno == ECONNREFUSED)
            usleep(20000); /* it is starting */
    }
    errx(1, "no answer to request %ld", number);
}

int main(int argc, char **argv)
{
    if (argc != 3)
        errx(2, "usage: udp_client PORT REQUESTS");
    long requests = atol(argv[2]), counted = 0;
    double *took = calloc((size_t)requests + 1, sizeof *took);
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    struct timeval patience = {.tv_sec = 2};
    struct sockaddr_in server = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(argv[1]))};
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (fd < 0 || connect(fd, (struct sockaddr *)&server, sizeof server) < 0)
        err(1, "connect");
    for (long i = 1; i <= requests; i++) {
        double start = now_us();
        if (ask(fd, i))
            took[counted++] = now_us() - start;
    }
    if (!counted)
        errx(1, "every request was lost at first");
    qsort(took, (size_t)counted, sizeof *took, ascending);
    printf("%.2f %.2f %.2f\n", took[counted / 2], took[counted * 9 / 10], took[counted * 99 / 100]);
    return 0;
}
