/* A program that crashes and lets kenctl look: what libken does in its handler for fatal signals.
 * Arguments: kenctl, and segv or abort. Knows nothing of libken. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static char *kenctl;
static char alternate[65536];

static void on_fatal(int signal_number)
{
    char pid[16], number[16];
    snprintf(pid, sizeof pid, "%d", getpid());
    snprintf(number, sizeof number, "%d", signal_number);
    char *arguments[] = {kenctl, "crash", pid, pid, number, "12", NULL};
    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);
    pid_t child = vfork();
    if (child == 0) {
        execv(kenctl, arguments);
        _exit(127);
    }
    waitpid(child, NULL, 0);
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

__attribute__((noinline)) void innermost_step(volatile int *target, const char *how)
{
    if (strcmp(how, "abort") == 0)
        abort();
    *target = 1;
    __asm__ volatile("");
}

static __attribute__((noinline)) int middle_step(const void *a, const void *b)
{
    (void)b;
    innermost_step(NULL, *(char *const *)a);
    return 0;
}

/* Recursion that never ends: the stack that is left cannot be used, and the list is long. */
__attribute__((noinline)) int endless_step(volatile int *depth)
{
    volatile int here[1000];
    here[0] = *depth + 1;
    return endless_step(here) + here[0];
}

/* A way back from handlers of its own, in the short form that debuggers do not know. */
__asm__(".text\n.type own_return, @function\n nop\nown_return: movl $15, %eax\n syscall\n.size own_return, . - own_return\n");
void own_return(void);

static void install_raw(int signal_number)
{
    struct {
        void (*handler)(int);
        unsigned long flags;
        void (*restorer)(void);
        unsigned long mask;
    } action = {on_fatal, SA_ONSTACK | SA_NODEFER | 0x04000000 /* SA_RESTORER */, own_return, 0};
    syscall(SYS_rt_sigaction, signal_number, &action, NULL, 8);
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 64;
    kenctl = argv[1];
    stack_t stack = {.ss_sp = alternate, .ss_size = sizeof alternate};
    sigaltstack(&stack, NULL);
    struct sigaction action = {.sa_handler = on_fatal, .sa_flags = SA_ONSTACK | SA_NODEFER};
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGABRT, &action, NULL);
    char *list[] = {argv[2], argv[2]};
    if (strcmp(argv[2], "endless") == 0)
        return endless_step(&argc);
    if (strcmp(argv[2], "wild") == 0)
        ((void (*)(void))0x1234)();
    void (*volatile nothing)(void) = NULL;
    if (strcmp(argv[2], "null") == 0)
        nothing();
    if (strcmp(argv[2], "raw") == 0)
        install_raw(SIGSEGV);
    qsort(list, 2, sizeof *list, middle_step);
    return 0;
}
