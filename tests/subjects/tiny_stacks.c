/* Routines on stacks with no room for a signal's frame, as some runtimes have them: tiny_stacks PORT.
 *
 * Each thread has an alternate stack, and all handlers use it. System calls are made by the instruction, from a routine's stack of
 * 1 KiB between two that hold a pattern. Requests: `inc` <count>, `alt` <where a handler ran: alternate stack, and what sigaltstack()
 * says of it>, `child` <the status of one that execs>, `deep` <what lies below an alternate stack that is part of the main stack,
 * while its handler serves>. Each answer says `torn` when a pattern is not whole. */
#define _GNU_SOURCE
#include "service.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <sys/time.h>

#define ROUTINE_BYTES 1024
#define ROUTINES 8
#define ALTERNATE_BYTES (32 << 10)
#define PATTERN 0xa5

static _Alignas(64) unsigned char slab[2 * ROUTINES + 1][ROUTINE_BYTES];
static unsigned char alternates[2][ALTERNATE_BYTES];
static volatile sig_atomic_t ticks, astray;
static __thread const unsigned char *alternate;

/* Runs the function on another stack. Not within a handler on the alternate one: the next signal would begin there anew. */
void on_stack(void *top, void (*function)(void));
__asm__("on_stack:\n"
        "    pushq %rbx\n"
        "    movq %rsp, %rbx\n"
        "    movq %rdi, %rsp\n"
        "    callq *%rsi\n"
        "    movq %rbx, %rsp\n"
        "    popq %rbx\n"
        "    retq\n");

