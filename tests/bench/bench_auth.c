/* What authentication adds to a transport: to seal and open a frame of 1 KiB, against sending and receiving it over
 * loopback TCP, taken in turns; and a handshake. Medians, in microseconds. */
#include "net/auth.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define ROUNDS 400
#define EACH 50 /* frames timed together */
#define FRAME 1024
#define BUDGET 1.0

static struct auth a, b;
static struct auth_key key;

static double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int by_value(const void *x, const void *y)
{
    double d = *(const double *)x - *(const double *)y;
    return (d > 0) - (d < 0);
}

static double median(double *values, size_t count)
{
    qsort(values, count, sizeof *values, by_value);
    return values[count / 2];
}

static void must(int good, const char *what)
{
    if (good)
        return;
    perror(what);
    exit(1);
}

static void say(struct auth *from, struct auth *to)
{
    unsigned char m[AUTH_MESSAGE_MAX];
    size_t n = auth_say(from, m);
    must(n && auth_hear(to, m, n) == (long)n, "handshake");
}

/* Both sides' work. */
static double handshake(void)
{
    double from = now_us();
    auth_start(&a, AUTH_CONNECTS, &key);
    auth_start(&b, AUTH_ACCEPTS, &key);
    say(&a, &b);
    say(&b, &a);
    say(&a, &b);
    return now_us() - from;
}

static double frames(size_t length)
{
    static unsigned char r[AUTH_RECORD_MAX];
    double from = now_us();
    for (int i = 0; i < EACH; i++) {
        size_t n;
        must(auth_seal(&a, r, length) > 0 && auth_open(&b, r, sizeof r, &n) > 0, "record");
    }
    return (now_us() - from) / EACH;
}

static void connect_pair(int fd[2])
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof in;
    int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    must(bind(listener, (struct sockaddr *)&in, sizeof in) == 0 && listen(listener, 1) == 0, "listen");
    getsockname(listener, (struct sockaddr *)&in, &length);
    fd[0] = socket(AF_INET, SOCK_STREAM, 0);
    must(connect(fd[0], (struct sockaddr *)&in, sizeof in) == 0, "connect");
    fd[1] = accept(listener, NULL, NULL);
    must(fd[1] >= 0 && setsockopt(fd[0], IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) == 0, "accept");
    close(listener);
}

static double plain(const int fd[2])
{
    static unsigned char r[FRAME];
    double from = now_us();
    for (int i = 0; i < EACH; i++)
        must(send(fd[0], r, FRAME, 0) == FRAME && recv(fd[1], r, FRAME, MSG_WAITALL) == FRAME, "loopback");
    return (now_us() - from) / EACH;
}

int main(void)
{
    static double tcp[ROUNDS], sealed[ROUNDS], portable[ROUNDS], greeting[ROUNDS], full[ROUNDS];
    int fd[2];
    connect_pair(fd);
    auth_make_key(&key, "a key for this run, and no other", 32);
    handshake();
    for (int i = 0; i < ROUNDS; i++)
        portable[i] = frames(FRAME);
    auth_boot();
    for (int i = 0; i < ROUNDS; i++) {
        greeting[i] = handshake();
        tcp[i] = plain(fd);
        sealed[i] = frames(FRAME);
        full[i] = frames(AUTH_PLAIN_MAX);
    }
    double t = median(tcp, ROUNDS), s = median(sealed, ROUNDS);
    printf("1 KiB over loopback TCP       %7.2f us\n", t);
    printf("1 KiB sealed and opened       %7.2f us   portable code %.2f us\n", s, median(portable, ROUNDS));
    printf("16 KiB sealed and opened      %7.2f us\n", median(full, ROUNDS));
    printf("handshake, both sides         %7.2f us\n", median(greeting, ROUNDS));
    printf("= auth: a frame of 1 KiB, sealed and opened | %.2f us | %.2f sent over loopback TCP | %.2f | %.2f x | %s\n", s, t, s / t,
           BUDGET, s / t <= BUDGET ? "within" : "OVER");
    return 0;
}
