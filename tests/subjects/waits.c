/* A datagram service that waits for each request in another way: waits PORT
 *
 * The answer tells how many were answered and how the request was waited for: it depends on the requests' number alone.
 * `sweep` closes every descriptor from 64 on first, as daemons do. */
#define _GNU_SOURCE
#include "service.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/select.h>

#define SECONDS 600

static int level, edge, oneshot, exclusive, inner, outer;
static const struct timespec long_time = {SECONDS, 0};
static sigset_t mask;

static int watch(uint32_t events)
{
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event e = {.events = events, .data.u64 = 0x123456789abcdef0UL + events};
    if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, service.socket, &e) < 0)
        err(1, "epoll");
    return epoll;
}

static void wait_for(const char *what, int ready, int wanted)
{
    if (ready != wanted && !(ready < 0 && errno == EINTR))
        errx(1, "%s returned %d: %s", what, ready, strerror(errno));
}

static void expect(const char *what, int ready, const struct epoll_event *e, uint32_t events)
{
    wait_for(what, ready, 1);
    if (ready == 1 && (e->events != EPOLLIN || e->data.u64 != 0x123456789abcdef0UL + events))
        errx(1, "%s: events %x, data %lx", what, e->events, (unsigned long)e->data.u64);
}

static void by_select(void)
{
    fd_set set;
    struct timeval t = {SECONDS, 0};
    FD_ZERO(&set);
    FD_SET(service.socket, &set);
    wait_for("select", select(service.socket + 1, &set, NULL, NULL, &t), 1);
}

static void by_pselect(void)
{
    fd_set set;
    FD_ZERO(&set);
    FD_SET(service.socket, &set);
    wait_for("pselect", pselect(service.socket + 1, &set, NULL, NULL, &long_time, &mask), 1);
}

static void by_poll(void)
{
    struct pollfd p = {service.socket, POLLIN, 0};
    wait_for("poll", poll(&p, 1, SECONDS * 1000), 1);
}

static void by_ppoll(void)
{
    struct pollfd p = {service.socket, POLLIN, 0};
    wait_for("ppoll", ppoll(&p, 1, &long_time, &mask), 1);
}

static void by_epoll(void)
{
    struct epoll_event e;
    expect("epoll_wait", epoll_wait(level, &e, 1, -1), &e, EPOLLIN);
}

static void by_epoll_pwait(void)
{
    struct epoll_event e;
    expect("epoll_pwait", epoll_pwait(exclusive, &e, 1, SECONDS * 1000, &mask), &e, EPOLLIN | EPOLLEXCLUSIVE);
}

static void by_epoll_pwait2(void)
{
    struct epoll_event e;
    expect("epoll_pwait2", epoll_pwait2(level, &e, 1, &long_time, &mask), &e, EPOLLIN);
}

static void by_oneshot(void)
{
    struct epoll_event e, again = {.events = EPOLLIN | EPOLLONESHOT, .data.u64 = 0x123456789abcdef0UL + (EPOLLIN | EPOLLONESHOT)};
    if (epoll_ctl(oneshot, EPOLL_CTL_MOD, service.socket, &again) < 0)
        err(1, "EPOLL_CTL_MOD");
    expect("oneshot", epoll_wait(oneshot, &e, 1, -1), &e, again.events);
    if (epoll_wait(oneshot, &e, 1, 0) != 0)
        errx(1, "oneshot fired twice");
}

/* What came before the wait is an edge no more if the last request by this way was taken with it: drained first. */
static void by_edge(void)
{
    struct epoll_event e;
    struct pollfd p = {service.socket, POLLIN, 0};
    while (poll(&p, 1, 0) == 0)
        if (epoll_wait(edge, &e, 1, -1) == 1)
            return;
}

static void by_nested(void)
{
    struct epoll_event e;
    wait_for("nested", epoll_wait(outer, &e, 1, -1), 1);
    expect("inner", epoll_wait(inner, &e, 1, -1), &e, EPOLLIN);
}

static void by_nothing(void)
{
}

static void by_timeout(void)
{
    struct timeval t = {SECONDS, 0};
    char byte;
    if (setsockopt(service.socket, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t) < 0)
        err(1, "SO_RCVTIMEO");
    if (recv(service.socket, &byte, 1, MSG_PEEK) < 0 && errno != EINTR)
        err(1, "recv with a timeout");
    t.tv_sec = 0;
    setsockopt(service.socket, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
}

static const struct way {
    const char *name;
    void (*wait)(void);
} ways[] = {{"select", by_select}, {"pselect", by_pselect}, {"poll", by_poll}, {"ppoll", by_ppoll}, {"epoll", by_epoll},
            {"epoll_pwait", by_epoll_pwait}, {"epoll_pwait2", by_epoll_pwait2}, {"oneshot", by_oneshot}, {"edge", by_edge},
            {"nested", by_nested}, {"recv", by_nothing}, {"timeout", by_timeout}};

int main(int argc, char **argv)
{
    unsigned long count = 0;
    close_range(3, ~0U, 0);
    service_open(atoi(argc > 1 ? argv[1] : "7777"));
    level = watch(EPOLLIN);
    edge = watch(EPOLLIN | EPOLLET);
    oneshot = watch(EPOLLIN | EPOLLONESHOT);
    exclusive = watch(EPOLLIN | EPOLLEXCLUSIVE);
    inner = watch(EPOLLIN);
    outer = epoll_create1(0);
    struct epoll_event e = {.events = EPOLLIN};
    if (outer < 0 || epoll_ctl(outer, EPOLL_CTL_ADD, inner, &e) < 0)
        err(1, "nested epoll");
    for (;;) {
        const struct way *way = &ways[count % (sizeof ways / sizeof *ways)];
        way->wait();
        char *command = service_receive(0);
        if (!command)
            continue;
        if (!strcmp(command, "sweep"))
            close_range(64, ~0U, 0);
        service_answer("%lu by %s", ++count, way->name);
    }
}
