/* What the kernel enters when a signal comes, and the wait during which it may.
 *
 * Rules for this file:
 *   1. A wrapper can interrupt any instruction of libken's, another wrapper included.
 *   2. With `inside` raised it touches only thread_self()->signals.
 *   3. After the program's handler ran nothing is as it was: the process may be another one.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* REG_RIP */
#endif
#include "shim/call_signal.h"
#include "heap/fault.h"
#include "shim/call_time.h"
#include "shim/crash.h"
#include "shim/heir.h"
#include "shim/pending.h"
#include "shim/process.h"
#include "shim/threads.h"
#include "shim/turn.h"

#include <string.h>

extern char signal_block_begin[], signal_block_syscall[], signal_block_ran[];
extern char fault_copy_begin[], fault_copy_failed[];
long signal_block_enter(long nr, const long arg[6], int *inside, const int *queued);

#define BLOCK_RAN (-602L) /* signal_block.S: nothing was done, look again */

static uint64_t *frame_mask(ucontext_t *uc)
{
    return (uint64_t *)&uc->uc_sigmask; /* the kernel writes 8 bytes, whatever libc's type */
}

static bool between(const ucontext_t *uc, const char *first, const char *last)
{
    uintptr_t rip = (uintptr_t)uc->uc_mcontext.gregs[REG_RIP];
    return rip >= (uintptr_t)first && rip <= (uintptr_t)last;
}

static void go_to(ucontext_t *uc, const char *label)
{
    uc->uc_mcontext.gregs[REG_RIP] = (greg_t)label;
}

/* Raised by an instruction rather than sent by someone. */
static bool is_fault(int signal, const siginfo_t *info)
{
    return (SIGNAL_FAULTS & SIGNAL_BIT(signal)) && info->si_code > 0;
}

static void deliver(int signal, siginfo_t *info, ucontext_t *uc)
{
    struct signal_action a = *signal_action(signal);
    if (a.handler == (uintptr_t)SIG_IGN)
        return;
    if (a.handler == (uintptr_t)SIG_DFL) {
        crash_die(signal, info, uc);
        return;
    }
    threads_back(info, *frame_mask(uc));
    time_heard(signal);
    struct signal_thread *t = &thread_self()->signals;
    t->ran++;
    if (!(a.flags & SA_RESTART))
        t->ran_plain++;
    if (a.flags & SA_RESETHAND) {
        signal_action(signal)->handler = (uintptr_t)SIG_DFL;
        signal_install(signal);
    }
    process_correct_sender(info);
    time_correct_timer(info);
    ((void (*)(int, siginfo_t *, void *))a.handler)(signal, info, uc);
    *frame_mask(uc) &= ~SIGNAL_KEPT; /* the handler may have changed it */
    if (between(uc, signal_block_begin, signal_block_syscall))
        go_to(uc, signal_block_ran);
}

void signal_wrapper(int signal, siginfo_t *info, void *context)
{
    ucontext_t *uc = context;
    struct thread *me = thread_self();
    if (is_fault(signal, info)) {
        if (between(uc, fault_copy_begin, fault_copy_begin)) {
            go_to(uc, fault_copy_failed);
            return;
        }
        if (me->inside > 0 && !call_passive) {
            crash_die(signal, info, uc); /* libken's own: the program's handler could not mend it */
            return;
        }
    } else if (me->inside > 0 && !call_passive) {
        process_correct_sender(info); /* in another incarnation nobody could */
        MUTANT("signals.deferred_lost", (void)0, signal_enqueue(&me->signals, info, *frame_mask(uc)));
        *frame_mask(uc) = SIGNAL_DEFERRED;
        time_heard(signal);
        pending_heard(info);
        return;
    }
    deliver(signal, info, uc);
}

bool signal_break_wait(ucontext_t *uc)
{
    bool waits = between(uc, signal_block_begin, signal_block_syscall);
    if (waits)
        go_to(uc, signal_block_ran);
    return waits;
}

/* Hands the queue back to the kernel, which delivers it as soon as the mask allows. */
static void requeue(struct signal_thread *t)
{
    siginfo_t queue[SIGNAL_QUEUE];
    int count = t->queued < SIGNAL_QUEUE ? t->queued : SIGNAL_QUEUE;
    memcpy(queue, t->queue, sizeof queue[0] * (size_t)count);
    pending_handing();
    signal_dequeue(t, 0);
    long tid = sys(SYS_gettid);
    for (int i = 0; i < count; i++) {
        queue[i].si_errno = 0;
        if (queue[i].si_code == SI_TKILL)
            pending_sent(thread_self(), 1);
        if (queue[i].si_signo)
            pending_send(&queue[i], tid);
    }
}

/* The handlers run in here, at the last system call. */
static void release(struct signal_thread *t)
{
    uint64_t mask = t->mask & ~SIGNAL_KEPT;
    requeue(t);
    sys(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, sizeof mask);
    pending_handed();
}

void signal_leave(struct call *c)
{
    struct signal_thread *t = &thread_self()->signals;
    if (c->frame)
        requeue(t); /* its return brings the program's mask back */
    else
        release(t);
}

void signal_settle(void)
{
    struct thread *me = thread_self();
    int depth = me->inside;
    while (me->signals.queued) {
        me->inside = 0;
        release(&me->signals);
        me->inside = depth;
    }
}

/* Everything but the kernel's wait and the handlers runs with `inside` raised: a signal that ran
 * its handler between two looks at the counters would be slept through. */
static long wait_in_kernel(void *call)
{
    const struct call *c = call;
    struct thread *me = thread_self();
    int depth = me->inside;
    long result = signal_block_enter(c->nr, c->arg, &me->inside, &me->signals.queued);
    me->inside = depth;
    if (result > 0 && c->nr == SYS_rt_sigtimedwait) /* the kernel has given the signal away */
        threads_back((const siginfo_t *)c->arg[1], signal_mask_thread());
    return result;
}

long signal_block_for(struct call *c, long nr)
{
    struct thread *me = thread_self();
    struct signal_thread *t = &me->signals;
    unsigned ran = t->ran, plain = t->ran_plain, stops;
    bool restarts = signal_restarts(nr);
    long result;
    do {
        if (heir_candidate && heir_due())
            return SIGNAL_AGAIN;
        if (t->queued) {
            threads_unlock();
            signal_settle();
            threads_lock();
        }
        stops = me->stops;
        result = t->ran == ran ? threads_away(wait_in_kernel, c) : -EINTR;
    } while (result == BLOCK_RAN);
    if (result == -EINTR && t->ran == ran && me->stops != stops)
        result = THREADS_AGAIN; /* nothing but a stop of the threads interrupted it */
    if (result == -EINTR && t->ran != ran && restarts && t->ran_plain == plain)
        result = SIGNAL_AGAIN;
    return result;
}

long signal_block_once(struct call *c)
{
    return signal_block_for(c, c->nr);
}

bool signal_again(long result)
{
    if (result == SIGNAL_AGAIN)
        turn_end(TURN_WAIT);
    return result == SIGNAL_AGAIN || result == THREADS_AGAIN;
}

long signal_block(struct call *c)
{
    long result;
    do
        result = signal_block_once(c);
    while (signal_again(result));
    return result;
}
