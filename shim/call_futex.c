/* futex(2): waits between threads of the program. No boundary by itself, but outputs must not be held while
 * the thread that would end the turn sleeps. */
#include "net/outbox.h"
#include "shim/call_signal.h"
#include "shim/call_time.h"
#include "shim/futex_owner.h"
#include "shim/threads.h"
#include "shim/turn.h"

#include <linux/futex.h>

static bool waits(int operation)
{
    switch (operation & FUTEX_CMD_MASK) {
    case FUTEX_WAIT:
    case FUTEX_WAIT_BITSET:
    case FUTEX_WAIT_REQUEUE_PI:
        return true;
    default:
        return false;
    }
}

/* Until when a wait lasts, on the program's clock: relative time-outs are on the monotonic one. */
static struct timespec program_deadline(const struct call *c, const struct timespec *limit)
{
    bool relative = ((int)c->arg[1] & FUTEX_CMD_MASK) == FUTEX_WAIT;
    return relative ? time_spec(time_after(time_monotonic_ns(), time_ns(limit))) : *limit;
}

/* Each time the wait is made (again), in whatever boot, with the deadline as the kernel knows it. */
static long wait_limited(struct call *c)
{
    struct timespec limit, deadline;
    long result = time_read(&limit, (void *)c->arg[3]);
    if (sys_failed(result))
        return result;
    struct call inner = *c;
    long clock = (int)c->arg[1] & FUTEX_CLOCK_REALTIME ? CLOCK_REALTIME : CLOCK_MONOTONIC;
    struct timespec until = program_deadline(c, &limit);
    if (((int)c->arg[1] & FUTEX_CMD_MASK) == FUTEX_WAIT) {
        inner.arg[1] = (c->arg[1] & ~FUTEX_CMD_MASK & ~FUTEX_CLOCK_REALTIME) | FUTEX_WAIT_BITSET;
        inner.arg[5] = FUTEX_BITSET_MATCH_ANY;
        clock = CLOCK_MONOTONIC;
    }
    inner.arg[3] = (long)&deadline;
    for (;;) {
        deadline = time_kernels(clock, &until);
        result = signal_block_once(&inner);
        if (!signal_again(result))
            return result;
    }
}

static long lock_owned(struct call *c)
{
    struct timespec limit, deadline;
    struct call wait;
    long result = c->arg[3] ? time_read(&limit, (void *)c->arg[3]) : 0;
    if (sys_failed(result))
        return result;
    for (bool waited = false; !owner_lock(c, waited, &wait, &result); waited = true) {
        bool wall = wait.arg[1] & FUTEX_CLOCK_REALTIME;
        if (c->arg[3]) {
            deadline = time_kernels(wall ? CLOCK_REALTIME : CLOCK_MONOTONIC, &limit);
            wait.arg[3] = (long)&deadline;
        }
        result = signal_block_once(&wait);
        if (!signal_again(result) && result != 0 && result != -EAGAIN && result != -EINTR)
            break;
    }
    return result;
}

static long owned(struct call *c)
{
    switch ((int)c->arg[1] & FUTEX_CMD_MASK) {
    case FUTEX_UNLOCK_PI:
        return owner_unlock(c);
    case FUTEX_TRYLOCK_PI:
        return owner_try(c);
    default:
        if (outbox_held())
            turn_end(TURN_FLUSH);
        return lock_owned(c);
    }
}

/* Outputs are held, and other threads are awake, which may end the turn: waits for a moment for both. Returns what the wait
 * came to, -ETIMEDOUT, or as signal_block_once(); *left: a commit of another thread's took this wait along. */
static long wait_within_turn(const struct call *c, bool *left)
{
    uint64_t turn = turn_number();
    struct timespec moment = time_spec(time_after(time_monotonic_ns(), turn_grace_ns()) - time_offset_ns(CLOCK_MONOTONIC));
    struct call inner = *c;
    if (((int)c->arg[1] & FUTEX_CMD_MASK) == FUTEX_WAIT)
        inner.arg[5] = FUTEX_BITSET_MATCH_ANY;
    inner.arg[1] = FUTEX_WAIT_BITSET | (c->arg[1] & FUTEX_PRIVATE_FLAG);
    inner.arg[3] = (long)&moment;
    long result = signal_block_once(&inner);
    *left = (result == -ETIMEDOUT || result == THREADS_AGAIN) && turn_number() != turn;
    return result;
}

/* Waits for ever, so that a wait in two parts is the same. */
static bool is_endless(const struct call *c)
{
    return !c->arg[3] && ((int)c->arg[1] & FUTEX_CMD_MASK) != FUTEX_WAIT_REQUEUE_PI;
}

long call_futex(struct call *c)
{
    if (owner_operation((int)c->arg[1]))
        return owned(c);
    if (!waits((int)c->arg[1]))
        return call_raw(c);
    bool left = false;
    if (outbox_held() && is_endless(c) && turn_grace_ns() > 0) {
        long result = wait_within_turn(c, &left);
        if (result != -ETIMEDOUT && result != SIGNAL_AGAIN && result != THREADS_AGAIN)
            return result;
    }
    if (outbox_held() && !left)
        turn_end(TURN_FLUSH);
    return c->arg[3] ? wait_limited(c) : signal_block(c);
}
