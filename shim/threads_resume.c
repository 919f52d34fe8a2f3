/* In a new incarnation: the program's threads are made again, and the one that committed goes on. */
#include "heap/context.h"
#include "heap/fault.h"
#include "heap/say.h"
#include "heap/session.h"
#include "shim/sigsys.h"
#include "shim/thread.h"
#include "shim/threads_inner.h"

#include <asm/prctl.h>
#include <sched.h>
#include <sys/prctl.h>

#define RSEQ_UNREGISTER 1
#define RED_ZONE 128

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
    p->go_seen = threads.go_word;
    if (MUTANT("threads.registers_lost", true, false))
        mutilate(&p->context);
    p->real_tid = clone_resume(flags, stack, (uint64_t *)p->clear_child_tid,
                               MUTANT("threads.wrong_tls", threads_self()->fs_base, p->fs_base), p);
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
    leader->go_seen = threads.go_word;
    make_again(me);
    sys(SYS_arch_prctl, ARCH_SET_FS, leader->fs_base);
    threads_reenter(leader);
}

/* The process's first thread must be the program's first one: the kernel ties the process's name, its exit and more
 * to it. The committer goes on in a thread of its own. */
static void swap_with_leader(struct peer *leader)
{
    struct peer *me = threads_self();
    if (me->rseq)
        sys(SYS_rseq, me->rseq, me->rseq_bytes, RSEQ_UNREGISTER, me->rseq_signature);
    if (context_save(&me->context)) { /* the committer, in its new thread */
        threads_self()->real_tid = sys(SYS_gettid);
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
    threads_install_signal();
    threads.process = sys(SYS_getpid);
    threads_self()->real_tid = sys(SYS_gettid);
    for (uint32_t i = 0; i < threads.used; i++)
        if (threads.peers[i].leader && threads.peers[i].state != THREAD_NONE)
            leader = &threads.peers[i];
    if (leader && leader != threads_self())
        swap_with_leader(leader);
    threads_self()->state = THREAD_RUNNING;
    for (uint32_t i = 0; i < threads.used; i++)
        if (&threads.peers[i] != threads_self() && &threads.peers[i] != leader && threads.peers[i].state != THREAD_NONE)
            make_again(&threads.peers[i]);
    threads.awake = 0; /* those that waited begin their wait anew, at its very beginning */
    for (uint32_t i = 0; i < threads.used; i++)
        threads.awake += threads.peers[i].state != THREAD_NONE;
}
