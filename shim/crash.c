#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* REG_RIP */
#endif
#include "shim/crash.h"
#include "shim/call_signal.h"
#include "shim/turn.h"

#include "heap/say.h"

#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

#define HELPER_SECONDS 10

static char helper[256];
static bool reporting; /* a crash in here is not reported again */

void crash_helper(const char *path)
{
    size_t length = path ? strlen(path) : 0;
    if (length >= sizeof helper)
        length = 0;
    if (length)
        memcpy(helper, path, length);
    helper[length] = 0;
}

const char *crash_signal_name(int signal)
{
    switch (signal) {
    case SIGSEGV:
        return "SIGSEGV";
    case SIGBUS:
        return "SIGBUS";
    case SIGILL:
        return "SIGILL";
    case SIGFPE:
        return "SIGFPE";
    case SIGABRT:
        return "SIGABRT";
    case SIGTRAP:
        return "SIGTRAP";
    case SIGSYS:
        return "SIGSYS";
    default:
        return NULL;
    }
}

/* Starts the helper on our own stack, as vfork does: the child touches nothing but registers and
 * this frame (so no function is called, as sys() is one where faults are injected), and we stand still until it is another
 * program. Copying the page tables of a big process for it would take longer than the report. */
__attribute__((noinline)) static long start_helper(char *const argv[])
{
    static char *const no_environment[] = {NULL};
    uint64_t nothing = 0;
    long pid = sys_call6(SYS_clone, CLONE_VM | CLONE_VFORK, 0, 0, 0, 0, 0);
    if (pid != 0)
        return pid;
    sys_call6(SYS_rt_sigprocmask, SIG_SETMASK, (long)&nothing, 0, 8, 0, 0);
    sys_call6(SYS_execve, (long)helper, (long)argv, (long)no_environment, 0, 0, 0);
    for (;;)
        sys_call6(SYS_exit, 127, 0, 0, 0, 0, 0);
}

/* True when it ended with status 0. It stops us by ptrace meanwhile, which these calls survive. */
static bool await_helper(long pid)
{
    struct timespec pause = {.tv_nsec = 5000000};
    int status = 0;
    for (int i = 0; i < HELPER_SECONDS * 200; i++) {
        long ended = sys(SYS_wait4, pid, &status, WNOHANG | __WALL, NULL);
        if (ended == pid)
            return status == 0;
        if (sys_failed(ended) && ended != -EINTR)
            return false;
        sys(SYS_nanosleep, &pause, NULL);
    }
    sys(SYS_kill, pid, SIGKILL);
    sys(SYS_wait4, pid, &status, __WALL, NULL);
    return false;
}

static bool report_from_outside(int signal)
{
    char pid[16], tid[16], number[16], turn[24], verb[] = "crash";
    char *argv[] = {helper, verb, pid, tid, number, turn, NULL};
    if (!helper[0] || sys_failed(sys(SYS_access, helper, 1 /* X_OK */)))
        return false;
    say_format(pid, sizeof pid, "%ld", sys(SYS_getpid));
    say_format(tid, sizeof tid, "%ld", sys(SYS_gettid));
    say_format(number, sizeof number, "%d", signal);
    say_format(turn, sizeof turn, "%lu", (unsigned long)turn_number());
    sys(SYS_prctl, PR_SET_DUMPABLE, 1, 0, 0, 0);
    sys(SYS_prctl, PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
    long child = start_helper(argv);
    return !sys_failed(child) && await_helper(child);
}

static void report(int signal, const siginfo_t *info, const ucontext_t *uc)
{
    if (report_from_outside(signal))
        return;
    const char *name = crash_signal_name(signal);
    unsigned long ip = (unsigned long)uc->uc_mcontext.gregs[REG_RIP];
    if (info->si_code > 0)
        say("%s in turn %lu at ip 0x%lx, address 0x%lx", name ? name : "fatal signal",
            (unsigned long)turn_number(), ip, (unsigned long)info->si_addr);
    else
        say("%s in turn %lu at ip 0x%lx, sent by process %d", name ? name : "fatal signal",
            (unsigned long)turn_number(), ip, info->si_pid);
}

void crash_die(int signal, const siginfo_t *info, ucontext_t *uc)
{
    struct signal_action by_default = {.handler = (uintptr_t)SIG_DFL};
    if (!call_passive && !reporting) {
        reporting = true;
        report(signal, info, uc);
    }
    sys(SYS_rt_sigaction, signal, &by_default, NULL, 8);
    /* Not every fault repeats, so it is sent once more: pending until the handler returns. */
    siginfo_t again = *info;
    *(uint64_t *)&uc->uc_sigmask &= ~SIGNAL_BIT(signal);
    if (sys_failed(sys(SYS_rt_tgsigqueueinfo, sys(SYS_getpid), sys(SYS_gettid), signal, &again)))
        sys(SYS_tgkill, sys(SYS_getpid), sys(SYS_gettid), signal);
}
