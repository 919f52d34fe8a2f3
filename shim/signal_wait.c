/* Calls that wait for a signal. Each is a boundary: the turn ends before it. */
#include "shim/call_signal.h"
#include "shim/call_time.h"
#include "shim/pending.h"
#include "shim/process.h"
#include "shim/turn.h"

long call_pause(struct call *c)
{
    turn_end(TURN_WAIT);
    return signal_block(c);
}

/* The kernel swaps the masks, so a signal that was blocked until now is heard in the wait and
 * nowhere else. One that came while libken worked counts as heard. */
long call_rt_sigsuspend(struct call *c)
{
    uint64_t mask;
    long result = signal_mask_read(&mask, (void *)c->arg[0], (size_t)c->arg[1]);
    if (sys_failed(result))
        return result;
    turn_end(TURN_WAIT);
    struct call inner = {.nr = SYS_rt_sigsuspend, .arg = {(long)&mask, sizeof mask}};
    return signal_block(&inner);
}

static long hand_over(const struct call *c, siginfo_t *info, long result)
{
    if (result > 0)
        time_heard((int)result);
    if (result <= 0 || !c->arg[1])
        return result;
    process_correct_sender(info);
    time_correct_timer(info);
    return fault_copy((void *)c->arg[1], info, sizeof *info) ? result : -EFAULT;
}

long call_rt_sigtimedwait(struct call *c)
{
    uint64_t set;
    siginfo_t info;
    struct timespec now = {0, 0}, left, *timeout = NULL;
    int64_t deadline = 0;
    long result = signal_mask_read(&set, (void *)c->arg[0], (size_t)c->arg[3]);
    if (!sys_failed(result) && c->arg[2]) {
        result = time_read(&left, (void *)c->arg[2]);
        timeout = &left;
        deadline = time_after(time_monotonic_ns(), time_ns(&left));
    }
    if (sys_failed(result))
        return result;
    struct call inner = {.nr = SYS_rt_sigtimedwait,
                         .arg = {(long)&set, (long)&info, (long)&now, sizeof set}};
    result = call_raw(&inner);
    if (result > 0)
        pending_heard(&info);
    if (result != -EAGAIN || (timeout && time_ns(timeout) == 0))
        return hand_over(c, &info, result);
    turn_end(TURN_WAIT);
    inner.arg[2] = (long)timeout;
    for (;;) {
        if (timeout)
            left = time_spec(deadline - time_monotonic_ns());
        result = signal_block_once(&inner);
        if (!signal_again(result))
            return hand_over(c, &info, result);
    }
}
