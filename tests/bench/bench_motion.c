/* Messages between two programs, without pauses: bench_motion ROLE PORT [COUNT].
 *
 *   take PORT COUNT      listens, reads COUNT bytes from one connection; prints bytes/s and the milliseconds that it took
 *   give PORT COUNT      sends COUNT bytes in pieces of 64 KiB, all different
 *   hear PORT COUNT      takes COUNT datagrams; prints messages/s
 *   say PORT COUNT       sends COUNT datagrams of 1 KiB
 *   idle PORT COUNT      listens, accepts COUNT connections, then answers datagrams at the same port
 *   hold PORT COUNT      makes COUNT connections, then plays ping-pong over UDP; prints microseconds a round trip
 */
#include <arpa/inet.h>
#include <err.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static struct sockaddr_in address;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Bytes that are new each time: what a page held before is not logged again. */
static void fill(char *at, size_t bytes)
{
    static unsigned long x = 88172645463325252;
    for (size_t i = 0; i < bytes; i += sizeof x) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        memcpy(at + i, &x, sizeof x);
    }
}

static int open_socket(int type, int listening)
{
    int on = 1, fd = socket(AF_INET, type, 0);
    if (fd < 0)
        err(1, "socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if ((listening ? bind : connect)(fd, (struct sockaddr *)&address, sizeof address) < 0)
        err(1, listening ? "bind" : "connect");
    if (listening && type == SOCK_STREAM && listen(fd, 4096) < 0)
        err(1, "listen");
    return fd;
}

static void take(long count)
{
    static char piece[1 << 18];
    int fd = accept(open_socket(SOCK_STREAM, 1), NULL, NULL);
    long got = read(fd, piece, 1);
    double from = now();
    for (long n; got < count && (n = read(fd, piece, sizeof piece)) > 0; got += n)
        ;
    double took = now() - from;
    printf("%.0f %.3f\n", (double)got / took, took * 1000);
    fflush(stdout);
    if (write(fd, "", 1) != 1 || got != count)
        errx(1, "%ld of %ld bytes", got, count);
}

static void give(long count)
{
    static char piece[1 << 16];
    int fd = open_socket(SOCK_STREAM, 0);
    for (long sent = 0, n; sent < count; sent += n) {
        fill(piece, sizeof piece);
        if ((n = write(fd, piece, count - sent < (long)sizeof piece ? (size_t)(count - sent) : sizeof piece)) <= 0)
            err(1, "write");
    }
    if (read(fd, piece, 1) != 1)
        errx(1, "no answer");
}

static void hear(long count)
{
    char message[2048];
    struct sockaddr_in from;
    socklen_t size = sizeof from;
    int fd = open_socket(SOCK_DGRAM, 1);
    recvfrom(fd, message, sizeof message, 0, (struct sockaddr *)&from, &size);
    double started = now();
    for (long n = 1; n < count; n++) {
        long number;
        if (recv(fd, message, sizeof message, 0) != 1024)
            err(1, "recv");
        memcpy(&number, message, sizeof number);
        if (number != n)
            errx(1, "message %ld came as number %ld", number, n);
    }
    double took = now() - started;
    sendto(fd, "", 1, 0, (struct sockaddr *)&from, size);
    printf("%.0f\n", (double)count / took);
    fflush(stdout);
}

static void say(long count)
{
    char message[1024] = {0};
    int fd = open_socket(SOCK_DGRAM, 0);
    for (long n = 0; n < count; n++) {
        fill(message, sizeof message);
        memcpy(message, &n, sizeof n);
        if (send(fd, message, sizeof message, 0) != sizeof message)
            err(1, "send");
    }
    if (recv(fd, message, sizeof message, 0) != 1)
        err(1, "recv");
}

static void idle(long count)
{
    char byte;
    struct sockaddr_in from;
    int listener = open_socket(SOCK_STREAM, 1), fd = open_socket(SOCK_DGRAM, 1);
    for (long n = 0; n < count; n++)
        if (accept(listener, NULL, NULL) < 0)
            err(1, "accept");
    for (socklen_t size = sizeof from; recvfrom(fd, &byte, 1, 0, (struct sockaddr *)&from, &size) == 1; size = sizeof from)
        sendto(fd, &byte, 1, 0, (struct sockaddr *)&from, size);
}

static void hold(long count)
{
    enum { WARM_UP = 2000, ROUNDS = 4000 }; /* what connecting has left to be done is done by then */
    char byte = 0;
    for (long n = 0; n < count; n++)
        open_socket(SOCK_STREAM, 0);
    int fd = open_socket(SOCK_DGRAM, 0);
    double from = 0;
    for (int n = -WARM_UP; n < ROUNDS; n++) {
        if (n == 0)
            from = now();
        if (send(fd, &byte, 1, 0) != 1 || recv(fd, &byte, 1, 0) != 1)
            err(1, "ping-pong");
    }
    printf("%.2f\n", (now() - from) / ROUNDS * 1e6);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*play)(long);
    } roles[] = {{"take", take}, {"give", give}, {"hear", hear}, {"say", say}, {"idle", idle}, {"hold", hold}};
    struct rlimit files;
    if (argc != 4)
        errx(2, "usage: bench_motion ROLE PORT COUNT");
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    address = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(argv[2])),
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    for (unsigned i = 0; i < sizeof roles / sizeof *roles; i++)
        if (!strcmp(argv[1], roles[i].name))
            return roles[i].play(atol(argv[3])), 0;
    errx(2, "no such role: %s", argv[1]);
}
