#include "shim/threads.h"
#include "heap/context.h"
#include "heap/fault.h"
#include "heap/say.h"
#include "heap/session.h"
#include "shim/call_process.h"
#include "shim/call_signal.h"
#include "shim/call_time.h"
#include "shim/credentials.h"
#include "shim/heir.h"
#include "shim/sigsys.h"
#include "shim/thread.h"

#include <asm/prctl.h>
#include <linux/futex.h>
#include <sched.h>
#include <string.h>
#include <sys/prctl.h>

#define RSEQ_UNREGISTER 1
#define RED_ZONE 128
#define LOCK_SPINS 200 /* some microseconds: most handlers are done by then */

bool threads_many;

static struct peer peers[THREADS_MAX];
static uint32_t peers_used; /* entries ever used */
static uint32_t lock_word;  /* 0 free, 1 taken, 2 taken and waited for */
static uint32_t go_word, stopped;
static uint32_t awake; /* threads that do not wait in the kernel: they run, or want the lock. Atomic */
static long process; /* its number, to the kernel */
static uint32_t committer; /* index of the peer that committed last */

static struct peer *self(void)
{
    return &peers[thread_self()->peer];
}

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

/* In a new incarnation. All signals are blocked until here. */
static void come_back(int depth)
{
    struct peer *me = self();
    while (__atomic_load_n(&go_word, __ATOMIC_ACQUIRE) == me->go_seen)
        futex_wait(&go_word, me->go_seen);
    credentials_resume();
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
    struct peer *me = self();
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
    self()->state = THREAD_RUNNING;
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
    if (info->si_code != SI_TKILL || info->si_pid != (pid_t)sys(SYS_getpid)) {
        heir_signalled(frame);
        return;
    }
    struct peer *me = self();
    me->go_seen = __atomic_load_n(&go_word, __ATOMIC_ACQUIRE);
    bool again = context_save(&me->context); /* in a new incarnation */
    if (!again) {
        __atomic_store_n(&me->state, THREAD_STOPPED, __ATOMIC_RELEASE);
        __atomic_add_fetch(&stopped, 1, __ATOMIC_RELEASE);
        futex_wake(&stopped, 1);
    }
    while (__atomic_load_n(&go_word, __ATOMIC_ACQUIRE) == self()->go_seen)
        futex_wait(&go_word, self()->go_seen);
    if (again)
        credentials_resume();
}

static void install_signal(void)
{
    struct signal_action action = {.handler = (uintptr_t)stand_still,
                                   .flags = SA_SIGINFO | SA_RESTART | 0x04000000 /* SA_RESTORER */,
                                   .restorer = (uintptr_t)signal_restorer,
                                   .mask = ~SIGNAL_FAULTS & ~SIGNAL_BIT(SIGSYS)};
    sys(SYS_rt_sigaction, THREADS_SIGNAL, &action, 0, 8);
}

void threads_boot(const struct meta *m)
{
    peers[0] = (struct peer){.state = THREAD_RUNNING, .leader = true, .tid = sys(SYS_gettid), .fs_base = m->fs_base,
                             .clear_child_tid = m->clear_child_tid, .robust_list = m->robust_list,
                             .robust_list_bytes = m->robust_list_bytes, .rseq = m->rseq,
                             .rseq_bytes = m->rseq_bytes, .rseq_signature = m->rseq_signature};
    peers[0].real_tid = peers[0].tid;
    peers_used = awake = 1;
    process = sys(SYS_getpid);
    install_signal();
}

void threads_forked(void)
{
    struct peer me = *self();
    uint32_t index = thread_self()->peer;
    memset(peers, 0, sizeof *peers * peers_used);
    me.leader = true;
    me.state = THREAD_RUNNING;
    me.tid = me.real_tid = process = sys(SYS_getpid);
    peers[index] = me;
    peers_used = index + 1;
    threads_many = false;
    awake = 1;
}

__attribute__((noinline)) long threads_away(long (*wait)(void *), void *context)
{
    struct peer *me = self();
    int depth = thread_self()->inside;
    if (!threads_many)
        return wait(context);
    me->mask = signal_mask_thread();
    if (context_save(&me->context)) {
        come_back(depth);
        return THREADS_AGAIN;
    }
    __atomic_store_n(&me->state, THREAD_AWAY, __ATOMIC_RELEASE);
    __atomic_sub_fetch(&awake, 1, __ATOMIC_RELAXED);
    threads_unlock();
    long result = wait(context);
    if (self()->state == THREAD_AWAY) /* no handler of the program ran meanwhile */
        __atomic_add_fetch(&awake, 1, __ATOMIC_RELAXED);
    threads_lock();
    self()->state = THREAD_RUNNING;
    return result;
}

bool threads_resting(void)
{
    return __atomic_load_n(&awake, __ATOMIC_RELAXED) == 0;
}

bool threads_alone(void)
{
    return !threads_many || __atomic_load_n(&awake, __ATOMIC_RELAXED) <= 1;
}

