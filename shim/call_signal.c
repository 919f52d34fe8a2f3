#include "shim/call_signal.h"
#include "shim/process.h"
#include "shim/turn.h"

#include <string.h>

#define MASK_BYTES 8UL
#define UNBLOCKABLE (SIGNAL_BIT(SIGKILL) | SIGNAL_BIT(SIGSTOP))

long signal_install(int signal)
{
    struct signal_action a = signal_kernel_action(signal);
    return sys(SYS_rt_sigaction, signal, &a, NULL, MASK_BYTES);
}

long call_rt_sigaction(struct call *c)
{
    long signal = c->arg[0];
    const void *new = (const void *)c->arg[1];
    void *old = (void *)c->arg[2];
    if (c->arg[3] != (long)MASK_BYTES || signal < 1 || signal >= SIGNAL_COUNT)
        return -EINVAL;
    struct signal_action was = *signal_action((int)signal), wanted;
    if (new) {
        if (signal == SIGKILL || signal == SIGSTOP)
            return -EINVAL;
        if (!fault_copy(&wanted, new, sizeof wanted))
            return -EFAULT;
        wanted.mask &= ~UNBLOCKABLE;
        *signal_action((int)signal) = wanted;
        /* SIGSYS is only remembered: the net keeps it. */
        long result = signal == SIGSYS ? 0 : signal_install((int)signal);
        if (sys_failed(result)) {
            *signal_action((int)signal) = was;
            return result;
        }
    }
    if (old && !fault_copy(old, &was, sizeof was))
        return -EFAULT;
    return 0;
}

long signal_mask_read(uint64_t *to, const void *from, size_t size)
{
    if (size != MASK_BYTES)
        return -EINVAL;
    if (!fault_copy(to, from, MASK_BYTES))
        return -EFAULT;
    *to &= ~SIGNAL_BIT(SIGSYS);
    return 0;
}

/* SIGSYS in the program's mask is only pretended; the kernel's never has it. */
static bool sigsys_blocked;

static uint64_t *frame_mask(const struct call *c)
{
    return (uint64_t *)&c->frame->uc_sigmask;
}

uint64_t signal_mask_current(const struct call *c)
{
    uint64_t mask;
    if (c->frame)
        return *frame_mask(c);
    sys(SYS_rt_sigprocmask, SIG_SETMASK, NULL, &mask, MASK_BYTES);
    /* Asked after the call: a signal in between has the same mask in its queue. */
    struct signal_thread *t = &thread_self()->signals;
    return t->queued ? t->mask : mask;
}

static void mask_set(const struct call *c, uint64_t mask)
{
    struct signal_thread *t = &thread_self()->signals;
    uint64_t all = SIGNAL_DEFERRED;
    if (c->frame) {
        *frame_mask(c) = mask; /* takes effect with the frame's return */
        return;
    }
    /* With all blocked no wrapper can change t->mask between the look and the change. */
    sys(SYS_rt_sigprocmask, SIG_BLOCK, &all, NULL, MASK_BYTES);
    if (t->queued)
        t->mask = mask;
    else
        sys(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, MASK_BYTES);
}

long call_rt_sigprocmask(struct call *c)
{
    const void *set = (const void *)c->arg[1];
    void *old = (void *)c->arg[2];
    uint64_t wanted, was, next;
    if (c->arg[3] != (long)MASK_BYTES)
        return -EINVAL;
    was = next = signal_mask_current(c) | (sigsys_blocked ? SIGNAL_BIT(SIGSYS) : 0);
    if (set) {
        if (!fault_copy(&wanted, set, MASK_BYTES))
            return -EFAULT;
        wanted &= ~UNBLOCKABLE;
        switch ((int)c->arg[0]) {
        case SIG_BLOCK:
            next = was | wanted;
            break;
        case SIG_UNBLOCK:
            next = was & ~wanted;
            break;
        case SIG_SETMASK:
            next = wanted;
            break;
        default:
            return -EINVAL;
        }
        sigsys_blocked = next & SIGNAL_BIT(SIGSYS);
        mask_set(c, next & ~SIGNAL_BIT(SIGSYS));
    }
    if (old && !fault_copy(old, &was, MASK_BYTES))
        return -EFAULT;
    return 0;
}
