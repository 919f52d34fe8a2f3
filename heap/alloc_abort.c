/* The end of a program that misuses the heap: a line, and SIGABRT as abort() would raise it, so
 * that the program's handler, or the default with its backtrace, comes next. */
#define _GNU_SOURCE
#include "heap/alloc_span.h"
#include "heap/say.h"

#include <signal.h>

/* The kernel's struct sigaction on x86-64. */
struct kernel_action {
    void *handler;
    unsigned long flags;
    void *restorer;
    unsigned long mask;
};

static void raise_abort(void)
{
    unsigned long mask = 1UL << (SIGABRT - 1);
    sys(SYS_rt_sigprocmask, SIG_UNBLOCK, &mask, NULL, sizeof mask);
    sys(SYS_tgkill, sys(SYS_getpid), sys(SYS_gettid), SIGABRT);
}

void alloc_abort_pointer(const char *doing, uintptr_t address)
{
    say("%s: %p", doing, (void *)address);
    raise_abort();
    struct kernel_action none = {0}; /* the handler returned, or the signal is ignored */
    sys(SYS_rt_sigaction, SIGABRT, &none, NULL, sizeof none.mask);
    raise_abort();
    for (;;)
        sys(SYS_exit_group, 134);
}
