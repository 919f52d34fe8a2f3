/* Load for servers of line protocols: line_load PORT CONNECTIONS SECONDS REQUEST
 *
 * Each connection has one request outstanding; an answer is one line. \r and \n in the request are spelt out.
 * Prints the answers per second. */
#include <arpa/inet.h>
#include <err.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static char request[1024];
static size_t length;

static void spell_out(const char *from)
{
    for (; *from && length < sizeof request; from++) {
        if (*from == '\\' && (from[1] == 'r' || from[1] == 'n'))
            request[length++] = *++from == 'r' ? '\r' : '\n';
        else
            request[length++] = *from;
    }
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static void ask(int fd)
{
    if (send(fd, request, length, MSG_NOSIGNAL) != (ssize_t)length)
        err(1, "send");
}

static int dial(int port, int epoll)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd, (void *)&to, sizeof to) < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e) < 0)
        err(1, "port %d", port);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return fd;
}

/* The number of answers in one batch of readiness. */
static long serve(int epoll)
{
    struct epoll_event ready[256];
    char answer[4096];
    long answers = 0;
    int n = epoll_wait(epoll, ready, 256, 2000);
    if (n <= 0)
        errx(1, "no answer within 2 s");
    for (int i = 0; i < n; i++) {
        ssize_t got = recv(ready[i].data.fd, answer, sizeof answer, 0);
        if (got <= 0)
            errx(1, "the server closed a connection");
        if (answer[got - 1] != '\n')
            continue;
        if (answer[0] == '-' || !strncmp(answer, "ERR", 3) || !strncmp(answer, "NOT", 3))
            errx(1, "the answer is %.*s", (int)got, answer);
        answers++;
        ask(ready[i].data.fd);
    }
    return answers;
}

int main(int argc, char **argv)
{
    if (argc != 5)
        errx(2, "usage: line_load PORT CONNECTIONS SECONDS REQUEST");
    int connections = atoi(argv[2]), epoll = epoll_create1(0);
    double seconds = atof(argv[3]);
    long answers = 0;
    spell_out(argv[4]);
    for (int i = 0; i < connections; i++)
        ask(dial(atoi(argv[1]), epoll));
    for (double warm = now() + seconds / 5; now() < warm;)
        serve(epoll);
    double began = now(), end = began + seconds;
    while (now() < end)
        answers += serve(epoll);
    printf("%.0f\n", answers / (now() - began));
    return 0;
}
