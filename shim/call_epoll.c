/* epoll: interest lists are written down, waits keep the rhythm of call_wait.h. */
#define _GNU_SOURCE
#include "net/inbox.h"
#include "net/pool.h"
#include "shim/call_net.h"
#include "shim/call_peer.h"
#include "shim/call_wait.h"
#include "shim/threads.h"

#include <fcntl.h>
#include <sys/epoll.h>

static bool oneshot_used; /* some watch has EPOLLONESHOT: fired ones have to be found */

static long entered(long fd, long flags)
{
    if (fd >= 0)
        fd_enter((int)fd, FD_EPOLL, O_RDWR | (uint32_t)(flags & O_CLOEXEC));
    return fd;
}

long call_epoll_create(struct call *c)
{
    return entered(call_raw(c), 0);
}

long call_epoll_create1(struct call *c)
{
    return entered(call_raw(c), c->arg[0]);
}

static void note_watch(int epoll, int fd, long operation, const struct epoll_event *e)
{
    struct epoll_watch **link = fd_watch(epoll, fd), *w = *link;
    if (operation == EPOLL_CTL_DEL) {
        if (w) {
            *link = w->next;
            pool_give(w);
        }
        return;
    }
    if (!w && !(w = pool_take(sizeof *w)))
        return;
    if (!*link)
        *w = (struct epoll_watch){.epoll = epoll, .of = fd_slots[fd].description - 1};
    *link = w;
    w->events = e->events;
    w->data = e->data.u64;
    oneshot_used |= !!(e->events & EPOLLONESHOT);
}

long call_epoll_ctl(struct call *c)
{
    int fd = (int)c->arg[2];
    struct description *d = fd_find((int)c->arg[0]), *of = fd_find(fd);
    if (fd_is_ours(fd))
        return -EBADF;
    long r = call_raw(c);
    if (r == 0 && d && of)
        note_watch(fd_index(d), fd, c->arg[1], (const struct epoll_event *)c->arg[3]);
    return r;
}

struct epoll_call {
    struct watch watch; /* first */
    struct pollfd self; /* waiting on the epoll descriptor takes no event from it: the probe does */
    struct epoll_event *events;
    int capacity, epoll; /* epoll: its description */
};

/* A journal's unread bytes are an event of each watch of its descriptor. */
static long add_unread(struct epoll_call *p, long count)
{
    for (int fd = 0; fd <= fd_highest; fd++) {
        struct description *d = fd_peek(fd);
        if (!d || !((d->inbox && inbox_unread(d->inbox)) || peer_readable(d)))
            continue;
        struct epoll_watch *w = *fd_watch(p->epoll, fd);
        if (!w || !(w->events & EPOLLIN))
            continue;
        long i = 0;
        while (i < count && p->events[i].data.u64 != w->data)
            i++;
        if (i == p->capacity)
            continue;
        if (i == count)
            p->events[count++] = (struct epoll_event){.events = 0, .data.u64 = w->data};
        p->events[i].events |= EPOLLIN;
    }
    return count;
}

static void note_fired(struct epoll_call *p, long count)
{
    for (int fd = 0; fd <= fd_highest; fd++) {
        struct epoll_watch *w = *fd_watch(p->epoll, fd);
        if (!w || !(w->events & EPOLLONESHOT))
            continue;
        for (long i = 0; i < count; i++)
            if (p->events[i].data.u64 == w->data)
                w->events &= EPOLLONESHOT | EPOLLET | EPOLLWAKEUP | EPOLLEXCLUSIVE;
    }
}

static long answer(struct epoll_call *p, long count)
{
    if (oneshot_used && count > 0)
        note_fired(p, count);
    return count;
}

static long probe(struct watch *w)
{
    struct epoll_call *p = (struct epoll_call *)w;
    long r = sys(SYS_epoll_wait, p->self.fd, p->events, p->capacity, 0);
    return answer(p, r >= 0 && (inbox_any() || peer_any()) ? add_unread(p, r) : r);
}

static long block(struct watch *w)
{
    struct epoll_call *p = (struct epoll_call *)w;
    struct timespec t;
    long ms = !wait_timespec(&w->until, &t) ? -1
              : t.tv_sec > 2000000          ? 2000000000L
                                            : t.tv_sec * 1000 + (t.tv_nsec + 999999) / 1000000;
    struct call c = {.nr = SYS_epoll_pwait,
                     .arg = {p->self.fd, (long)p->events, p->capacity, ms, (long)(w->masked ? &w->mask : NULL), 8}};
    return answer(p, wait_prepared(&c, c.nr));
}

/* `mask` may be NULL. What oneshot watches have fired is written down by the probe, which holds the lock. */
static long epoll_wait_for(struct call *c, int64_t ns, const void *mask)
{
    struct description *d = fd_find((int)c->arg[0]);
    struct epoll_call p = {
        .watch = {.count = 1, .until = wait_until(ns), .probe = probe, .block = oneshot_used && threads_many ? NULL : block},
        .self = {(int)c->arg[0], POLLIN, 0},
        .events = (struct epoll_event *)c->arg[1],
        .capacity = (int)c->arg[2],
    };
    long r = wait_mask(&p.watch, mask, (size_t)c->arg[5]);
    if (r)
        return r;
    if (!d || d->kind != FD_EPOLL)
        return call_raw(c);
    p.watch.fds = &p.self;
    p.epoll = fd_index(d);
    return wait_watch(&p.watch);
}

static int64_t from_ms(long ms)
{
    return (int)ms < 0 ? -1 : (int)ms * 1000000L;
}

long call_epoll_wait(struct call *c)
{
    return epoll_wait_for(c, from_ms(c->arg[3]), NULL);
}

long call_epoll_pwait(struct call *c)
{
    return epoll_wait_for(c, from_ms(c->arg[3]), (const void *)c->arg[4]);
}

long call_epoll_pwait2(struct call *c)
{
    int64_t ns = wait_ns((const struct timespec *)c->arg[3]);
    return ns == -EINVAL ? ns : epoll_wait_for(c, ns, (const void *)c->arg[4]);
}
