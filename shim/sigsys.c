#include "shim/sigsys.h"
#include "shim/altstack.h"
#include "shim/call.h"
#include "shim/call_signal.h"

#include <signal.h>
#include <sys/prctl.h>

#ifndef PR_SET_SYSCALL_USER_DISPATCH
#define PR_SET_SYSCALL_USER_DISPATCH 59
#define PR_SYS_DISPATCH_OFF 0
#define PR_SYS_DISPATCH_ON 1
#endif
#define SYS_USER_DISPATCH_CODE 2
#define SYSCALL_BYTES 2

/* The linker's bounds of this object's text; the kernel compares the address behind the instruction. */
extern const char __ehdr_start[] __attribute__((visibility("hidden")));
extern const char etext[] __attribute__((visibility("hidden")));

/* rt_sigreturn finds its frame by the stack pointer, so it cannot be made from a handler's stack. */
static _Noreturn void sigreturn_at(greg_t stack)
{
    __asm__ volatile("movq %0, %%rsp\n\t"
                     "movl %1, %%eax\n\t"
                     "syscall\n\t"
                     "hlt"
                     :
                     : "r"(stack), "i"(SYS_rt_sigreturn)
                     : "memory");
    __builtin_unreachable();
}

static void net(int signal, siginfo_t *info, void *context)
{
    ucontext_t *frame = context;
    greg_t *r = frame->uc_mcontext.gregs;
    if (info->si_code != SYS_USER_DISPATCH_CODE) { /* seccomp, or sent by somebody */
        signal_wrapper(signal, info, context);
        return;
    }
    if (call_passive) { /* a plain process does its calls itself, beginning with this one */
        sigsys_thread_off();
        r[REG_RIP] -= SYSCALL_BYTES;
        return;
    }
    struct call c = {.nr = r[REG_RAX],
                     .arg = {r[REG_RDI], r[REG_RSI], r[REG_RDX], r[REG_R10], r[REG_R8], r[REG_R9]},
                     .frame = frame};
    if (c.nr == SYS_rt_sigreturn)
        sigreturn_at(r[REG_RSP]);
    r[REG_RAX] = call_dispatch(&c);
}

bool sigsys_thread_on(void)
{
    return !sys_failed(sys(SYS_prctl, PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_ON, __ehdr_start,
                           etext - __ehdr_start, 0));
}

void sigsys_thread_off(void)
{
    sys(SYS_prctl, PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_OFF, 0, 0, 0);
}

bool sigsys_is_ours(const ucontext_t *frame)
{
    uintptr_t at = (uintptr_t)frame->uc_mcontext.gregs[REG_RIP];
    return at >= (uintptr_t)__ehdr_start && at < (uintptr_t)etext;
}

bool sigsys_install(void)
{
    struct signal_action action = {.handler = (uintptr_t)net,
                                   .flags = SA_SIGINFO | SA_NODEFER | SA_RESTART | altstack_flag() | 0x04000000 /* SA_RESTORER */,
                                   .restorer = (uintptr_t)signal_restorer};
    return !sys_failed(sys(SYS_rt_sigaction, SIGSYS, &action, 0, 8));
}

bool sigsys_on(void)
{
    return sigsys_install() && sigsys_thread_on();
}
