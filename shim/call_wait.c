#define _GNU_SOURCE
#include "shim/call_wait.h"
#include "heap/fault.h"
#include "net/alert.h"
#include "net/host.h"
#include "net/peers.h"
#include "shim/call_signal.h"
#include "shim/thread.h"
#include "shim/threads.h"
#include "shim/turn.h"

#include <string.h>

#define COMPANY_TRY 8 /* commits */
#define COMPANY_LASTS 256
#define WAIT_ALERTED (-602L) /* another thread took in what this one may wait for: look again */

struct deadline wait_until(int64_t ns)
{
    if (ns < 0)
        return (struct deadline){INT64_MAX};
    int64_t now = sys_clock_ns(CLOCK_MONOTONIC) + turn_clock_offset_ns();
    return (struct deadline){ns < INT64_MAX - now ? now + ns : INT64_MAX};
}

int64_t wait_left(const struct deadline *d)
{
    if (d->at == INT64_MAX)
        return -1;
    int64_t left = d->at - (sys_clock_ns(CLOCK_MONOTONIC) + turn_clock_offset_ns());
    return left > 0 ? left : 0;
}

struct timespec *wait_timespec(const struct deadline *d, struct timespec *t)
{
    int64_t left = wait_left(d);
    if (left < 0)
        return NULL;
    *t = (struct timespec){left / 1000000000L, left % 1000000000L};
    return t;
}

static bool held_for_long(void)
{
    if (outbox.count - outbox.committed > WAIT_HELD_ENTRIES)
        return true;
    int64_t now = sys_clock_ns(CLOCK_MONOTONIC);
    if (!outbox.first_ns)
        outbox.first_ns = now;
    return now - outbox.first_ns > WAIT_HELD_NS || now < outbox.first_ns;
}

long wait_answer(long result)
{
    if (peers_heavy() || (outbox_held() ? held_for_long() : turn_overdue()))
        turn_end(TURN_FLUSH);
    return result;
}

long wait_refused(long result)
{
    if (outbox_held() || turn_overdue())
        turn_end(TURN_FLUSH);
    else
        outbox_retry();
    return result;
}

#define PEER_EXTRAS 2

/* Peers, and what another thread takes in of theirs: watched from here on, it is not missed. */
static int peer_extras(struct pollfd *to)
{
    int n = 0;
    if (transport_fd() >= 0)
        to[n++] = (struct pollfd){transport_fd(), POLLIN, 0};
    if (n && session_thread() >= 0)
        to[n++] = (struct pollfd){alert_fd((unsigned)session_thread()), POLLIN, 0};
    return n;
}

struct sharing {
    struct call poll;
    struct timespec limit;
    bool last;
};

/* The last thread that comes to rest gives way before it commits for all: others may have been woken and not have run yet, and
 * then one record does for all of them. On a busy machine that costs somebody else's time slice, so it is done where it has
 * found somebody lately, and tried now and then elsewhere. */
static bool expects_company(struct thread_company *c)
{
    if (c->expected) {
        c->expected--;
        return true;
    }
    return ++c->rests % COMPANY_TRY == 0;
}

static long rest(void *context)
{
    struct sharing *s = context;
    if (s->last) {
        uint64_t turn = turn_number();
        uint32_t held = outbox.count;
        sys(SYS_sched_yield);
        bool still = threads_resting();
        if (!still || outbox.count != held || turn_number() != turn)
            thread_self()->company.expected = COMPANY_LASTS;
        if (still)
            return 0;
    }
    return call_raw(&s->poll);
}

/* Waits within the turn, while other threads may go on and end it; the last one not at all. As poll, or THREADS_AGAIN. */
static long share(const struct pollfd *fds, unsigned count, int64_t ns, bool last)
{
    struct sharing s = {.limit = {ns / 1000000000L, ns % 1000000000L}, .last = last};
    struct pollfd all[count + PEER_EXTRAS];
    memcpy(all, fds, count * sizeof *all);
    int n = peer_extras(all + count);
    s.poll = (struct call){.nr = SYS_ppoll, .arg = {(long)all, count + (unsigned)n, (long)&s.limit, 0, 8, 0}};
    long r = threads_away(rest, &s);
    if (r > 0)
        wait_woken(all + count, n);
    return r;
}

