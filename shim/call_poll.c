/* poll, ppoll, select, pselect6: the rhythm of call_wait.h for many descriptors. */
#define _GNU_SOURCE
#include "net/inbox.h"
#include "shim/call_net.h"
#include "shim/call_peer.h"
#include "shim/call_wait.h"

#include <string.h>
#include <sys/select.h>
#include <sys/time.h>

/* Unread bytes of a journal make a descriptor readable, whatever the kernel's pipe holds. */
static long add_unread(struct pollfd *fds, unsigned count)
{
    long ready = 0;
    for (unsigned i = 0; i < count; i++) {
        struct description *d = fds[i].fd >= 0 ? fd_peek(fds[i].fd) : NULL;
        if (d && ((d->inbox && inbox_unread(d->inbox)) || peer_readable(d)))
            fds[i].revents |= fds[i].events & (POLLIN | POLLRDNORM);
        ready += fds[i].revents != 0;
    }
    return ready;
}

static long probe(struct watch *w)
{
    long r = sys(SYS_poll, w->fds, w->count, 0);
    return r >= 0 && (inbox_any() || peer_any()) ? add_unread(w->fds, w->count) : r;
}

static long block(struct watch *w)
{
    struct timespec t;
    struct call c = {.nr = SYS_ppoll,
                     .arg = {(long)w->fds, w->count, (long)wait_timespec(&w->until, &t),
                             (long)(w->masked ? &w->mask : NULL), 8, 0}};
    return wait_prepared(&c, c.nr);
}

static struct watch watching(struct pollfd *fds, unsigned count, int64_t ns)
{
    return (struct watch){.fds = fds, .count = count, .until = wait_until(ns), .probe = probe, .block = block};
}

long call_poll(struct call *c)
{
    int ms = (int)c->arg[2];
    struct watch w = watching((struct pollfd *)c->arg[0], (unsigned)c->arg[1], ms < 0 ? -1 : ms * 1000000L);
    return w.count > FD_LIMIT ? call_raw(c) : wait_watch(&w);
}

int64_t wait_ns(const struct timespec *t)
{
    if (!t)
        return -1;
    if (t->tv_sec < 0 || (unsigned long)t->tv_nsec >= 1000000000UL)
        return -EINVAL;
    return t->tv_sec > INT64_MAX / 2000000000L ? INT64_MAX : t->tv_sec * 1000000000L + t->tv_nsec;
}

/* The kernel writes the remaining time back. */
static void tell_left(struct timespec *to, const struct deadline *until)
{
    if (to)
        wait_timespec(until, to);
}

long call_ppoll(struct call *c)
{
    struct timespec *limit = (struct timespec *)c->arg[2];
    int64_t ns = wait_ns(limit);
    struct watch w = watching((struct pollfd *)c->arg[0], (unsigned)c->arg[1], ns);
    if (w.count > FD_LIMIT || ns == -EINVAL)
        return call_raw(c);
    long r = wait_mask(&w, (const void *)c->arg[3], (size_t)c->arg[4]);
    if (r == 0)
        r = wait_watch(&w);
    tell_left(limit, &w.until);
    return r;
}

/* select() as poll(): the sets are looked at in order. */
#define SELECT_IN (POLLRDNORM | POLLRDBAND | POLLIN | POLLHUP | POLLERR)
#define SELECT_OUT (POLLWRBAND | POLLWRNORM | POLLOUT | POLLERR)

struct sets {
    int count;
    unsigned long *in, *out, *except;
};

static bool has(const unsigned long *set, int fd)
{
    return set && (set[fd / 64] >> (fd % 64) & 1);
}

static unsigned select_count(const struct sets *s, struct pollfd *fds)
{
    unsigned n = 0;
    for (int fd = 0; fd < s->count; fd++) {
        short events = (short)((has(s->in, fd) ? POLLIN | POLLRDNORM | POLLRDBAND : 0) |
                               (has(s->out, fd) ? POLLOUT | POLLWRNORM | POLLWRBAND : 0) |
                               (has(s->except, fd) ? POLLPRI : 0));
        if (!events)
            continue;
        if (fds)
            fds[n] = (struct pollfd){fd, events, 0};
        n++;
    }
    return n;
}

