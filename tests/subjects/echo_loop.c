/* A counter for many TCP clients in one event loop: echo_loop PORT select|poll|epoll|edge
 *
 * Lines `<number> <text>` are answered with `<number> <count> <text>`; a number that was answered is
 * answered as before. One more descriptor, a UDP socket on the same port, takes the same requests. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <unistd.h>

#define CLIENTS 64

static struct {
    int fd;
    size_t have;
    char line[2048];
} clients[CLIENTS];
static int listener, datagrams, epoll = -1;
static const char *way;
static unsigned long count, last;
static char answer[2200];

/* Makes the answer to a request; 0 when there is none. */
static int serve(const char *request)
{
    char *text;
    unsigned long number = strtoul(request, &text, 10);
    if (number < last || text == request)
        return 0;
    if (number > last) {
        last = number;
        snprintf(answer, sizeof answer, "%lu %lu%s\n", number, ++count, text);
    }
    return 1;
}

static void watch(int fd)
{
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    if (epoll >= 0) {
        struct epoll_event event = {.events = EPOLLIN | (strcmp(way, "edge") ? 0 : EPOLLET), .data.fd = fd};
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0)
            err(1, "epoll_ctl");
    }
}

static void on_listener(void)
{
    for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0;) {
        int i = 0;
        while (i < CLIENTS && clients[i].fd)
            i++;
        if (i == CLIENTS) {
            close(fd);
            continue;
        }
        clients[i].fd = fd;
        clients[i].have = 0;
        watch(fd);
    }
    if (errno != EAGAIN && errno != ECONNABORTED)
        err(1, "accept");
}

static void on_datagrams(void)
{
    char line[2048];
    struct sockaddr_in from;
    socklen_t size = sizeof from;
    for (ssize_t n; (n = recvfrom(datagrams, line, sizeof line - 1, 0, (void *)&from, &size)) >= 0;) {
        line[n] = '\0';
        if (serve(line))
            sendto(datagrams, answer, strlen(answer) - 1, 0, (void *)&from, size);
    }
}

static void on_client(int i)
{
    for (;;) {
        ssize_t n = recv(clients[i].fd, clients[i].line + clients[i].have,
                         sizeof clients[i].line - 1 - clients[i].have, 0);
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0) {
            close(clients[i].fd);
            clients[i].fd = 0;
            return;
        }
        clients[i].have += n;
        clients[i].line[clients[i].have] = '\0';
        for (char *end; (end = strchr(clients[i].line, '\n'));) {
            *end = '\0';
            if (serve(clients[i].line))
                send(clients[i].fd, answer, strlen(answer), MSG_NOSIGNAL);
            clients[i].have -= end + 1 - clients[i].line;
            memmove(clients[i].line, end + 1, clients[i].have + 1);
        }
    }
}

static void on(int fd)
{
    if (fd == listener)
        return on_listener();
    if (fd == datagrams)
        return on_datagrams();
    for (int i = 0; i < CLIENTS; i++)
        if (clients[i].fd == fd)
            return on_client(i);
}

static void once_select(void)
{
    fd_set set;
    int highest = listener > datagrams ? listener : datagrams;
    FD_ZERO(&set);
    FD_SET(listener, &set);
    FD_SET(datagrams, &set);
    for (int i = 0; i < CLIENTS; i++)
        if (clients[i].fd) {
            FD_SET(clients[i].fd, &set);
            highest = clients[i].fd > highest ? clients[i].fd : highest;
        }
    if (select(highest + 1, &set, NULL, NULL, NULL) < 0)
        err(1, "select");
    for (int fd = 0; fd <= highest; fd++)
        if (FD_ISSET(fd, &set))
            on(fd);
}

static void once_poll(void)
{
    struct pollfd fds[CLIENTS + 2] = {{listener, POLLIN, 0}, {datagrams, POLLIN, 0}};
    int n = 2;
    for (int i = 0; i < CLIENTS; i++)
        if (clients[i].fd)
            fds[n++] = (struct pollfd){clients[i].fd, POLLIN, 0};
    if (poll(fds, n, -1) < 0)
        err(1, "poll");
    for (int i = 0; i < n; i++)
        if (fds[i].revents)
            on(fds[i].fd);
}

static void once_epoll(void)
{
    struct epoll_event events[8];
    int n = epoll_wait(epoll, events, 8, -1);
    if (n < 0)
        err(1, "epoll_wait");
    for (int i = 0; i < n; i++)
        on(events[i].data.fd);
}

int main(int argc, char **argv)
{
    if (argc < 3)
        errx(2, "usage: echo_loop PORT WAY");
    int one = 1;
    struct sockaddr_in self = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    self.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    way = argv[2];
    listener = socket(AF_INET, SOCK_STREAM, 0);
    datagrams = socket(AF_INET, SOCK_DGRAM, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (void *)&self, sizeof self) < 0 || bind(datagrams, (void *)&self, sizeof self) < 0 ||
        listen(listener, 16) < 0)
        err(1, "port %s", argv[1]);
    if (*way == 'e')
        epoll = epoll_create1(EPOLL_CLOEXEC);
    watch(listener);
    watch(datagrams);
    for (;;)
        *way == 's' ? once_select() : *way == 'p' ? once_poll() : once_epoll();
}