void threads_back(const siginfo_t *info, uint64_t program_mask)
{
    struct signal_thread *t = &thread_self()->signals;
    uint64_t all = SIGNAL_DEFERRED, mask;
    if (!threads_many || self()->state != THREAD_AWAY)
        return;
    sys(SYS_rt_sigprocmask, SIG_SETMASK, &all, &mask, 8);
    int before = t->queued;
    signal_enqueue(t, info, program_mask);
    time_heard(info->si_signo);
    __atomic_add_fetch(&awake, 1, __ATOMIC_RELAXED);
    threads_lock();
    signal_dequeue(t, before);
    self()->state = THREAD_RUNNING;
    threads_unlock();
    sys(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, 8);
}

static long signal_peer(const struct peer *p, int signal)
{
    return sys(SYS_tgkill, process, p->real_tid, signal);
}

void threads_stop(void)
{
    uint32_t wanted = 0;
    if (!threads_many)
        return;
    __atomic_store_n(&stopped, 0, __ATOMIC_RELEASE);
    for (uint32_t i = 0; i < peers_used; i++) {
        struct peer *p = &peers[i];
        if (p == self() || p->state == THREAD_NONE || p->state == THREAD_AWAY)
            continue;
        if (p->state == THREAD_EXITING) {
            /* The kernel clears its tid word and wakes who joins it; only then is its memory at rest. */
            while (signal_peer(p, 0) != -ESRCH)
                sys(SYS_sched_yield);
            p->state = THREAD_NONE;
        } else if (signal_peer(p, THREADS_SIGNAL) == -ESRCH) {
            p->state = THREAD_NONE; /* killed by a seccomp filter or the like */
            __atomic_sub_fetch(&awake, 1, __ATOMIC_RELAXED);
        } else {
            wanted++;
        }
    }
    for (uint32_t have; (have = __atomic_load_n(&stopped, __ATOMIC_ACQUIRE)) < wanted;)
        futex_wait(&stopped, have);
    FAULT("threads.stopped");
}

void threads_go(void)
{
    if (!threads_many)
        return;
    bool any = false;
    for (uint32_t i = 0; i < peers_used; i++) {
        if (peers[i].state != THREAD_STOPPED)
            continue;
        peers[i].state = THREAD_RUNNING;
        any = true;
    }
    __atomic_add_fetch(&go_word, 1, __ATOMIC_RELEASE);
    if (any)
        futex_wake(&go_word, INT32_MAX);
}

unsigned threads_stops(void)
{
    return thread_self()->stops;
}

void threads_capture(struct meta *m)
{
    const struct peer *me = self();
    committer = thread_self()->peer;
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
    for (uint32_t i = 0; i < peers_used; i++)
        if (peers[i].state != THREAD_NONE && peers[i].tid == tid)
            return peers[i].real_tid;
    return tid;
}

long threads_known_tid(long real_tid)
{
    for (uint32_t i = 0; i < peers_used; i++)
        if (peers[i].state != THREAD_NONE && peers[i].real_tid == real_tid)
            return peers[i].tid;
    return real_tid;
}

/* What belongs to the kernel's thread, set from what the peer had. */
static void dress(const struct peer *p)
{
    sys(SYS_set_tid_address, p->clear_child_tid);
    sys(SYS_set_robust_list, p->robust_list, p->robust_list_bytes);
    if (p->rseq)
        sys(SYS_rseq, p->rseq, p->rseq_bytes, 0, p->rseq_signature);
    if (thread_self()->name[0])
        sys(SYS_prctl, PR_SET_NAME, thread_self()->name, 0, 0, 0);
    if (session->sigsys)
        sigsys_thread_on();
}

/* Entered by a new kernel thread on the dead part of the old one's stack. */
void threads_reenter(struct peer *p)
{
    dress(p);
    context_resume(&p->context);
}

long clone_resume(unsigned long flags, void *stack, uint64_t *child_tid, uint64_t tls, struct peer *p);

/* As a context that is not saved, or not resumed, as a whole: all of what it has but the stack. (One register alone may
 * be one that every function on the way back has pushed, and that is not missed.) */
static void mutilate(struct context *c)
{
    c->rbx = c->rbp = c->r12 = c->r13 = c->r14 = c->r15 = 0;
}

static void make_again(struct peer *p)
{
    unsigned long flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM |
                          CLONE_SETTLS | CLONE_CHILD_CLEARTID;
    char *stack = (char *)((p->context.rsp - RED_ZONE) & ~15UL);
    p->state = THREAD_STOPPED;
    p->go_seen = go_word;
    if (MUTANT("threads.registers_lost", true, false))
        mutilate(&p->context);
    p->real_tid = clone_resume(flags, stack, (uint64_t *)p->clear_child_tid,
                               MUTANT("threads.wrong_tls", self()->fs_base, p->fs_base), p);
    FAULT("threads.made");
    if (sys_failed(p->real_tid))
        say_die_of(p->real_tid, "cannot make thread %ld again (%s); start the same command again", p->tid,
                   say_error(p->real_tid));
}

