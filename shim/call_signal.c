#include "shim/call_signal.h"
#include "heap/fault.h"
#include "shim/altstack.h"
#include "shim/call_time.h"
#include "shim/children.h"
#include "shim/pending.h"
#include "shim/process.h"
#include "shim/threads.h"

#include <string.h>

#define MASK_BYTES 8UL
#define UNHEARD_NS 2000000
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
        bool kept = SIGNAL_KEPT & SIGNAL_BIT(signal);
        long result = kept ? 0 : signal_install((int)signal);
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
    *to &= ~SIGNAL_KEPT;
    return 0;
}

static uint64_t *frame_mask(const struct call *c)
{
    return (uint64_t *)&c->frame->uc_sigmask;
}

uint64_t signal_mask_current(const struct call *c)
{
    return c->frame ? *frame_mask(c) : signal_mask_thread();
}

uint64_t signal_mask_thread(void)
{
    uint64_t mask;
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
    uint64_t wanted, was, next, *pretended = &thread_self()->signals.pretended;
    if (c->arg[3] != (long)MASK_BYTES)
        return -EINVAL;
    was = next = signal_mask_current(c) | *pretended;
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
        *pretended = next & SIGNAL_KEPT;
        mask_set(c, next & ~SIGNAL_KEPT);
    }
    if (old && !fault_copy(old, &was, MASK_BYTES))
        return -EFAULT;
    return 0;
}

/* What is queued was not blocked, so it is not what the program calls pending; the kernel's set may
 * hold signals that are blocked only because something is queued. */
long call_rt_sigpending(struct call *c)
{
    uint64_t pending;
    if ((unsigned long)c->arg[1] > MASK_BYTES)
        return -EINVAL;
    long result = sys(SYS_rt_sigpending, &pending, MASK_BYTES);
    if (sys_failed(result))
        return result;
    pending &= signal_mask_current(c);
    return fault_copy((void *)c->arg[0], &pending, (size_t)c->arg[1]) ? 0 : -EFAULT;
}

void signal_boot(void)
{
    uint64_t kept = SIGNAL_KEPT;
    process_boot();
    altstack_boot();
    for (int signal = 1; signal < SIGNAL_COUNT; signal++) {
        struct signal_action *a = signal_action(signal);
        if (SIGNAL_KEPT & SIGNAL_BIT(signal))
            continue;
        /* Objects that were initialised before libken may have handlers already. */
        sys(SYS_rt_sigaction, signal, NULL, a, MASK_BYTES);
        if (signal_kernel_action(signal).handler != a->handler)
            signal_install(signal);
    }
    sys(SYS_rt_sigprocmask, SIG_UNBLOCK, &kept, NULL, MASK_BYTES);
}

/* As of the last commit. The kernel's mask: with something queued that is SIGNAL_DEFERRED, and the
 * program's is in the queue, which is image like this. */
static uint64_t captured_mask;

/* A thread that waits outside has been given a timer's only signal, and is about to write it down. Not for long: the signal
 * may be ignored, read from a signalfd, or lie in the frame of a thread that stands still, and is safe there. */
static void wait_until_heard(uint64_t signals)
{
    int64_t until = time_monotonic_ns() + UNHEARD_NS;
    while (time_unheard(signals) && time_monotonic_ns() < until)
        sys(SYS_sched_yield);
}

/* A timer must be seen as running or as having sent its signal: not as both, not as neither. */
static uint64_t pending_and_timers(void)
{
    uint64_t pending = 0, before, rung = 0;
    sys(SYS_rt_sigpending, &pending, MASK_BYTES);
    do {
        before = pending;
        if (!time_capture_timers(&rung))
            break;
        sys(SYS_rt_sigpending, &pending, MASK_BYTES);
    } while (pending != before);
    if (threads_many && time_unheard(rung & ~pending))
        wait_until_heard(rung & ~pending);
    return pending;
}

void signal_capture(void)
{
    uint64_t all = SIGNAL_DEFERRED, mask = 0;
    sys(SYS_rt_sigprocmask, SIG_SETMASK, &all, &mask, MASK_BYTES);
    if (threads_many)
        signal_captures++;
    pending_capture(pending_and_timers());
    if (mask != captured_mask) /* an unchanged line stays clean */
        captured_mask = mask;
}

void signal_captured(void)
{
    sys(SYS_rt_sigprocmask, SIG_SETMASK, &captured_mask, NULL, MASK_BYTES);
}

/* What was captured as pending, and then came to a thread that was away, is in both places. */
static void drop_doubles(struct thread *thread)
{
    struct signal_thread *t = &thread->signals;
    int kept = 0;
    for (int i = 0; i < t->queued && i < SIGNAL_QUEUE; i++) {
        const siginfo_t *info = &t->queue[i];
        bool later = info->si_errno == (int)signal_captures;
        if (info->si_signo && !(later && pending_holds(thread, info->si_signo)))
            t->queue[kept++] = *info;
    }
    signal_dequeue(t, kept);
}

static void pending_again(void)
{
    for (uint32_t i = 0; i < THREADS_MAX; i++) {
        struct thread *t = threads_other(&i);
        if (t)
            drop_doubles(t);
    }
    pending_resume();
    const struct signal_action *child = signal_action(SIGCHLD);
    bool reaped = child->handler == (uintptr_t)SIG_IGN || (child->flags & SA_NOCLDWAIT);
    if (children_resume(reaped))
        sys(SYS_kill, sys(SYS_getpid), SIGCHLD);
}

void signal_resume(void)
{
    uint64_t all = SIGNAL_DEFERRED, mask = MUTANT("signals.mask_lost", 0, captured_mask & ~SIGNAL_KEPT);
    sys(SYS_rt_sigprocmask, SIG_SETMASK, &all, NULL, MASK_BYTES);
    altstack_resume();
    for (int signal = 1; signal < SIGNAL_COUNT; signal++)
        if (!((UNBLOCKABLE | SIGNAL_KEPT) & SIGNAL_BIT(signal)))
            signal_install(signal);
    process_resume();
    pending_again();
    sys(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, MASK_BYTES);
}

void signal_thread_resume(uint64_t mask)
{
    mask = thread_self()->signals.queued ? SIGNAL_DEFERRED : mask & ~SIGNAL_KEPT;
    altstack_resume();
    sys(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, MASK_BYTES);
}

/* Signals that wait belong to the parent. */
void signal_forked(void)
{
    struct signal_thread *t = &thread_self()->signals;
    uint64_t mask = t->mask;
    pending_forked();
    if (!t->queued)
        return;
    t->queued = 0;
    sys(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, MASK_BYTES);
}