static long raw(long nr, long a, long b, long c, long d, long e, long f)
{
    long result;
    register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

static bool within(const void *at)
{
    return (const unsigned char *)at - alternate < ALTERNATE_BYTES && (const unsigned char *)at >= alternate;
}

static void on_tick(int number)
{
    (void)number;
    ticks++;
    if (!within(__builtin_frame_address(0)))
        astray = 1;
}

static void use_alternate(unsigned char *memory)
{
    stack_t s = {.ss_sp = memory, .ss_size = ALTERNATE_BYTES};
    alternate = memory;
    if (raw(SYS_sigaltstack, (long)&s, 0, 0, 0, 0, 0))
        errx(1, "sigaltstack");
}

static bool torn(void)
{
    for (int n = 0; n <= ROUTINES; n++)
        for (int i = 0; i < ROUTINE_BYTES; i++)
            if (slab[2 * n][i] != PATTERN)
                return true;
    return false;
}

static long received;
static char line[sizeof service.request];

static void receive(void)
{
    socklen_t size = sizeof service.client;
    received = raw(SYS_recvfrom, service.socket, (long)line, sizeof line - 1, 0, (long)&service.client, (long)&size);
}

static char answer[sizeof service.answer + 32];
static int answer_bytes;

static void reply(void)
{
    raw(SYS_sendto, service.socket, (long)answer, answer_bytes, 0, (long)&service.client, sizeof service.client);
}

/* No signal comes meanwhile. */
static void change_alternate(void)
{
    stack_t none = {.ss_flags = SS_DISABLE}, old = {0}, was = {.ss_sp = (void *)alternate, .ss_size = ALTERNATE_BYTES};
    if (raw(SYS_sigaltstack, (long)&none, (long)&old, 0, 0, 0, 0) || old.ss_sp != was.ss_sp || old.ss_size != was.ss_size || old.ss_flags)
        astray = 1;
    if (raw(SYS_sigaltstack, 0, (long)&old, 0, 0, 0, 0) || old.ss_flags != SS_DISABLE)
        astray = 1;
    if (raw(SYS_sigaltstack, (long)&was, 0, 0, 0, 0, 0))
        astray = 1;
}

static int child_status;

/* As vfork() and execve() are made without libc: the child goes on in this very frame. */
static void start_child(void)
{
    static char *const argv[] = {"/bin/sh", "-c", "exit 7", NULL}, *const none[] = {NULL};
    long pid;
    register long tls __asm__("r8") = 0, tid __asm__("r10") = 0;
    __asm__ volatile("syscall\n\t"
                     "testq %%rax, %%rax\n\t"
                     "jnz 1f\n\t"
                     "movl %[execve], %%eax\n\t"
                     "movq %[path], %%rdi\n\t"
                     "movq %[argv], %%rsi\n\t"
                     "movq %[none], %%rdx\n\t"
                     "syscall\n\t"
                     "hlt\n"
                     "1:"
                     : "=a"(pid)
                     : "0"(SYS_clone), "D"(CLONE_VFORK | CLONE_VM | SIGCHLD), "S"(0), "d"(0), "r"(tid), "r"(tls),
                       [execve] "i"(SYS_execve), [path] "b"(argv[0]), [argv] "r"(argv), [none] "r"(none)
                     : "rcx", "r11", "memory");
    if (pid < 0 || raw(SYS_wait4, pid, (long)&child_status, 0, 0, 0, 0) != pid)
        child_status = -1;
}

/* Computes and sleeps on a stack of its own: stopped anywhere for the other one's commits. */
static void sleep_a_little(void)
{
    struct timespec moment = {0, 300000};
    for (volatile int i = 0; i < 20000; i++)
        ;
    raw(SYS_nanosleep, (long)&moment, 0, 0, 0, 0, 0);
}

static void *companion(void *none)
{
    use_alternate(alternates[1]);
    sigset_t no_signals;
    sigemptyset(&no_signals);
    pthread_sigmask(SIG_SETMASK, &no_signals, NULL);
    for (;;)
        on_stack(slab[2 * ROUTINES - 1] + ROUTINE_BYTES, sleep_a_little);
    return none;
}

static volatile unsigned long *below;

static unsigned long sum_below(void)
{
    unsigned long sum = 0;
    for (int i = 0; below && i < 2000; i++)
        sum += below[i];
    return sum;
}

static void run_on(int place, void (*function)(void))
{
    if (below)
        function();
    else
        on_stack(slab[place] + ROUTINE_BYTES, function);
}

static void serve_one(void)
{
    static unsigned long count;
    int place = 2 * (int)(count % (ROUTINES - 1)) + 1;
    run_on(place, receive);
    if (received <= 0)
        return;
    line[received] = '\0';
    char *command;
    unsigned long number = strtoul(line, &command, 10);
    if (number < service.number || *command != ' ')
        return;
    if (number > service.number) {
        service.number = number;
        if (!strcmp(command + 1, "inc"))
            snprintf(service.answer, sizeof service.answer, "%lu%s", ++count, torn() ? " torn" : "");
        else if (!strcmp(command + 1, "deep"))
            snprintf(service.answer, sizeof service.answer, "%lu%s", sum_below(), torn() ? " torn" : "");
        else if (!strcmp(command + 1, "child")) {
            do
                run_on(place, start_child);
            while (child_status == SIGKILL); /* it died with this process, which was killed */
            snprintf(service.answer, sizeof service.answer, "status %d%s", child_status >> 8, torn() ? " torn" : "");
        } else {
            sigset_t all, before;
            sigfillset(&all);
            pthread_sigmask(SIG_SETMASK, &all, &before);
            run_on(place, change_alternate);
            pthread_sigmask(SIG_SETMASK, &before, NULL);
            raise(SIGUSR1);
            snprintf(service.answer, sizeof service.answer, "%s%s", astray ? "astray" : "alternate", torn() ? " torn" : "");
        }
    }
    answer_bytes = snprintf(answer, sizeof answer, "%lu %s", service.number, service.answer);
    run_on(place, reply);
}

static void serve_on(int number)
{
    (void)number;
    for (;;)
        serve_one();
}

/* Its frame lies below that of main(), which holds the alternate stack on which everything goes on. */
static __attribute__((noinline)) int descend(void)
{
    volatile unsigned long values[2000];
    for (int i = 0; i < 2000; i++)
        values[i] = (unsigned long)i;
    below = values;
    raise(SIGUSR2);
    return (int)values[7];
}

int main(int argc, char **argv)
{
    unsigned char in_main[ALTERNATE_BYTES];
    struct sigaction tick = {.sa_handler = on_tick, .sa_flags = SA_ONSTACK | SA_RESTART}, serve = {.sa_handler = serve_on, .sa_flags = SA_ONSTACK};
    struct itimerval often = {{0, 5000}, {0, 5000}};
    pthread_t thread;
    bool deep = argc == 3 && !strcmp(argv[2], "deep");
    if (argc < 2)
        errx(64, "tiny_stacks PORT [deep]");
    memset(slab, PATTERN, sizeof slab);
    service_open(atoi(argv[1]));
    use_alternate(deep ? in_main : alternates[0]);
    if (deep) {
        sigaction(SIGUSR2, &serve, NULL);
        return descend();
    }
    sigaction(SIGUSR1, &tick, NULL);
    sigaction(SIGALRM, &tick, NULL);
    setitimer(ITIMER_REAL, &often, NULL);
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* until it has its alternate stack */
    if (pthread_create(&thread, NULL, companion, NULL))
        errx(1, "pthread_create");
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    for (;;)
        serve_one();
}
