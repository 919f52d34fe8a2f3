#define _GNU_SOURCE
#include "shim/altstack.h"
#include "heap/fault.h"
#include "heap/session.h"
#include "shim/call_signal.h"
#include "shim/sigsys.h"
#include "shim/threads.h"

#include <sys/auxv.h>

#define ROOMY (24UL << 10) /* for the frames of nested signals, and libken on them; Go's have 32   \
                            */
#define LEAST 2048UL       /* the kernel's, where it does not say */
#define AUTODISARM (1U << 31) /* SS_AUTODISARM */

static char overflow_stack[64 << 10] __attribute__((aligned(4096)));
static int any, small;          /* threads that have one; that have one which is not roomy */
static bool roomy;              /* some thread has had one that is: its code may still run where there is no room */
static unsigned long installed; /* the flag of libken's handlers */

bool altstack_any(void)
{
    return any > 0;
}

unsigned long altstack_flag(void)
{
    return MUTANT("altstack.unused", false, roomy && !small) ? SA_ONSTACK : 0;
}

static stack_t kernels(void)
{
    const struct thread *me = thread_self();
    if (me->signals.has_altstack)
        return me->signals.altstack;
    if (me->peer == 0)
        return (stack_t){.ss_sp = overflow_stack, .ss_size = sizeof overflow_stack};
    return (stack_t){.ss_flags = SS_DISABLE};
}

static void count(const struct signal_thread *t, int change)
{
    if (!t->has_altstack)
        return;
    any += change;
    if (t->altstack.ss_size < ROOMY)
        small += change;
}

static void note(const stack_t *now)
{
    struct signal_thread *t = &thread_self()->signals;
    bool had_any = altstack_any();
    count(t, -1);
    t->altstack = *now;
    t->has_altstack = !(now->ss_flags & SS_DISABLE);
    count(t, 1);
    roomy |= t->has_altstack && t->altstack.ss_size >= ROOMY;
    if (installed != altstack_flag() && session && session->sigsys) {
        installed = altstack_flag();
        sigsys_install();
        threads_install_signal();
    }
    if (had_any == altstack_any())
        return;
    for (int signal = 1; signal < SIGNAL_COUNT; signal++)
        if (!(SIGNAL_KEPT & SIGNAL_BIT(signal)) && (signal_action(signal)->flags & SA_ONSTACK))
            signal_install(signal);
}

void altstack_exit(void)
{
    struct signal_thread *t = &thread_self()->signals;
    count(t, -1);
    t->has_altstack = false;
}

static bool is_within(stack_t s, uintptr_t at)
{
    return !(s.ss_flags & SS_DISABLE) && at - (uintptr_t)s.ss_sp < s.ss_size;
}

static bool on_kernels(void)
{
    return is_within(kernels(), (uintptr_t)__builtin_frame_address(0));
}

bool altstack_in_use(void)
{
    return thread_self()->signals.has_altstack && on_kernels();
}

/* Whether the program was on its own when it called. */
static bool was_in_use(const struct call *c)
{
    const struct signal_thread *t = &thread_self()->signals;
    return t->has_altstack &&
           is_within(t->altstack, (uintptr_t)c->frame->uc_mcontext.gregs[REG_RSP]);
}

/* As the kernel does, which would find the stack in use: by libken alone. */
static long judge(const stack_t *s)
{
    unsigned long least = getauxval(AT_MINSIGSTKSZ);
    unsigned mode = (unsigned)s->ss_flags & ~AUTODISARM;
    if (mode && mode != SS_DISABLE)
        return -EINVAL;
    return mode != SS_DISABLE && s->ss_size < (least > LEAST ? least : LEAST) ? -ENOMEM : 0;
}

/* Tells the kernel of another stack while this one is in use by libken, which goes on standing
 * where it does. No signal comes meanwhile, nothing is written by the stack pointer, and the kernel
 * only compares it. */
static void stand_elsewhere(const stack_t *stack)
{
    uint64_t all = ~0UL, mask;
    long nr = SYS_sigaltstack;
    sys(SYS_rt_sigprocmask, SIG_SETMASK, &all, &mask, 8);
    __asm__ volatile("movq %%rsp, %%r12\n\t"
                     "xorl %%esp, %%esp\n\t"
                     "syscall\n\t"
                     "movq %%r12, %%rsp"
                     : "+a"(nr)
                     : "D"(stack), "S"(NULL)
                     : "rcx", "r11", "r12", "memory");
    sys(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, 8);
}

static long set(const struct call *c, const stack_t *wanted)
{
    bool off = wanted->ss_flags & SS_DISABLE, within = c->frame && on_kernels();
    stack_t probe = *wanted;
    if (within && was_in_use(c))
        return -EPERM;
    /* The kernel judges: no change while it is in use, size, flags. */
    long result = within ? judge(wanted) : sys(SYS_sigaltstack, &probe, NULL);
    if (sys_failed(result))
        return result;
    note(wanted);
    stack_t now = kernels();
    if (within)
        stand_elsewhere(&now);
    else if (off)
        sys(SYS_sigaltstack, &now, NULL);
    if (c->frame)
        c->frame->uc_stack = now; /* its return sets it once more, where that is allowed */
    return 0;
}

long call_sigaltstack(struct call *c)
{
    stack_t now, wanted;
    sys(SYS_sigaltstack, NULL, &now);
    if (!thread_self()->signals.has_altstack)
        now = (stack_t){.ss_flags = SS_DISABLE}; /* libken's own does not concern the program */
    else if (c->frame && !was_in_use(c))
        now.ss_flags &= ~SS_ONSTACK; /* nor does it that libken is on it */
    if (c->arg[0]) {
        if (!fault_copy(&wanted, (void *)c->arg[0], sizeof wanted))
            return -EFAULT;
        wanted.ss_flags &= ~SS_ONSTACK; /* the kernel takes it for nothing */
        long result = set(c, &wanted);
        if (sys_failed(result))
            return result;
    }
    if (c->arg[1] && !fault_copy((void *)c->arg[1], &now, sizeof now))
        return -EFAULT;
    return 0;
}

void altstack_boot(void)
{
    stack_t inherited;
    sys(SYS_sigaltstack, NULL, &inherited);
    note(&inherited);
    altstack_resume();
}

void altstack_resume(void)
{
    stack_t now = kernels();
    sys(SYS_sigaltstack, &now, NULL);
}
