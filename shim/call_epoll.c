/* epoll: interest lists are written down, waits keep the rhythm of call_wait.h. */
#define _GNU_SOURCE
#include "net/inbox.h"
#include "net/transport.h"
#include "net/pool.h"
#include "shim/call_net.h"
#include "shim/call_signal.h"
#include "shim/call_peer.h"
#include "shim/call_wait.h"
#include "shim/threads.h"
#include "shim/turn.h"

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
    struct call *call;
    int fd;
    struct epoll_event *events;
    int capacity, epoll; /* epoll: its description */
    uint64_t mask_copy;
    uint64_t *mask;
    struct deadline until;
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

static long probe(struct epoll_call *p)
{
    wait_serve();
    long r = sys(SYS_epoll_wait, p->fd, p->events, p->capacity, 0);
    return r >= 0 && (inbox_any() || peer_any()) ? add_unread(p, r) : r;
}

/* Waiting on the epoll descriptor takes no event from it: the probe does. */
static bool share(struct epoll_call *p)
{
    long left = wait_left(&p->until);
    long ms = left < 0 ? -1 : left / 1000000L;
    struct pollfd ready[2] = {{p->fd, POLLIN, 0}, {transport_fd(), POLLIN, 0}};
    if (outbox_held() || wait_share(ready, ready[1].fd >= 0 ? 2 : 1, ms) <= 0)
        return false;
    if (ready[1].revents)
        transport_wake();
    return true;
}

static long block(struct epoll_call *p)
{
    struct timespec t;
    struct timespec *limit = wait_timespec(&p->until, &t);
    if (wait_has_extras() || (oneshot_used && threads_many)) {
        struct pollfd all[1 + WAIT_EXTRAS];
        all[0] = (struct pollfd){p->fd, POLLIN, 0};
        int n = wait_extras(all + 1);
        struct call c = {.nr = SYS_ppoll, .arg = {(long)all, 1 + n, (long)limit, (long)p->mask, 8, 0}};
        long r = signal_block_once(&c);
        if (r > 0)
            wait_woken(all + 1, n);
        if (r == SIGNAL_AGAIN)
            turn_end(TURN_WAIT);
        return r > 0 || r == SIGNAL_AGAIN ? WAIT_AGAIN : r;
    }
    long ms = !limit ? -1 : t.tv_sec > 2000000 ? 2000000000L : t.tv_sec * 1000 + (t.tv_nsec + 999999) / 1000000;
    struct call c = {.nr = SYS_epoll_pwait,
                     .arg = {p->fd, (long)p->events, p->capacity, ms, (long)p->mask, 8}};
    return wait_kernel(&c);
}

static long epoll_rhythm(struct epoll_call *p)
{
    struct description *d = fd_find(p->fd);
    bool ended = false;
    if (!d || d->kind != FD_EPOLL)
        return call_raw(p->call);
    p->epoll = fd_index(d);
    for (;;) {
        long r = probe(p);
        if (r)
            return r > 0 ? wait_answer(answer(p, r)) : r;
        if (wait_left(&p->until) == 0 && !p->mask)
            return wait_refused(0);
        if (!ended && share(p))
            continue;
        if (!ended) {
            turn_end(TURN_WAIT);
            ended = true;
            if (turn_resumed())
                continue; /* what the last incarnation had not read is there at once */
        }
        r = block(p);
        if (r != WAIT_AGAIN)
            return answer(p, r);
        ended = !wait_serve();
    }
}

static struct epoll_call arguments(struct call *c, int64_t ns)
{
    return (struct epoll_call){.call = c,
                               .fd = (int)c->arg[0],
                               .events = (struct epoll_event *)c->arg[1],
                               .capacity = (int)c->arg[2],
                               .until = wait_until(ns)};
}

static int64_t from_ms(long ms)
{
    return (int)ms < 0 ? -1 : (int)ms * 1000000L;
}

static long with_mask(struct call *c, struct epoll_call *p)
{
    if (c->arg[4]) {
        long r = signal_mask_read(&p->mask_copy, (const void *)c->arg[4], (size_t)c->arg[5]);
        if (r < 0)
            return r;
        p->mask = &p->mask_copy;
    }
    return epoll_rhythm(p);
}

long call_epoll_wait(struct call *c)
{
    struct epoll_call p = arguments(c, from_ms(c->arg[3]));
    return epoll_rhythm(&p);
}

long call_epoll_pwait(struct call *c)
{
    struct epoll_call p = arguments(c, from_ms(c->arg[3]));
    return with_mask(c, &p);
}

long call_epoll_pwait2(struct call *c)
{
    int64_t ns = wait_ns((const struct timespec *)c->arg[3]);
    if (ns == -EINVAL)
        return ns;
    struct epoll_call p = arguments(c, ns);
    return with_mask(c, &p);
}
