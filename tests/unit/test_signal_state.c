/* Dispositions and masks as the program sees them, against what the kernel has. */
#include "shim/altstack.h"
#include "shim_signals.h"

#include <string.h>
#include <sys/mman.h>

static struct signal_action kernels(int signal)
{
    struct signal_action a;
    sys(SYS_rt_sigaction, signal, NULL, &a, 8);
    return a;
}

static uint64_t kernel_mask(void)
{
    uint64_t mask;
    sys(SYS_rt_sigprocmask, SIG_SETMASK, NULL, &mask, 8);
    return mask;
}

static void nothing(int signal, siginfo_t *info, void *context)
{
    (void)signal, (void)info, (void)context;
}

Test(signal_state, the_kernel_gets_the_wrapper_and_the_program_its_own_back)
{
    struct signal_action a = {.handler = (uintptr_t)nothing,
                              .flags = SA_RESTART | SA_RESETHAND | 0x04000000,
                              .restorer = 0x1234,
                              .mask =
                                  SIGNAL_BIT(SIGSYS) | SIGNAL_BIT(SIGUSR2) | SIGNAL_BIT(SIGKILL)};
    struct signal_action old;
    cr_assert_eq(RUN(call_rt_sigaction, 0, SIGUSR1, (long)&a, 0, 8), 0);
    struct signal_action k = kernels(SIGUSR1);
    cr_expect_eq(k.handler, (uintptr_t)signal_wrapper);
    cr_expect_eq(k.restorer, (uintptr_t)signal_restorer);
    cr_expect_eq(k.flags, (unsigned long)(SA_RESTART | SA_SIGINFO | 0x04000000));
    cr_expect_eq(k.mask, SIGNAL_BIT(SIGUSR2));
    cr_assert_eq(RUN(call_rt_sigaction, 0, SIGUSR1, 0, (long)&old, 8), 0);
    a.mask &= ~SIGNAL_BIT(SIGKILL);
    cr_expect_eq(memcmp(&a, &old, sizeof a), 0);
}

Test(signal_state, default_and_ignore_pass_but_crashes_are_caught)
{
    struct signal_action ignore = {.handler = (uintptr_t)SIG_IGN}, dfl = {0}, old;
    RUN(call_rt_sigaction, 0, SIGUSR1, (long)&ignore, 0, 8);
    cr_expect_eq(kernels(SIGUSR1).handler, (uintptr_t)SIG_IGN);
    RUN(call_rt_sigaction, 0, SIGUSR1, (long)&dfl, 0, 8);
    cr_expect_eq(kernels(SIGUSR1).handler, (uintptr_t)SIG_DFL);
    RUN(call_rt_sigaction, 0, SIGSEGV, (long)&dfl, 0, 8);
    cr_expect_eq(kernels(SIGSEGV).handler, (uintptr_t)signal_wrapper);
    RUN(call_rt_sigaction, 0, SIGSEGV, 0, (long)&old, 8);
    cr_expect_eq(old.handler, (uintptr_t)SIG_DFL);
    RUN(call_rt_sigaction, 0, SIGSEGV, (long)&ignore, 0, 8);
    cr_expect_eq(kernels(SIGSEGV).handler, (uintptr_t)SIG_IGN);
}

Test(signal_state, bad_arguments_are_answered_as_the_kernel_does)
{
    struct signal_action a = {0};
    cr_expect_eq(RUN(call_rt_sigaction, 0, 0, (long)&a, 0, 8), -EINVAL);
    cr_expect_eq(RUN(call_rt_sigaction, 0, 65, (long)&a, 0, 8), -EINVAL);
    cr_expect_eq(RUN(call_rt_sigaction, 0, SIGKILL, (long)&a, 0, 8), -EINVAL);
    cr_expect_eq(RUN(call_rt_sigaction, 0, SIGUSR1, (long)&a, 0, 4), -EINVAL);
    cr_expect_eq(RUN(call_rt_sigprocmask, 0, 7, (long)&a, 0, 8), -EINVAL);
    cr_expect_eq(RUN(call_rt_sigprocmask, 0, 7, 0, 0, 8), 0, "how is not looked at without a set");
    signal_boot();
    cr_expect_eq(RUN(call_rt_sigaction, 0, SIGUSR1, 16, 0, 8), -EFAULT);
    cr_expect_eq(RUN(call_rt_sigprocmask, 0, SIG_BLOCK, 16, 0, 8), -EFAULT);
}

Test(signal_state, sigsys_is_never_touched)
{
    struct signal_action before = kernels(SIGSYS), a = {.handler = (uintptr_t)SIG_IGN}, old;
    cr_assert_eq(RUN(call_rt_sigaction, 0, SIGSYS, (long)&a, 0, 8), 0);
    cr_expect_eq(kernels(SIGSYS).handler, before.handler);
    RUN(call_rt_sigaction, 0, SIGSYS, 0, (long)&old, 8);
    cr_expect_eq(old.handler, (uintptr_t)SIG_IGN);

    uint64_t set = SIGNAL_BIT(SIGSYS) | SIGNAL_BIT(SIGUSR1), was = 0;
    cr_assert_eq(RUN(call_rt_sigprocmask, 0, SIG_BLOCK, (long)&set, 0, 8), 0);
    cr_expect_eq(kernel_mask() & set, SIGNAL_BIT(SIGUSR1));
    cr_assert_eq(RUN(call_rt_sigprocmask, 0, SIG_UNBLOCK, (long)&set, (long)&was, 8), 0);
    cr_expect_eq(was & set, set, "the program is told that it is blocked");
    cr_expect_eq(kernel_mask() & set, 0);
    cr_assert_eq(RUN(call_rt_sigprocmask, 0, SIG_SETMASK, 0, (long)&was, 8), 0);
    cr_expect_eq(was & set, 0);
}

