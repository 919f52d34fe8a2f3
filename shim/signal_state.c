#include "shim/signal_state.h"
#include "shim/altstack.h"
#include "shim/call_signal.h"

#include "heap/sys.h"

#include <string.h>

/* Flags that the kernel acts on. SA_RESETHAND is libken's work: a deferred signal comes twice. */
#define FLAGS_PASSED                                                                               \
    ((unsigned long)(SA_NOCLDSTOP | SA_NOCLDWAIT | SA_ONSTACK | SA_RESTART | SA_NODEFER))
#define FLAG_RESTORER 0x04000000UL

static struct signal_action actions[SIGNAL_COUNT];
uint32_t signal_captures;

struct signal_action *signal_action(int signal)
{
    return &actions[signal];
}

bool signal_is_crash(int signal)
{
    return signal == SIGSEGV || signal == SIGBUS || signal == SIGILL || signal == SIGFPE ||
           signal == SIGABRT;
}

struct signal_action signal_kernel_action(int signal)
{
    struct signal_action a = actions[signal];
    bool crash = a.handler == (uintptr_t)SIG_DFL && signal_is_crash(signal);
    if (a.handler == (uintptr_t)SIG_IGN || (a.handler == (uintptr_t)SIG_DFL && !crash)) {
        a.flags &= ~FLAG_RESTORER;
        return a;
    }
    a.flags = (a.flags & FLAGS_PASSED) | SA_SIGINFO | FLAG_RESTORER;
    if (!altstack_any())
        a.flags &= ~(unsigned long)SA_ONSTACK; /* libken's own is for stack overflows only */
    if (crash)
        a.flags |= SA_ONSTACK;
    a.handler = (uintptr_t)signal_wrapper;
    a.restorer = (uintptr_t)signal_restorer;
    a.mask &= ~SIGNAL_KEPT;
    return a;
}

bool signal_restarts(long nr)
{
    switch (nr) {
    case SYS_poll:
    case SYS_ppoll:
    case SYS_select:
    case SYS_pselect6:
    case SYS_epoll_wait:
    case SYS_epoll_pwait:
    case SYS_epoll_pwait2:
    case SYS_pause:
    case SYS_rt_sigsuspend:
    case SYS_rt_sigtimedwait:
    case SYS_nanosleep:
    case SYS_clock_nanosleep:
    case SYS_semop:
    case SYS_semtimedop:
    case SYS_msgrcv:
    case SYS_msgsnd:
    case SYS_io_getevents:
    case SYS_restart_syscall:
        return false;
    default:
        return true;
    }
}

void signal_enqueue(struct signal_thread *t, const siginfo_t *info, uint64_t mask)
{
    /* One instruction: a wrapper that nests between two would take the same place. */
    int place = __atomic_fetch_add(&t->queued, 1, __ATOMIC_RELAXED);
    t->mask = place == 0 ? mask : t->mask & mask;
    if (place >= SIGNAL_QUEUE) {
        t->queued = SIGNAL_QUEUE;
        return;
    }
    memcpy(&t->queue[place], info, sizeof *info);
    t->queue[place].si_errno = (int)signal_captures;
}

void signal_dequeue(struct signal_thread *t, int count)
{
    /* An entry that a commit saw claimed and not yet written must be known as such. */
    for (int i = count; i < t->queued && i < SIGNAL_QUEUE; i++)
        t->queue[i].si_signo = 0;
    t->queued = count;
}
