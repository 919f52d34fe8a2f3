#define _GNU_SOURCE
#include "net/stream_bell.h"
#include "net/trouble.h"
#include "heap/fault.h"
#include "heap/room.h"
#include "heap/sys.h"

#include <sys/epoll.h>

#define RINGS_MAX 256 /* an edge is told for each; beyond that nobody listens */
#define SEND_BUFFER 4096

static uint64_t ours[FD_LIMIT / 64]; /* libken's ends, of this incarnation */

void stream_boot(void)
{
    memset(ours, 0, sizeof ours);
    stream_loans_lost();
}

bool stream_owns(int fd)
{
    return fd >= 0 && fd < FD_LIMIT && (ours[fd / 64] >> (fd % 64) & 1);
}

static long away(int fd)
{
    long start = room_start();
    return room_move(fd, fd_highest < start ? start : fd_highest + 1);
}

long bell_high(int fd)
{
    long high = away(fd);
    if (high < 0 || high >= FD_LIMIT) {
        sys(SYS_close, high < 0 ? fd : high);
        return -EMFILE;
    }
    ours[high / 64] |= 1UL << (high % 64);
    return high;
}

void bell_close(int fd)
{
    ours[fd / 64] &= ~(1UL << (fd % 64));
    sys(SYS_close, fd);
}

long bell_make(struct stream *s)
{
    int ends[2], small = SEND_BUFFER;
    long r = sys_fd(SYS_socketpair, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends);
    if (r < 0)
        return r;
    long high = bell_high(ends[1]);
    if (high < 0) {
        sys(SYS_close, ends[0]);
        return high;
    }
    sys(SYS_setsockopt, ends[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    s->bell = (int32_t)high;
    s->rings = 0;
    s->full = false;
    return ends[0];
}

int bell_number(int description)
{
    if (description < 0)
        return -1;
    for (int fd = 0; fd <= fd_highest; fd++)
        if (fd_slots[fd].description == description + 1)
            return fd;
    return -1;
}

static void watch_again(int fd)
{
    for (struct epoll_watch *w = fd_slots[fd].watches; w; w = w->next) {
        struct epoll_event e = {.events = w->events, .data.u64 = w->data};
        int epoll = bell_number(w->epoll);
        if (epoll >= 0)
            trouble_none(sys(SYS_epoll_ctl, epoll, EPOLL_CTL_ADD, fd, &e), "watch a stream again");
    }
}

int bell_put(const struct description *d, int made)
{
    if (d->flags & O_NONBLOCK)
        sys(SYS_fcntl, made, F_SETFL, O_RDWR | O_NONBLOCK);
    for (int fd = 0; fd <= fd_highest; fd++) {
        if (fd_slots[fd].description != fd_index(d) + 1)
            continue;
        long r;
        do /* another thread may be opening that very number */
            r = sys(SYS_dup3, made, fd, fd_slots[fd].close_on_exec ? O_CLOEXEC : 0);
        while (r == -EBUSY || r == -EINTR);
        if (r < 0)
            return (int)r;
    }
    sys(SYS_close, made);
    return 0;
}

int bell_replace(const struct description *d, int made)
{
    int r = bell_put(d, made);
    for (int fd = 0; fd <= fd_highest && !r; fd++)
        if (fd_slots[fd].description == fd_index(d) + 1)
            watch_again(fd);
    return r;
}

void bell_ring(struct stream *s)
{
    if (MUTANT("stream.bell_silent", true, s->bell < 0) || s->rings >= RINGS_MAX || (s->rings && s->rang == transport_looks()))
        return;
    s->rang = transport_looks();
    if (trouble_none(sys(SYS_sendto, s->bell, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL, NULL, 0), "wake a stream's reader") == 1)
        s->rings++;
}

void bell_hush(struct stream *s, int fd)
{
    char rings[RINGS_MAX];
    if (s->rings)
        sys(SYS_recvfrom, fd, rings, sizeof rings, MSG_DONTWAIT, NULL, NULL);
    s->rings = 0;
}

void bell_end(struct stream *s, bool both)
{
    if (s->bell >= 0)
        sys(SYS_shutdown, s->bell, both ? SHUT_RDWR : SHUT_WR);
}

/* A UNIX socket whose other end goes while bytes wait in it has an error. */
void bell_break(struct stream *s, int fd)
{
    if (s->bell < 0)
        return;
    if (s->error && fd >= 0)
        trouble_none(sys(SYS_sendto, fd, "", 1, MSG_DONTWAIT | MSG_NOSIGNAL, NULL, 0), "tell a stream's error");
    else
        bell_drain(s);
    bell_remove(s);
}

void bell_forgive(struct stream *s)
{
    int error, fd = s->bell < 0 ? bell_number(s->of) : -1;
    socklen_t length = sizeof error;
    if (fd >= 0)
        sys(SYS_getsockopt, fd, SOL_SOCKET, SO_ERROR, &error, &length);
}

/* The other end takes bytes that mean nothing until the buffer is full. */
void bell_full(struct stream *s, int fd)
{
    static const char filler[2048];
    if (s->full || s->bell < 0)
        return;
    while (trouble_none(sys(SYS_sendto, fd, filler, sizeof filler, MSG_DONTWAIT | MSG_NOSIGNAL, NULL, 0),
                        "stop a stream's writer") > 0)
        ;
    s->full = true;
}

void bell_drain(struct stream *s)
{
    char filler[8192];
    if (!s->full || s->bell < 0)
        return;
    while (sys(SYS_recvfrom, s->bell, filler, sizeof filler, MSG_DONTWAIT, NULL, NULL) > 0)
        ;
    s->full = false;
}

void bell_remove(struct stream *s)
{
    if (s->bell < 0)
        return;
    bell_close(s->bell);
    s->bell = -1;
}
