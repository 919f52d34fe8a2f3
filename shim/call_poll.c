/* poll, ppoll, select, pselect6: the rhythm of call_wait.h for many descriptors. */
#define _GNU_SOURCE
#include "net/inbox.h"
#include "net/transport.h"
#include "shim/call_net.h"
#include "shim/call_signal.h"
#include "shim/call_peer.h"
#include "shim/call_wait.h"
#include "shim/turn.h"

#include <string.h>
#include <sys/select.h>
#include <sys/time.h>

struct poll_call {
    struct pollfd *fds;
    unsigned count;
    uint64_t mask_copy;
    uint64_t *mask; /* NULL: none */
    struct deadline until;
};

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

static long probe(struct poll_call *p)
{
    wait_serve();
    long r = sys(SYS_poll, p->fds, p->count, 0);
    return r >= 0 && (inbox_any() || peer_any()) ? add_unread(p->fds, p->count) : r;
}

/* True when input came within the time that turns without outputs share. */
static bool share(struct poll_call *p)
{
    long left = wait_left(&p->until);
    long ms = left < 0 ? -1 : left / 1000000L;
    if (outbox_held())
        return false;
    if (transport_fd() < 0)
        return wait_share(p->fds, p->count, ms) > 0;
    struct pollfd all[p->count + 1];
    memcpy(all, p->fds, p->count * sizeof *all);
    all[p->count] = (struct pollfd){transport_fd(), POLLIN, 0};
    long r = wait_share(all, p->count + 1, ms);
    if (all[p->count].revents)
        transport_wake();
    return r > 0;
}

static long block(struct poll_call *p)
{
    struct timespec t;
    struct call c = {.nr = SYS_ppoll,
                     .arg = {(long)p->fds, p->count, (long)wait_timespec(&p->until, &t),
                             (long)p->mask, 8, 0}};
    if (!wait_has_extras())
        return wait_kernel(&c);
    struct pollfd all[p->count + WAIT_EXTRAS];
    memcpy(all, p->fds, p->count * sizeof *all);
    c.arg[0] = (long)all;
    int n = wait_extras(all + p->count);
    c.arg[1] = p->count + n;
    long r = signal_block_once(&c);
    if (r > 0)
        wait_woken(all + p->count, n);
    if (r == SIGNAL_AGAIN)
        turn_end(TURN_WAIT);
    return r <= 0 && r != SIGNAL_AGAIN ? r : WAIT_AGAIN;
}

static long poll_rhythm(struct poll_call *p)
{
    bool ended = false;
    for (;;) {
        long r = probe(p);
        if (r)
            return r > 0 ? wait_answer(r) : r;
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
            return r;
        ended = !wait_serve();
    }
}

long call_poll(struct call *c)
{
    long ms = (int)c->arg[2];
    struct poll_call p = {.fds = (struct pollfd *)c->arg[0], .count = (unsigned)c->arg[1]};
    p.until = wait_until(ms < 0 ? -1 : ms * 1000000L);
    if (p.count > FD_LIMIT)
        return call_raw(c);
    return poll_rhythm(&p);
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
    struct poll_call p = {.fds = (struct pollfd *)c->arg[0], .count = (unsigned)c->arg[1]};
    struct timespec *limit = (struct timespec *)c->arg[2];
    int64_t ns = wait_ns(limit);
    if (p.count > FD_LIMIT || ns == -EINVAL)
        return call_raw(c);
    if (c->arg[3]) {
        long r = signal_mask_read(&p.mask_copy, (const void *)c->arg[3], (size_t)c->arg[4]);
        if (r < 0)
            return r;
        p.mask = &p.mask_copy;
    }
    p.until = wait_until(ns);
    long r = poll_rhythm(&p);
    tell_left(limit, &p.until);
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
static long select_rhythm(struct sets *s, struct poll_call *p)
{
    unsigned count = select_count(s, NULL);
    struct pollfd fds[count + 1];
    p->fds = fds;
    p->count = select_count(s, fds);
    sys(SYS_poll, fds, p->count, 0);
    if (!all_open(fds, p->count))
        return -EBADF;
    for (;;) {
        long r = poll_rhythm(p);
        if (r < 0)
            return r;
        if (r > 0 && !all_open(fds, p->count))
            return -EBADF;
        long bits = 0;
        for (unsigned i = 0; i < p->count; i++)
            bits += (fds[i].events & POLLIN && fds[i].revents & SELECT_IN) ||
                    (fds[i].events & POLLOUT && fds[i].revents & SELECT_OUT) ||
                    (fds[i].events & POLLPRI && fds[i].revents & POLLPRI);
        if (bits || r == 0)
            return select_answer(s, fds, p->count);
        for (unsigned i = 0; i < p->count; i++)
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
    struct poll_call p = {0};
    struct timeval *limit = (struct timeval *)c->arg[4];
    if (s.count < 0 || (limit && (limit->tv_sec < 0 || limit->tv_usec < 0)))
        return -EINVAL;
    struct timespec t = {0, 0};
    if (limit)
        t = (struct timespec){limit->tv_sec + limit->tv_usec / 1000000, limit->tv_usec % 1000000 * 1000};
    p.until = wait_until(wait_ns(limit ? &t : NULL));
    long r = select_rhythm(&s, &p);
    if (limit && wait_timespec(&p.until, &t))
        *limit = (struct timeval){t.tv_sec, t.tv_nsec / 1000};
    return r;
}

long call_pselect6(struct call *c)
{
    struct sets s = sets_of(c);
    struct poll_call p = {0};
    struct timespec *limit = (struct timespec *)c->arg[4];
    const struct {
        const void *mask;
        size_t size;
    } *with = (const void *)c->arg[5];
    int64_t ns = wait_ns(limit);
    if (s.count < 0 || ns == -EINVAL)
        return -EINVAL;
    if (with && with->mask) {
        long r = signal_mask_read(&p.mask_copy, with->mask, with->size);
        if (r < 0)
            return r;
        p.mask = &p.mask_copy;
    }
    p.until = wait_until(ns);
    long r = select_rhythm(&s, &p);
    tell_left(limit, &p.until);
    return r;
}