bool wait_settle(const struct pollfd *fds, unsigned count, const struct deadline *until)
{
    uint64_t turn = turn_number();
    int64_t grace = turn_grace_ns(), left = wait_left(until);
    bool last = threads_many && grace == 0 && expects_company(&thread_self()->company);
    if (last)
        grace = TURN_GROUP_NS;
    if (left >= 0 && left < grace)
        grace = left;
    struct pollfd unused[PEER_EXTRAS];
    peer_extras(unused); /* before anybody may take something in */
    if (grace > 0) {
        long r = share(fds, count, grace, last);
        if (r > 0 || r == THREADS_AGAIN)
            return true;
        if (MUTANT("wait.nobody_ends_the_turn", true, turn_number() != turn))
            return false; /* a commit took this thread's wait along */
    }
    turn_end(TURN_WAIT);
    return turn_resumed(); /* what the last incarnation had not read is there at once */
}

long wait_kernel(struct call *c)
{
    return signal_block(c);
}

long wait_prepared(struct call *c, long nr)
{
    long r = signal_block_for(c, nr);
    return signal_again(r) ? WAIT_AGAIN : r;
}

long wait_peek(int fd, short events)
{
    struct pollfd p = {fd, events, 0};
    long r;
    while ((r = sys(SYS_poll, &p, 1, 0)) == -EINTR)
        ; /* it did not wait: that is no answer for the program */
    return r < 0 ? r : p.revents;
}

bool wait_has_extras(void)
{
    return outbox.tails || transport_fd() >= 0;
}

int wait_extras(struct pollfd *to)
{
    int tails[WAIT_TAILS];
    int n = outbox.tails ? outbox_tails(tails, WAIT_TAILS) : 0;
    for (int i = 0; i < n; i++)
        to[i] = (struct pollfd){tails[i], POLLOUT, 0};
    return n + peer_extras(to + n);
}

bool wait_woken(const struct pollfd *extras, int n)
{
    bool alerted = false;
    for (int i = 0; i < n; i++) {
        if (!extras[i].revents)
            continue;
        if (extras[i].fd == transport_fd())
            transport_wake();
        else if (alert_owns(extras[i].fd))
            alerted = true;
    }
    if (alerted)
        alert_heard((unsigned)session_thread());
    return alerted;
}

bool wait_serve(void)
{
    if (outbox.tails)
        outbox_retry();
    if (transport_fd() < 0)
        return false;
    transport_pump();
    return peers_owe() || outbox.frames;
}

/* One wait for `fd` (if it is one) and the tails. What poll says, WAIT_AGAIN, or WAIT_ALERTED. */
static long wait_once(int fd, short events, const struct deadline *until, long nr, bool *ready)
{
    struct pollfd p[1 + WAIT_EXTRAS];
    int n = wait_extras(p + 1);
    struct timespec t;
    p[0] = (struct pollfd){fd, events, 0};
    struct call c = {.nr = SYS_ppoll, .arg = {(long)p, 1 + n, (long)wait_timespec(until, &t), 0, 8, 0}};
    long r = wait_prepared(&c, nr);
    *ready = r > 0 && p[0].revents;
    if (r > 0 && wait_woken(p + 1, n) && !*ready)
        return WAIT_ALERTED;
    return r;
}

long wait_ready(int fd, short events, const struct deadline *until, long nr)
{
    for (;;) {
        bool ready = false;
        long r = wait_once(fd, events, until, nr, &ready);
        if (r < 0 && r != WAIT_AGAIN && r != WAIT_ALERTED)
            return r;
        bool served = wait_serve();
        if (ready)
            return 1;
        if (served || r == WAIT_ALERTED)
            return WAIT_AGAIN;
        if (r == 0 && wait_left(until) == 0)
            return 0;
    }
}

long wait_peers(int64_t ns, long nr)
{
    struct deadline until = wait_until(ns);
    bool ready;
    long r = wait_once(-1, 0, &until, nr, &ready);
    if (r < 0 && r != WAIT_AGAIN && r != WAIT_ALERTED)
        return r;
    wait_serve();
    return 0;
}

bool wait_beside(int fd, unsigned ms, long nr, long *result)
{
    if (transport_fd() < 0)
        return false;
    struct deadline until = wait_until(ms * 1000000L);
    *result = wait_ready(fd, POLLIN, &until, nr);
    return true;
}

