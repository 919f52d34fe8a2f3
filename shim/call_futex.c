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

/* A relative time-out becomes an absolute one, so that the wait can be made again with what remains. */
static void make_absolute(struct call *c, struct timespec *deadline)
{
    if (time_read(deadline, (void *)c->arg[3]))
        return; /* the kernel will refuse it */
    int64_t until = time_after(time_monotonic_ns(), time_ns(deadline));
    *deadline = time_spec(until - time_offset_ns(CLOCK_MONOTONIC));
    c->arg[1] = (c->arg[1] & ~FUTEX_CMD_MASK) | FUTEX_WAIT_BITSET;
    c->arg[3] = (long)deadline;
    c->arg[5] = FUTEX_BITSET_MATCH_ANY;
}

static long lock_owned(struct call *c)
{
    struct call wait;
    long result;
    for (bool waited = false; !owner_lock(c, waited, &wait, &result); waited = true) {
        result = signal_block_once(&wait);
        if (result != 0 && result != -EAGAIN && result != SIGNAL_AGAIN && result != -EINTR)
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

long call_futex(struct call *c)
{
    if (owner_operation((int)c->arg[1]))
        return owned(c);
    struct timespec deadline;
    if (!waits((int)c->arg[1]))
        return call_raw(c);
    if (outbox_held())
        turn_end(TURN_FLUSH);
    struct call inner = *c;
    if (c->arg[3] && ((int)c->arg[1] & FUTEX_CMD_MASK) == FUTEX_WAIT)
        make_absolute(&inner, &deadline);
    return signal_block(&inner);
}
