#include "shim/pending.h"
#include "heap/fault.h"
#include "heap/digits.h"
#include "heap/proc.h"
#include "heap/sys.h"
#include "net/trouble.h"
#include "shim/call_time.h"
#include "shim/process.h"
#include "shim/threads.h"

#include <string.h>

#define PROCESS UINT32_MAX
#define UNHEARD_NS 2000000
#define TAKEABLE (~(SIGNAL_KEPT | SIGNAL_FAULTS)) /* faults are never blocked: they are in the threads' queues */

/* Image. */
static struct {
    uint32_t count;
    int pid; /* the process's, to the kernel, when they were taken */
    struct {
        uint32_t whom; /* a thread's place in the list, or PROCESS */
        bool left;     /* in the kernel: not taken */
        siginfo_t info;
    } of[PENDING_MAX];
} waiting;

/* Sum over all threads of what was sent to each and not heard yet, as far as is known: 0 is certain. Atomic */
static int unheard;

void pending_sent(struct thread *t, int sign)
{
    if (__atomic_fetch_add(&t->signals.unheard, sign, __ATOMIC_RELAXED) == 0)
        __atomic_store_n(&t->signals.queue_heard, 0, __ATOMIC_RELAXED);
    __atomic_fetch_add(&unheard, sign, __ATOMIC_RELEASE);
}

/* What has been queued may have waited for all, so that it takes nothing off what is known to wait for the thread alone. */
void pending_heard(const siginfo_t *info)
{
    struct signal_thread *t = &thread_self()->signals;
    if (info->si_code == SI_TKILL && __atomic_load_n(&t->unheard, __ATOMIC_RELAXED) > 0)
        pending_sent(thread_self(), -1);
    else if (info->si_code == SI_QUEUE || info->si_code == SI_TIMER)
        __atomic_fetch_add(&t->queue_heard, 1, __ATOMIC_RELEASE);
}

void pending_handing(void)
{
    if (!thread_self()->signals.handing) {
        thread_self()->signals.handing = true;
        __atomic_fetch_add(&unheard, 1, __ATOMIC_RELEASE);
    }
}

void pending_handed(void)
{
    if (thread_self()->signals.handing) {
        thread_self()->signals.handing = false;
        __atomic_fetch_sub(&unheard, 1, __ATOMIC_RELEASE);
    }
}

static bool add(uint32_t whom, const siginfo_t *info, bool left)
{
    if (waiting.count == PENDING_MAX)
        return false;
    waiting.of[waiting.count].whom = whom;
    waiting.of[waiting.count].left = left;
    waiting.of[waiting.count++].info = *info;
    return true;
}

/* Takes one of `set` that waits for the caller; false: there is none. */
static bool take(uint64_t set, uint32_t whom)
{
    static const struct timespec none = {0, 0};
    siginfo_t info;
    if (waiting.count == PENDING_MAX || sys(SYS_rt_sigtimedwait, &set, &info, &none, sizeof set) <= 0)
        return false;
    return add(whom, &info, false);
}

/* Only the first thread may tell the kernel of another sender than itself, to one thread; to the process every thread may, by
 * its own number. Source: do_rt_tgsigqueueinfo() and kill_pid_info() in Linux, kernel/signal.c. */
void pending_send(siginfo_t *info, long tid)
{
    long pid = sys(SYS_getpid), me = sys(SYS_gettid);
    int signal = info->si_signo;
    long r = tid ? sys(SYS_rt_tgsigqueueinfo, pid, tid, signal, info) : sys(SYS_rt_sigqueueinfo, me, signal, info);
    if (r == -EPERM && tid == me && info->si_code != SI_TKILL && signal != SIGPIPE)
        r = sys(SYS_rt_sigqueueinfo, me, signal, info); /* it was no thread's before it came here */
    if (!sys_failed(r))
        return;
    if (tid) /* RLIMIT_SIGPENDING: without details */
        sys(SYS_tgkill, pid, tid, signal);
    else
        sys(SYS_kill, pid, signal);
}

static void send_back(uint32_t from, uint32_t to)
{
    long tid = sys(SYS_gettid);
    for (; from < to; from++)
        if (!waiting.of[from].left)
            pending_send(&waiting.of[from].info, waiting.of[from].whom == PROCESS ? 0 : tid);
}

/* Those of timers: known by their bits alone. `tid`: of the thread, as the program knows it, or 0. */
static void note_timers(uint64_t bits, uint32_t whom, long tid)
{
    for (int signal = 1; bits && signal < SIGNAL_COUNT; signal++) {
        siginfo_t info = {.si_signo = signal};
        if ((bits & SIGNAL_BIT(signal)) && time_timers_info(&info, tid))
            add(whom, &info, true);
    }
}

/* What waits for the calling thread alone; 0 where that cannot be known. Source: proc_pid_status(5). */
static uint64_t own_only(void)
{
    char text[2048];
    trouble_none(proc_read("thread-self/status", text, sizeof text), "learn what signals wait");
    const char *at = strstr(text, "\nSigPnd:\t");
    at = at ? at + 9 : "";
    return digits_hex(&at, 16);
}