long wait_tails(const struct deadline *until, long nr)
{
    while (outbox.tails) {
        bool ready;
        long r = wait_once(-1, 0, until, nr, &ready);
        if (r < 0 && r != WAIT_AGAIN && r != WAIT_ALERTED)
            return r;
        if (outbox_retry())
            return 0;
        if (r == 0 && wait_left(until) == 0)
            return -EAGAIN;
    }
    return 0;
}

/* The wait may have been in another turn than the beginning of the call, whose touch is captured and gone. */
long wait_accounted(int fd, long result)
{
    struct description *d = fd_peek(fd);
    if (d && result >= 0 && (d->kind != FD_SOCKET || (d->bits & FD_INTERNAL)))
        fd_touch(d);
    return result;
}

/* What is held for a pipe or socketpair that a child has, too, may be what the program itself looks for. */
static bool may_be_ours(void)
{
    if (!fd_shares() || !outbox_held())
        return false;
    turn_end(TURN_FLUSH);
    return true;
}

long wait_rhythm(struct call *c, const struct waiting *w)
{
    struct deadline until = wait_until(w->timeout_ns ? w->timeout_ns : -1);
    bool ended = false;
    for (;;) {
        long r = w->attempt(c);
        if (r != -EAGAIN)
            return wait_answer(w->accounts ? wait_accounted(w->fd, r) : r);
        if (w->nonblocking && may_be_ours())
            continue;
        if (w->nonblocking)
            return wait_refused(r);
        struct pollfd wanted = {w->fd, w->events, 0};
        if (!ended && wait_settle(&wanted, 1, &until))
            continue;
        ended = true;
        if (w->blocking && !w->timeout_ns && !wait_has_extras() && !(w->accounts && threads_many)) {
            r = wait_prepared(w->blocking, w->blocking->nr);
            if (r != WAIT_AGAIN)
                return w->accounts ? wait_accounted(w->fd, r) : r;
            continue;
        }
        r = wait_ready(w->fd, w->events, &until, w->timeout_ns ? SYS_ppoll : c->nr);
        if (r == WAIT_AGAIN)
            ended = false;
        else if (r <= 0)
            return r ? r : -EAGAIN;
    }
}

/* By a poll of everything that is watched. */
static long watch_all(struct watch *w)
{
    struct timespec t;
    struct pollfd all[w->count + WAIT_EXTRAS];
    memcpy(all, w->fds, w->count * sizeof *all);
    int n = wait_extras(all + w->count);
    struct call c = {.nr = SYS_ppoll,
                     .arg = {(long)all, w->count + (unsigned)n, (long)wait_timespec(&w->until, &t),
                             (long)(w->masked ? &w->mask : NULL), 8, 0}};
    long r = wait_prepared(&c, c.nr);
    if (r > 0)
        wait_woken(all + w->count, n);
    return r > 0 ? WAIT_AGAIN : r;
}

long wait_mask(struct watch *w, const void *mask, size_t size)
{
    w->masked = mask;
    return mask ? signal_mask_read(&w->mask, mask, size) : 0;
}

long wait_watch(struct watch *w)
{
    for (bool ended = false;;) {
        wait_serve();
        long r = w->probe(w);
        if (r)
            return r > 0 ? wait_answer(r) : r;
        if (wait_left(&w->until) == 0 && !w->masked) {
            if (may_be_ours())
                continue;
            return wait_refused(0);
        }
        if (!ended && wait_settle(w->fds, w->count, &w->until))
            continue;
        r = w->block && !wait_has_extras() ? w->block(w) : watch_all(w);
        if (r != WAIT_AGAIN)
            return r;
        ended = !wait_serve();
    }
}

long wait_flushed(struct call *c)
{
    turn_end(TURN_FLUSH);
    return signal_block(c);
}

void wait_drain(int fd)
{
    if (!outbox.count || !outbox_holds(fd))
        return;
    struct deadline never = wait_until(-1);
    turn_end(TURN_FLUSH);
    while (outbox.tails && outbox_holds(fd))
        wait_tails(&never, SYS_close);
}

void wait_close(int fd)
{
    struct description *d = fd_peek(fd);
    if (!d || !outbox.count || !outbox_holds(fd))
        return;
    turn_end(TURN_FLUSH);
    if (outbox.tails && outbox_holds(fd) && d->kind == FD_SOCKET)
        outbox_orphan(fd);
    wait_drain(fd);
}
