#define _GNU_SOURCE
#include "shim/call_wait.h"
#include "net/host.h"
#include "net/peers.h"
#include "shim/call_signal.h"
#include "shim/threads.h"
#include "shim/turn.h"

static int64_t now_ns(void)
{
    struct timespec t = {0, 0};
    sys(SYS_clock_gettime, CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000L + t.tv_nsec;
}

struct deadline wait_until(int64_t ns)
{
    if (ns < 0)
        return (struct deadline){INT64_MAX};
    int64_t now = now_ns() + turn_clock_offset_ns();
    return (struct deadline){ns < INT64_MAX - now ? now + ns : INT64_MAX};
}

int64_t wait_left(const struct deadline *d)
{
    if (d->at == INT64_MAX)
        return -1;
    int64_t left = d->at - (now_ns() + turn_clock_offset_ns());
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
    int64_t now = now_ns();
    if (!outbox.first_ns)
        outbox.first_ns = now;
    return now - outbox.first_ns > WAIT_HELD_NS || now < outbox.first_ns;
}

/* A program that is busy with input, or looks without ever waiting, and emits nothing, is committed all the same from time to
 * time. The clock is asked at every 16th call only. */
static bool overdue(void)
{
    struct thread_quiet *quiet = &thread_self()->quiet;
    if (++quiet->calls % 16)
        return false;
    int64_t now = now_ns();
    if (quiet->turn == turn_number() && now >= quiet->since_ns)
        return now - quiet->since_ns > WAIT_QUIET_NS;
    quiet->turn = turn_number();
    quiet->since_ns = now;
    return false;
}

long wait_answer(long result)
{
    if (outbox_held() ? held_for_long() : overdue())
        turn_end(TURN_FLUSH);
    return result;
}

long wait_refused(long result)
{
    if (outbox_held() || overdue())
        turn_end(TURN_FLUSH);
    else
        outbox_retry();
    return result;
}

static long poll_away(void *call)
{
    return call_raw(call);
}

long wait_share(struct pollfd *p, unsigned long count, long ms)
{
    struct call c = {.nr = SYS_poll, .arg = {(long)p, (long)count, ms < 0 || ms > WAIT_SHARE_MS ? WAIT_SHARE_MS : ms}};
    return threads_away(poll_away, &c);
}

bool wait_settle(int fd, short events)
{
    if (!outbox_held()) {
        struct pollfd p[2] = {{fd, events, 0}, {transport_fd(), POLLIN, 0}};
        if (wait_share(p, p[1].fd >= 0 ? 2 : 1, -1) > 0) {
            if (p[1].revents) {
                transport_wake();
                transport_pump();
            }
            return true;
        }
    }
    turn_end(TURN_WAIT);
    return turn_resumed(); /* what the last incarnation had not read is there at once */
}

long wait_kernel(struct call *c)
{
    return signal_block(c);
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
    if (transport_fd() >= 0)
        to[n++] = (struct pollfd){transport_fd(), POLLIN, 0};
    return n;
}

void wait_woken(const struct pollfd *extras, int n)
{
    if (n && extras[n - 1].revents && extras[n - 1].fd == transport_fd())
        transport_wake();
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

/* One wait for `fd` (if it is one) and the tails. What poll says, or WAIT_AGAIN. */
static long wait_once(int fd, short events, const struct deadline *until, long nr, bool *ready)
{
    struct pollfd p[1 + WAIT_EXTRAS];
    int n = wait_extras(p + 1);
    struct timespec t;
    p[0] = (struct pollfd){fd, events, 0};
    struct call c = {.nr = SYS_ppoll, .arg = {(long)p, 1 + n, (long)wait_timespec(until, &t), 0, 8, 0}};
    long r = signal_block_for(&c, nr);
    if (r == SIGNAL_AGAIN) {
        turn_end(TURN_WAIT);
        return WAIT_AGAIN;
    }
    *ready = r > 0 && p[0].revents;
    if (r > 0)
        wait_woken(p + 1, n);
    return r;
}

long wait_ready(int fd, short events, const struct deadline *until, long nr)
{
    for (;;) {
        bool ready = false;
        long r = wait_once(fd, events, until, nr, &ready);
        if (r < 0 && r != WAIT_AGAIN)
            return r;
        bool served = wait_serve();
        if (ready)
            return 1;
        if (served)
            return WAIT_AGAIN;
        if (r == 0 && wait_left(until) == 0)
            return 0;
    }
}

bool wait_beside(int fd, unsigned ms, long nr, long *result)
{
    if (transport_fd() < 0)
        return false;
    struct deadline until = wait_until(ms * 1000000L);
    *result = wait_ready(fd, POLLIN, &until, nr);
    return true;
}

long wait_tails(long nr)
{
    struct deadline never = {INT64_MAX};
    while (outbox.tails) {
        bool ready;
        long r = wait_once(-1, 0, &never, nr, &ready);
        if (r < 0 && r != WAIT_AGAIN)
            return r;
        if (outbox_retry())
            return 0;
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

long wait_rhythm(struct call *c, const struct waiting *w)
{
    struct deadline until = wait_until(w->timeout_ns ? w->timeout_ns : -1);
    bool ended = false;
    for (;;) {
        long r = w->attempt(c);
        if (r != -EAGAIN)
            return wait_answer(w->accounts ? wait_accounted(w->fd, r) : r);
        if (w->nonblocking)
            return wait_refused(r);
        if (!ended && wait_settle(w->fd, w->events))
            continue;
        ended = true;
        if (w->blocking && !w->timeout_ns && !wait_has_extras() && !(w->accounts && threads_many))
            return w->accounts ? wait_accounted(w->fd, signal_block(w->blocking)) : signal_block(w->blocking);
        r = wait_ready(w->fd, w->events, &until, w->timeout_ns ? SYS_ppoll : c->nr);
        if (r == WAIT_AGAIN)
            ended = false;
        else if (r <= 0)
            return r ? r : -EAGAIN;
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
    turn_end(TURN_FLUSH);
    while (outbox.tails && outbox_holds(fd))
        wait_tails(SYS_close);
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