static char swap_stack[16384] __attribute__((aligned(16)));

/* On a stack of its own: the committer goes on at once on the one that it was called on. It may be in its next
 * commit before this thread has made another step, so all it must know of the leader is said first. */
static _Noreturn void become_leader(struct peer *me, struct peer *leader)
{
    FAULT("threads.swap");
    leader->real_tid = sys(SYS_getpid);
    leader->state = THREAD_STOPPED;
    leader->go_seen = go_word;
    make_again(me);
    sys(SYS_arch_prctl, ARCH_SET_FS, leader->fs_base);
    threads_reenter(leader);
}

/* The process's first thread must be the program's first one: the kernel ties the process's name, its exit and more
 * to it. The committer goes on in a thread of its own. */
static void swap_with_leader(struct peer *leader)
{
    struct peer *me = self();
    if (me->rseq)
        sys(SYS_rseq, me->rseq, me->rseq_bytes, RSEQ_UNREGISTER, me->rseq_signature);
    if (context_save(&me->context)) { /* the committer, in its new thread */
        self()->real_tid = sys(SYS_gettid);
        return;
    }
    __asm__ volatile("movq %0, %%rsp\n\t"
                     "xorl %%ebp, %%ebp\n\t"
                     "call *%1"
                     :
                     : "r"(swap_stack + sizeof swap_stack), "r"(become_leader), "D"(me), "S"(leader)
                     : "memory");
    __builtin_unreachable();
}

void threads_resume(void)
{
    struct peer *leader = NULL;
    install_signal();
    process = sys(SYS_getpid);
    self()->real_tid = sys(SYS_gettid);
    for (uint32_t i = 0; i < peers_used; i++)
        if (peers[i].leader && peers[i].state != THREAD_NONE)
            leader = &peers[i];
    if (leader && leader != self())
        swap_with_leader(leader);
    self()->state = THREAD_RUNNING;
    for (uint32_t i = 0; i < peers_used; i++)
        if (&peers[i] != self() && &peers[i] != leader && peers[i].state != THREAD_NONE)
            make_again(&peers[i]);
    awake = 0; /* those that waited begin their wait anew, at its very beginning */
    for (uint32_t i = 0; i < peers_used; i++)
        awake += peers[i].state != THREAD_NONE;
}

static struct peer *free_peer(uint32_t *index)
{
    for (uint32_t i = 0; i < THREADS_MAX; i++) {
        bool gone = peers[i].state == THREAD_EXITING && signal_peer(&peers[i], 0) == -ESRCH;
        if (peers[i].state == THREAD_NONE || gone) {
            peers[i] = (struct peer){0};
            peers_used = i < peers_used ? peers_used : i + 1;
            *index = i;
            return &peers[i];
        }
    }
    return NULL;
}

/* The struct thread of a thread whose thread pointer is `tls`: static TLS lies at one offset in all of them. */
static struct thread *thread_at(uint64_t tls)
{
    uint64_t mine;
    sys(SYS_arch_prctl, ARCH_GET_FS, &mine);
    return (struct thread *)((uint64_t)thread_self() - mine + tls);
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
    *thread_at(p->fs_base) = (struct thread){.peer = index};
    memcpy(thread_at(p->fs_base)->name, thread_self()->name, sizeof thread_self()->name);
    long tid = clone_thread(flags, (unsigned long)c->arg[1], c->arg[2], c->arg[3], c->arg[4], c->frame);
    if (sys_failed(tid))
        return tid;
    p->tid = p->real_tid = tid;
    __atomic_add_fetch(&awake, 1, __ATOMIC_RELAXED);
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
    for (uint32_t i = 0; i < peers_used; i++)
        alive += peers[i].state == THREAD_RUNNING || peers[i].state == THREAD_AWAY;
    if (alive <= 1)
        return;
    __atomic_store_n(&self()->state, THREAD_EXITING, __ATOMIC_RELEASE);
    __atomic_sub_fetch(&awake, 1, __ATOMIC_RELAXED);
    threads_unlock();
    for (;;)
        sys(SYS_exit, status);
}

long call_set_robust_list(struct call *c)
{
    long r = call_raw(c);
    if (!sys_failed(r)) {
        self()->robust_list = (uint64_t)c->arg[0];
        self()->robust_list_bytes = (uint64_t)c->arg[1];
    }
    return r;
}

long call_rseq(struct call *c)
{
    long r = call_raw(c);
    if (sys_failed(r))
        return r;
    struct peer *me = self();
    me->rseq = c->arg[2] & RSEQ_UNREGISTER ? 0 : (uint64_t)c->arg[0];
    me->rseq_bytes = (uint64_t)c->arg[1];
    me->rseq_signature = (uint64_t)c->arg[3];
    return r;
}