Test(signal_state, with_a_frame_the_mask_changes_in_it)
{
    ucontext_t frame;
    memset(&frame, 0, sizeof frame);
    uint64_t *mask = (uint64_t *)&frame.uc_sigmask, set = SIGNAL_BIT(SIGHUP), was = 0,
             before = kernel_mask();
    *mask = SIGNAL_BIT(SIGUSR2);
    struct call c = {.arg = {SIG_BLOCK, (long)&set, (long)&was, 8}, .frame = &frame};
    cr_assert_eq(run(call_rt_sigprocmask, &c), 0);
    cr_expect_eq(was, SIGNAL_BIT(SIGUSR2));
    cr_expect_eq(*mask, SIGNAL_BIT(SIGUSR2) | SIGNAL_BIT(SIGHUP));
    cr_expect_eq(kernel_mask(), before);
}

Test(signal_state, the_alternate_stack_is_the_programs_or_pretends_to_be_off)
{
    static char memory[1 << 16];
    stack_t mine = {.ss_sp = memory, .ss_size = sizeof memory}, old;
    signal_boot();
    cr_assert_eq(RUN(call_sigaltstack, 0, 0, (long)&old), 0);
    cr_expect_eq(old.ss_flags, SS_DISABLE);
    handle(SIGUSR1, nothing, SA_ONSTACK);
    cr_expect_eq(kernels(SIGUSR1).flags & SA_ONSTACK, 0, "there is none yet that it could mean");
    cr_assert_eq(RUN(call_sigaltstack, 0, (long)&mine, 0), 0);
    cr_expect(kernels(SIGUSR1).flags & SA_ONSTACK);
    cr_assert_eq(RUN(call_sigaltstack, 0, 0, (long)&old), 0);
    cr_expect_eq(old.ss_sp, memory);
    stack_t small = {.ss_sp = memory, .ss_size = 16};
    cr_expect_eq(RUN(call_sigaltstack, 0, (long)&small, 0), -ENOMEM);
    stack_t off = {.ss_flags = SS_DISABLE};
    cr_assert_eq(RUN(call_sigaltstack, 0, (long)&off, (long)&old), 0);
    cr_expect_eq(old.ss_sp, memory, "the refused one changed nothing");
    cr_expect_eq(kernels(SIGUSR1).flags & SA_ONSTACK, 0);
}

Test(signal_state, copies_that_fault_say_so)
{
    char *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
         buffer[64];
    mprotect(page + 4096, 4096, PROT_NONE);
    signal_boot();
    memset(page, 'x', 4096);
    cr_expect(fault_copy(buffer, page + 4096 - 64, 64));
    cr_expect_eq(buffer[63], 'x');
    cr_expect_not(fault_copy(buffer, page + 4096 - 63, 64));
    cr_expect_not(fault_copy(page + 4096 - 63, buffer, 64));
    cr_expect_not(fault_copy(buffer, NULL, 1));
    cr_expect_not(fault_copy(buffer, (void *)(1UL << 63), 1), "not a canonical address");
    cr_expect(fault_copy(buffer, NULL, 0));
}

Test(signal_state, the_new_process_gets_it_all_back)
{
    signal_boot();
    uint64_t set = SIGNAL_BIT(SIGUSR2) | SIGNAL_BIT(SIGHUP), mask = 0;
    struct signal_action ignore = {.handler = (uintptr_t)SIG_IGN}, raw_default = {0};
    handle(SIGUSR1, nothing, SA_RESTART);
    RUN(call_rt_sigaction, 0, SIGTERM, (long)&ignore, 0, 8);
    RUN(call_rt_sigprocmask, 0, SIG_BLOCK, (long)&set, 0, 8);
    sys(SYS_kill, sys(SYS_getpid), SIGUSR2);
    signal_capture();
    /* What a new process is like. */
    siginfo_t info;
    uint64_t usr2 = SIGNAL_BIT(SIGUSR2);
    sys(SYS_rt_sigtimedwait, &usr2, &info, NULL, 8);
    sys(SYS_rt_sigaction, SIGUSR1, &raw_default, NULL, 8);
    sys(SYS_rt_sigaction, SIGTERM, &raw_default, NULL, 8);
    sys(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, 8);
    signal_resume();
    cr_expect_eq(kernels(SIGUSR1).handler, (uintptr_t)signal_wrapper);
    cr_expect_eq(kernels(SIGTERM).handler, (uintptr_t)SIG_IGN);
    cr_expect_eq(kernel_mask() & set, set);
    uint64_t pending = 0;
    cr_assert_eq(RUN(call_rt_sigpending, 0, (long)&pending, 8), 0);
    cr_expect_eq(pending, SIGNAL_BIT(SIGUSR2));
}
