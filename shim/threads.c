#include "shim/threads.h"
#include "heap/context.h"
#include "heap/fault.h"
#include "heap/session.h"
#include "shim/altstack.h"
#include "shim/call_process.h"
#include "shim/call_signal.h"
#include "shim/call_time.h"
#include "shim/credentials.h"
#include "shim/heir.h"
#include "shim/pending.h"
#include "shim/sigsys.h"
#include "shim/threads_inner.h"

#include <linux/futex.h>
#include <sched.h>
#include <string.h>

#define RSEQ_UNREGISTER 1
#define ASK_AGAIN_NS 500000
#define LOCK_SPINS 200 /* some microseconds: most handlers are done by then */

bool threads_many;

struct threads threads;
static uint32_t lock_word; /* 0 free, 1 taken, 2 taken and waited for */
static uint32_t missing; /* threads that do not stand still yet, and the committer until it has told all. Atomic */

static void futex_wait(uint32_t *word, uint32_t value)
{
    sys(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, 0, 0, 0);
}

static void futex_wake(uint32_t *word, int count)
{
    sys(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, 0, 0, 0);
}

static bool try_lock(void)
{
    for (int spin = 0; spin < LOCK_SPINS; spin++) {
        uint32_t free = 0;
        if (__atomic_compare_exchange_n(&lock_word, &free, 1, false, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
            return true;
        __builtin_ia32_pause();
    }
    return false;
}

static void sleep_for_lock(void)
{
    while (__atomic_exchange_n(&lock_word, 2, __ATOMIC_ACQUIRE))
        futex_wait(&lock_word, 2);
    thread_self()->locked = true;
}

static bool is_asked(const struct peer *p)
{
    return __atomic_load_n(&p->asked, __ATOMIC_ACQUIRE);
}

static void answer(struct peer *me)
{
    pending_answer();
    __atomic_store_n(&me->asked, 0, __ATOMIC_RELEASE);
    futex_wake(&me->asked, 1);
}

static void wait_for_go(void)
{
    struct peer *me = threads_self();
    while (__atomic_load_n(&threads.go_word, __ATOMIC_ACQUIRE) == me->go_seen) {
        if (is_asked(me))
            answer(me);
        else
            futex_wait(&threads.go_word, me->go_seen);
    }
}

/* In a new incarnation. All signals are blocked until here. */
static void come_back(int depth)
{
    struct peer *me = threads_self();
    wait_for_go();
    credentials_resume_thread();
    thread_self()->inside = depth;
    signal_thread_resume(me->mask);
    sleep_for_lock();
}

/* Source: Drepper, "Futexes Are Tricky", 2011, mutex 2. A thread that has to wait is away, if it was not before: whoever
 * holds the lock may well be committing. */
void threads_lock(void)
{
    if (!threads_many)
        return;
    struct peer *me = threads_self();
    if (try_lock()) {
        thread_self()->locked = true;
        return;
    }
    if (me->state != THREAD_RUNNING) {
        sleep_for_lock();
        return;
    }
    int depth = thread_self()->inside;
    me->mask = signal_mask_thread();
    if (context_save(&me->context)) {
        come_back(depth);
        return;
    }
    __atomic_store_n(&me->state, THREAD_AWAY, __ATOMIC_RELEASE);
    sleep_for_lock();
    threads_self()->state = THREAD_RUNNING;
}

void threads_unlock(void)
{
    struct thread *me = thread_self();
    if (!me->locked)
        return;
    me->locked = false;
    if (__atomic_exchange_n(&lock_word, 0, __ATOMIC_RELEASE) == 2)
        futex_wake(&lock_word, 1);
}

/* Here each thread is saved, and comes back; the signal frame below holds the rest of its registers, its mask and its
 * alternate stack, which rt_sigreturn gives back. */
static void stand_still(int signal, siginfo_t *info, void *frame)
{
    (void)signal;
    thread_self()->stops++; /* whoever sent it, the program never hears of it */
    if (info->si_code != SI_TKILL || info->si_pid != (pid_t)threads.process) {
        heir_signalled(frame);
        return;
    }
    struct peer *me = threads_self();
    if (me->state == THREAD_AWAY && is_asked(me)) { /* and left alone otherwise */
        answer(me);
        return;
    }
    me->go_seen = __atomic_load_n(&threads.go_word, __ATOMIC_ACQUIRE);
    bool again = context_save(&me->context); /* in a new incarnation */
    if (!again) {
        __atomic_store_n(&me->state, THREAD_STOPPED, __ATOMIC_RELEASE);
        if (__atomic_sub_fetch(&missing, 1, __ATOMIC_RELEASE) == 0) /* only the last one: each wake takes a processor away */
            futex_wake(&missing, 1);
    }
    wait_for_go();
    if (again)
        credentials_resume_thread();
}

void threads_install_signal(void)
{
    struct signal_action action = {.handler = (uintptr_t)stand_still,
                                   .flags = SA_SIGINFO | SA_RESTART | altstack_flag() | 0x04000000 /* SA_RESTORER */,
                                   .restorer = (uintptr_t)signal_restorer,
                                   .mask = ~SIGNAL_FAULTS & ~SIGNAL_BIT(SIGSYS)};
    sys(SYS_rt_sigaction, THREADS_SIGNAL, &action, 0, 8);
}

void threads_boot(const struct meta *m)
{
    threads.peers[0] = (struct peer){.state = THREAD_RUNNING, .leader = true, .tid = sys(SYS_gettid), .fs_base = m->fs_base,
                             .clear_child_tid = m->clear_child_tid, .robust_list = m->robust_list,
                             .robust_list_bytes = m->robust_list_bytes, .rseq = m->rseq,
                             .rseq_bytes = m->rseq_bytes, .rseq_signature = m->rseq_signature};
    threads.peers[0].real_tid = threads.peers[0].tid;
    threads.used = threads.awake = 1;
    threads.process = sys(SYS_getpid);
    threads_install_signal();
}

void threads_forked(void)
{
    struct peer me = *threads_self();
    uint32_t index = thread_self()->peer;
    memset(threads.peers, 0, sizeof *threads.peers * threads.used);
    me.leader = true;
    me.state = THREAD_RUNNING;
    me.tid = me.real_tid = threads.process = sys(SYS_getpid);
    threads.peers[index] = me;
    threads.used = index + 1;
    threads_many = false;
    threads.awake = 1;
}

__attribute__((noinline)) long threads_away(long (*wait)(void *), void *context)
{
    struct peer *me = threads_self();
    int depth = thread_self()->inside;
    if (!threads_many)
        return wait(context);
    me->mask = signal_mask_thread();
    if (context_save(&me->context)) {
        come_back(depth);
        return THREADS_AGAIN;
    }
    __atomic_store_n(&me->state, THREAD_AWAY, __ATOMIC_RELEASE);
    __atomic_sub_fetch(&threads.awake, 1, __ATOMIC_RELAXED);
    threads_unlock();
    long result = wait(context);
    if (threads_self()->state == THREAD_AWAY) /* no handler of the program ran meanwhile */
        __atomic_add_fetch(&threads.awake, 1, __ATOMIC_RELAXED);
    threads_lock();
    threads_self()->state = THREAD_RUNNING;
    return result;
}

bool threads_resting(void)
{
    return __atomic_load_n(&threads.awake, __ATOMIC_RELAXED) == 0;
}

bool threads_alone(void)
{
    return !threads_many || __atomic_load_n(&threads.awake, __ATOMIC_RELAXED) <= 1;
}

void threads_back(const siginfo_t *info, uint64_t program_mask)
{
    struct signal_thread *t = &thread_self()->signals;
    uint64_t all = SIGNAL_DEFERRED, mask;
    if (!threads_many || threads_self()->state != THREAD_AWAY) {
        pending_heard(info);
        return;
    }
    sys(SYS_rt_sigprocmask, SIG_SETMASK, &all, &mask, 8);
    int before = t->queued;
    signal_enqueue(t, info, program_mask);
    time_heard(info->si_signo);
    pending_heard(info);
    __atomic_add_fetch(&threads.awake, 1, __ATOMIC_RELAXED);
    threads_lock();
    signal_dequeue(t, before);
    threads_self()->state = THREAD_RUNNING;
    threads_unlock();
    sys(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, 8);
}

static long signal_peer(const struct peer *p, int signal)
{
    return sys(SYS_tgkill, threads.process, p->real_tid, signal);
}

void threads_stop(void)
{
    if (!threads_many)
        return;
    uint64_t from = __builtin_ia32_rdtsc();
    __atomic_store_n(&missing, 1, __ATOMIC_RELEASE);
    for (uint32_t i = 0; i < threads.used; i++) {
        struct peer *p = &threads.peers[i];
        if (p == threads_self() || p->state == THREAD_NONE || p->state == THREAD_AWAY)
            continue;
        if (p->state == THREAD_EXITING) {
            /* The kernel clears its tid word and wakes who joins it; only then is its memory at rest. */
            while (signal_peer(p, 0) != -ESRCH)
                sys(SYS_sched_yield);
            p->state = THREAD_NONE;
            continue;
        }
        __atomic_add_fetch(&missing, 1, __ATOMIC_RELAXED);
        if (signal_peer(p, THREADS_SIGNAL) == -ESRCH) {
            p->state = THREAD_NONE; /* killed by a seccomp filter or the like */
            __atomic_sub_fetch(&threads.awake, 1, __ATOMIC_RELAXED);
            __atomic_sub_fetch(&missing, 1, __ATOMIC_RELAXED);
        }
    }
    __atomic_sub_fetch(&missing, 1, __ATOMIC_RELAXED);
    for (uint32_t left; (left = __atomic_load_n(&missing, __ATOMIC_ACQUIRE)) > 0;)
        futex_wait(&missing, left);
    session->stop_ticks[session->stops++ % SESSION_STOPS] = __builtin_ia32_rdtsc() - from;
    FAULT("threads.stopped");
}

void threads_go(void)
{
    if (!threads_many)
        return;
    bool any = false;
    for (uint32_t i = 0; i < threads.used; i++) {
        if (threads.peers[i].state != THREAD_STOPPED)
            continue;
        threads.peers[i].state = THREAD_RUNNING;
        any = true;
    }
    __atomic_add_fetch(&threads.go_word, 1, __ATOMIC_RELEASE);
    if (any)
        futex_wake(&threads.go_word, INT32_MAX);
}

struct thread *threads_other(uint32_t *place)
{
    for (; *place < threads.used; ++*place) {
        const struct peer *p = &threads.peers[*place];
        if (p != threads_self() && p->state != THREAD_NONE && p->state != THREAD_EXITING)
            return threads_thread(p->fs_base);
    }
    *place = THREADS_MAX;
    return NULL;
}

long threads_tid_at(uint32_t place)
{
    return threads.peers[place].real_tid;
}

struct peer *threads_by_tid(long tid)
{
    for (uint32_t i = 0; i < threads.used; i++)
        if (threads.peers[i].tid == tid && threads.peers[i].state != THREAD_NONE && threads.peers[i].state != THREAD_EXITING)
            return &threads.peers[i];
    return NULL;
}

struct thread *threads_named(long tid)
{
    const struct peer *p = threads_by_tid(tid);
    return p ? threads_thread(p->fs_base) : NULL;
}

struct peer *threads_at(uint32_t place)
{
    return place < threads.used ? &threads.peers[place] : NULL;
}

bool threads_ask(uint32_t place)
{
    struct peer *p = &threads.peers[place];
    bool away = p->state == THREAD_AWAY;
    const struct timespec moment = {0, ASK_AGAIN_NS};
    __atomic_store_n(&p->asked, 1, __ATOMIC_RELEASE);
    if (away && signal_peer(p, THREADS_SIGNAL) == -ESRCH)
        p->asked = 0;
    while (is_asked(p)) { /* who stands still may have looked just before it was asked */
        if (!away)
            futex_wake(&threads.go_word, INT32_MAX);
        sys(SYS_futex, &p->asked, FUTEX_WAIT_PRIVATE, 1, &moment, 0, 0);
    }
    return away;
}

unsigned threads_stops(void)
{
    return thread_self()->stops;
}

void threads_capture(struct meta *m)
{
    const struct peer *me = threads_self();
    m->stack_whole = MUTANT("stack.below_is_dead", false, altstack_in_use());
    m->fs_base = me->fs_base;
    m->clear_child_tid = me->clear_child_tid;
    m->robust_list = me->robust_list;
    m->robust_list_bytes = me->robust_list_bytes;
    m->rseq = me->rseq;
    m->rseq_bytes = me->rseq_bytes;
    m->rseq_signature = me->rseq_signature;
}

long threads_real_tid(long tid)
{
    for (uint32_t i = 0; i < threads.used; i++)
        if (threads.peers[i].state != THREAD_NONE && threads.peers[i].tid == tid)
            return threads.peers[i].real_tid;
    return tid;
}

long threads_known_tid(long real_tid)
{
    for (uint32_t i = 0; i < threads.used; i++)
        if (threads.peers[i].state != THREAD_NONE && threads.peers[i].real_tid == real_tid)
            return threads.peers[i].tid;
    return real_tid;
}

static struct peer *free_peer(uint32_t *index)
{
    for (uint32_t i = 0; i < THREADS_MAX; i++) {
        bool gone = threads.peers[i].state == THREAD_EXITING && signal_peer(&threads.peers[i], 0) == -ESRCH;
        if (threads.peers[i].state == THREAD_NONE || gone) {
            threads.peers[i] = (struct peer){0};
            threads.used = i < threads.used ? threads.used : i + 1;
            *index = i;
            return &threads.peers[i];
        }
    }
    return NULL;
}

/* The new thread stands in the list before it makes its first step; it begins in threads_begin(). */
long call_clone_thread(struct call *c)
{
    unsigned long flags = (unsigned long)c->arg[0];
    uint32_t index;
    struct peer *p = free_peer(&index);
    if (!p || !(flags & CLONE_SETTLS))
        return -EAGAIN;
    if (!threads_many) {
        threads_many = true;
        threads_lock();
    }
    *p = (struct peer){.fs_base = (uint64_t)c->arg[4],
                       .clear_child_tid = flags & CLONE_CHILD_CLEARTID ? (uint64_t)c->arg[3] : 0};
    *threads_thread(p->fs_base) = (struct thread){.peer = index};
    memcpy(threads_thread(p->fs_base)->name, thread_self()->name, sizeof thread_self()->name);
    long tid = clone_thread(flags, (unsigned long)c->arg[1], c->arg[2], c->arg[3], c->arg[4], c->frame);
    if (sys_failed(tid))
        return tid;
    p->tid = p->real_tid = tid;
    __atomic_add_fetch(&threads.awake, 1, __ATOMIC_RELAXED);
    __atomic_store_n(&p->state, THREAD_RUNNING, __ATOMIC_RELEASE);
    return tid;
}

/* The first steps of a new thread, before the program's own: the net is per thread. */
void threads_begin(void)
{
    if (session->sigsys)
        sigsys_thread_on();
}

void threads_exit(long status)
{
    uint32_t alive = 0;
    for (uint32_t i = 0; i < threads.used; i++)
        alive += threads.peers[i].state == THREAD_RUNNING || threads.peers[i].state == THREAD_AWAY;
    if (alive <= 1)
        return;
    pending_exit();
    altstack_exit();
    __atomic_store_n(&threads_self()->state, THREAD_EXITING, __ATOMIC_RELEASE);
    __atomic_sub_fetch(&threads.awake, 1, __ATOMIC_RELAXED);
    threads_unlock();
    for (;;)
        sys(SYS_exit, status);
}

long call_set_robust_list(struct call *c)
{
    long r = call_raw(c);
    if (!sys_failed(r)) {
        threads_self()->robust_list = (uint64_t)c->arg[0];
        threads_self()->robust_list_bytes = (uint64_t)c->arg[1];
    }
    return r;
}

long call_rseq(struct call *c)
{
    long r = call_raw(c);
    if (sys_failed(r))
        return r;
    struct peer *me = threads_self();
    me->rseq = c->arg[2] & RSEQ_UNREGISTER ? 0 : (uint64_t)c->arg[0];
    me->rseq_bytes = (uint64_t)c->arg[1];
    me->rseq_signature = (uint64_t)c->arg[3];
    return r;
}