static void clear(unsigned long *set, int count)
{
    if (set)
        memset(set, 0, (size_t)(count + 63) / 64 * 8);
}

static long mark(unsigned long *set, const struct pollfd *p, short asked, short means)
{
    if (!(p->events & asked) || !(p->revents & means))
        return 0;
    set[p->fd / 64] |= 1UL << (p->fd % 64);
    return 1;
}

static long select_answer(struct sets *s, const struct pollfd *fds, unsigned count)
{
    long bits = 0;
    clear(s->in, s->count);
    clear(s->out, s->count);
    clear(s->except, s->count);
    for (unsigned i = 0; i < count; i++)
        bits += mark(s->in, &fds[i], POLLIN, SELECT_IN) + mark(s->out, &fds[i], POLLOUT, SELECT_OUT) +
                mark(s->except, &fds[i], POLLPRI, POLLPRI);
    return bits;
}

static bool all_open(const struct pollfd *fds, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        if (fds[i].revents & POLLNVAL)
            return false;
    return true;
}

/* poll() also wakes for what select() does not ask about (a hang-up of a write-only set): the kernel's select is asked
 * to answer once there is something; here a set that cannot match is waited for again after a moment. */
static long select_rhythm(struct sets *s, struct watch *w)
{
    unsigned count = select_count(s, NULL);
    struct pollfd fds[count + 1];
    w->fds = fds;
    w->count = select_count(s, fds);
    sys(SYS_poll, fds, w->count, 0);
    if (!all_open(fds, w->count))
        return -EBADF;
    for (;;) {
        long r = wait_watch(w);
        if (r < 0)
            return r;
        if (r > 0 && !all_open(fds, w->count))
            return -EBADF;
        long bits = 0;
        for (unsigned i = 0; i < w->count; i++)
            bits += (fds[i].events & POLLIN && fds[i].revents & SELECT_IN) ||
                    (fds[i].events & POLLOUT && fds[i].revents & SELECT_OUT) ||
                    (fds[i].events & POLLPRI && fds[i].revents & POLLPRI);
        if (bits || r == 0)
            return select_answer(s, fds, w->count);
        for (unsigned i = 0; i < w->count; i++)
            if (fds[i].revents)
                fds[i].fd = -1 - fds[i].fd; /* it hung up and nobody asked */
    }
}

static struct sets sets_of(struct call *c)
{
    int count = (int)c->arg[0];
    return (struct sets){count > FD_LIMIT ? FD_LIMIT : count, (unsigned long *)c->arg[1],
                         (unsigned long *)c->arg[2], (unsigned long *)c->arg[3]};
}

long call_select(struct call *c)
{
    struct sets s = sets_of(c);
    struct timeval *limit = (struct timeval *)c->arg[4];
    if (s.count < 0 || (limit && (limit->tv_sec < 0 || limit->tv_usec < 0)))
        return -EINVAL;
    struct timespec t = {0, 0};
    if (limit)
        t = (struct timespec){limit->tv_sec + limit->tv_usec / 1000000, limit->tv_usec % 1000000 * 1000};
    struct watch w = watching(NULL, 0, wait_ns(limit ? &t : NULL));
    long r = select_rhythm(&s, &w);
    if (limit && wait_timespec(&w.until, &t))
        *limit = (struct timeval){t.tv_sec, t.tv_nsec / 1000};
    return r;
}

long call_pselect6(struct call *c)
{
    struct sets s = sets_of(c);
    struct timespec *limit = (struct timespec *)c->arg[4];
    const struct {
        const void *mask;
        size_t size;
    } *with = (const void *)c->arg[5];
    int64_t ns = wait_ns(limit);
    if (s.count < 0 || ns == -EINVAL)
        return -EINVAL;
    struct watch w = watching(NULL, 0, ns);
    long r = with ? wait_mask(&w, with->mask, with->size) : 0;
    if (r == 0)
        r = select_rhythm(&s, &w);
    tell_left(limit, &w.until);
    return r;
}