/* The kernel gives a thread its own before it gives what waits for all. Of a number there may be several. */
static void take_own(uint64_t of_timers)
{
    const struct thread *me = thread_self();
    uint64_t own = own_only(), all = own;
    for (uint64_t set; (set = own & TAKEABLE & ~of_timers) && waiting.count < PENDING_MAX; own = own_only())
        for (int signal = 1; signal < SIGNAL_COUNT; signal++)
            if (set & SIGNAL_BIT(signal))
                take(SIGNAL_BIT(signal), me->peer);
    note_timers(all & of_timers, me->peer, threads_known_tid(sys(SYS_gettid)));
}

static void take_common(uint64_t pending, uint64_t of_timers)
{
    uint64_t set = pending & TAKEABLE & ~of_timers;
    while (set && take(set, PROCESS))
        ;
    note_timers(pending & of_timers, PROCESS, 0);
}

void pending_answer(void)
{
    uint32_t first = waiting.count;
    take_own(time_timers_signals());
    send_back(first, waiting.count);
}

/* From now on what is found is what is known to wait. */
static void settle(struct thread *t, int found)
{
    __atomic_store_n(&t->signals.queue_heard, 0, __ATOMIC_RELAXED);
    pending_sent(t, found - __atomic_load_n(&t->signals.unheard, __ATOMIC_RELAXED));
    if (t->signals.handing)
        __atomic_fetch_sub(&unheard, 1, __ATOMIC_RELEASE);
    t->signals.handing = false;
}

/* A thread that waits in the kernel may have been given a signal that it has not written down yet: not for long. */
static void ask(struct thread *t)
{
    int64_t until = time_monotonic_ns() + UNHEARD_NS;
    uint32_t first = waiting.count;
    for (;;) {
        waiting.count = first;
        bool moves = threads_ask(t->peer);
        int found = (int)(waiting.count - first);
        int known = __atomic_load_n(&t->signals.unheard, __ATOMIC_ACQUIRE);
        if (!moves || known <= found + __atomic_load_n(&t->signals.queue_heard, __ATOMIC_ACQUIRE) || time_monotonic_ns() > until) {
            settle(t, found);
            return;
        }
        sys(SYS_sched_yield);
    }
}

static void capture(uint64_t pending)
{
    struct thread *me = thread_self();
    uint64_t of_timers = time_timers_signals();
    waiting.count = 0;
    waiting.pid = (int)sys(SYS_getpid);
    if (me->signals.unheard || me->signals.handing)
        take_own(of_timers);
    settle(me, (int)waiting.count);
    take_common(pending, of_timers);
    send_back(0, waiting.count);
}

void pending_capture(uint64_t pending)
{
    bool any = __atomic_load_n(&unheard, __ATOMIC_ACQUIRE) != 0;
    if (any || (pending & TAKEABLE))
        capture(pending);
    else if (waiting.count) /* an unchanged line stays clean */
        waiting.count = 0;
    for (uint32_t i = 0; any && i < THREADS_MAX; i++) {
        struct thread *t = threads_other(&i);
        if (t && (t->signals.unheard || t->signals.handing))
            ask(t);
    }
}

bool pending_holds(const struct thread *t, int signal)
{
    for (uint32_t i = 0; i < waiting.count; i++)
        if (waiting.of[i].info.si_signo == signal && (waiting.of[i].whom == PROCESS || waiting.of[i].whom == t->peer))
            return true;
    return false;
}

static int count_for(const struct thread *t)
{
    int n = 0;
    for (uint32_t i = 0; i < waiting.count; i++)
        n += waiting.of[i].whom == t->peer;
    return n;
}

void pending_resume(void)
{
    int pid = (int)sys(SYS_getpid);
    unheard = 0;
    thread_self()->signals.unheard = 0;
    settle(thread_self(), count_for(thread_self()));
    for (uint32_t i = 0; i < THREADS_MAX; i++) {
        struct thread *t = threads_other(&i);
        if (!t)
            break;
        t->signals.unheard = 0;
        settle(t, count_for(t));
    }
    for (uint32_t i = 0; i < waiting.count; i++) {
        siginfo_t info = waiting.of[i].info;
        bool ours = info.si_code == SI_USER || info.si_code == SI_TKILL || info.si_code == SI_QUEUE;
        if (ours && info.si_pid == waiting.pid)
            info.si_pid = pid;
        uint32_t whom = waiting.of[i].whom;
        long tid = whom == PROCESS ? 0 : threads_tid_at(whom);
        if (waiting.of[i].left) /* timers have new numbers */
            time_timers_info(&info, tid ? threads_known_tid(tid) : 0);
        MUTANT("signals.pending_lost", (void)0, pending_send(&info, tid));
    }
}

void pending_exit(void)
{
    pending_sent(thread_self(), -thread_self()->signals.unheard);
    pending_handed();
}

void pending_forked(void)
{
    unheard = 0;
    thread_self()->signals.unheard = thread_self()->signals.queue_heard = 0;
    thread_self()->signals.handing = false;
    waiting.count = 0;
}
