/* When the program's handlers run: not while libken is busy, at once while it waits. */
#define _GNU_SOURCE /* REG_RIP */
#include "shim_signals.h"
#include "shim/call_time.h"
#include "shim/process.h"

#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile int ran, order[64], value;
static volatile bool ran_inside;

static void note(int signal, siginfo_t *info, void *context)
{
    (void)context;
    if (ran < 64)
        order[ran] = signal;
    value = info->si_value.sival_int;
    ran_inside |= thread_self()->inside > 0;
    ran++;
}

static long raise_now(int signal)
{
    return sys(SYS_tgkill, sys(SYS_getpid), sys(SYS_gettid), signal);
}

static uint64_t kernel_mask(void)
{
    uint64_t mask;
    sys(SYS_rt_sigprocmask, SIG_SETMASK, NULL, &mask, 8);
    return mask;
}

static long raising_call(struct call *c)
{
    siginfo_t info = {.si_signo = SIGRTMIN, .si_code = SI_QUEUE};
    info.si_value.sival_int = 4711;
    raise_now(SIGUSR1);
    raise_now(SIGUSR2);
    sys(SYS_rt_tgsigqueueinfo, sys(SYS_getpid), sys(SYS_gettid), SIGRTMIN, &info);
    cr_expect_eq(ran, 0, "libken was busy");
    return c->arg[0];
}

Test(signal_wrapper, what_comes_while_busy_runs_on_the_way_out)
{
    uint64_t before = kernel_mask();
    handle(SIGUSR1, note, 0);
    handle(SIGUSR2, note, 0);
    handle(SIGRTMIN, note, 0);
    cr_assert_eq(RUN(raising_call, 0, 5), 5);
    cr_expect_eq(ran, 3);
    cr_expect_not(ran_inside);
    cr_expect_eq(value == 4711 || order[2] != SIGRTMIN, true);
    cr_expect_eq(kernel_mask(), before);
    cr_expect_eq(thread_self()->signals.queued, 0);
}

Test(signal_wrapper, siginfo_survives_the_second_delivery)
{
    handle(SIGRTMIN, note, 0);
    handle(SIGUSR1, (void *)(uintptr_t)SIG_IGN, 0);
    handle(SIGUSR2, (void *)(uintptr_t)SIG_IGN, 0);
    RUN(raising_call, 0, 0);
    cr_expect_eq(ran, 1);
    cr_expect_eq(value, 4711);
}

static long raise_one(struct call *c)
{
    raise_now((int)c->arg[0]);
    return 0;
}

Test(signal_wrapper, reset_hand_counts_the_delivery_to_the_program)
{
    handle(SIGUSR1, note, (int)SA_RESETHAND);
    RUN(raise_one, 0, SIGUSR1);
    cr_expect_eq(ran, 1);
    cr_expect_eq(signal_action(SIGUSR1)->handler, (uintptr_t)SIG_DFL);
    struct signal_action k;
    sys(SYS_rt_sigaction, SIGUSR1, NULL, &k, 8);
    cr_expect_eq(k.handler, (uintptr_t)SIG_DFL);
}

/* A thread that waits for the lock, while another one commits and the process is killed. */
static long raise_and_resume(struct call *c)
{
    raise_now((int)c->arg[0]);
    uint64_t mask = signal_mask_thread();
    cr_expect_eq(mask, (uint64_t)c->arg[1], "the program's mask, not libken's");
    signal_thread_resume(mask);
    return 0;
}

Test(signal_wrapper, what_is_queued_stays_in_a_new_incarnation)
{
    uint64_t before = kernel_mask() & ~SIGNAL_KEPT;
    handle(SIGUSR1, note, 0);
    RUN(raise_and_resume, 0, SIGUSR1, (long)before);
    cr_expect_eq(ran, 1);
    cr_expect_eq(kernel_mask(), before);
    thread_self()->signals.mask = before;
    thread_self()->signals.queued = 1; /* claimed, and not yet written when the commit looked */
    RUN(raise_and_resume, 0, 0, (long)before);
    cr_expect_eq(ran, 1);
    cr_expect_eq(thread_self()->signals.queued, 0);
}

/* Captured as pending, then taken by a thread that was away, before memory was copied: once is enough. */
Test(signal_wrapper, a_signal_is_not_pending_and_queued)
{
    static struct thread away;
    struct signal_thread *t = &away.signals;
    siginfo_t info = {.si_signo = SIGUSR1};
    uint64_t set = SIGNAL_BIT(SIGUSR1);
    threads_many = true;
    another = &away;
    away.peer = 1;
    handle(SIGUSR1, note, 0);
    cr_assert_eq(RUN(call_rt_sigprocmask, SYS_rt_sigprocmask, SIG_BLOCK, (long)&set, 0, 8), 0);
    signal_enqueue(t, &info, 0); /* one that came before the capture is another one */
    raise_now(SIGUSR1);
    signal_capture();
    signal_captured();
    signal_enqueue(t, &info, 0);
    cr_assert_eq(t->queued, 2);
    signal_resume();
    cr_expect_eq(t->queued, 1);
}

static void expect_values(int number)
{
    uint64_t set = SIGNAL_BIT(number);
    struct timespec none = {0, 0};
    siginfo_t info;
    for (int n = 1; n <= 3; n++) {
        cr_assert_eq(sys(SYS_rt_sigtimedwait, &set, &info, &none, 8), number);
        cr_expect_eq(info.si_value.sival_int, n);
        cr_expect_eq(info.si_code, SI_QUEUE);
    }
    cr_expect_eq(sys(SYS_rt_sigtimedwait, &set, &info, &none, 8), -EAGAIN);
}

/* What is sent with a value and blocked is sent again with it, as often, and in its order. */
Test(signal_wrapper, what_waits_keeps_its_values)
{
    int number = SIGRTMIN + 1;
    uint64_t set = SIGNAL_BIT(number);
    handle(number, note, 0);
    cr_assert_eq(RUN(call_rt_sigprocmask, SYS_rt_sigprocmask, SIG_BLOCK, (long)&set, 0, 8), 0);
    for (int n = 1; n <= 3; n++)
        sigqueue(getpid(), number, (union sigval){.sival_int = n});
    signal_capture();
    signal_captured();
    expect_values(number);
    signal_resume();
    expect_values(number);
}

/* A timer has sent its signal, and nobody has it yet: the capture waits for whoever has been given it. */
Test(signal_wrapper, what_a_timer_sent_is_waited_for, .timeout = 5)
{
    uint64_t rung = SIGNAL_BIT(SIGALRM);
    time_will_ring(SIGALRM);
    cr_expect_eq(time_unheard(rung), rung);
    handle(SIGALRM, note, 0);
    raise_now(SIGALRM);
    cr_expect_eq(time_unheard(rung), 0);
    time_will_ring(SIGALRM);
    RUN(raise_one, 0, SIGALRM);
    cr_expect_eq(time_unheard(rung), 0, "what is deferred was heard, too");
}

static long block_then_raise(struct call *c)
{
    raise_now(SIGUSR1);
    return call_rt_sigprocmask(c);
}

/* The signal came before the change; afterwards the change holds. */
Test(signal_wrapper, a_mask_that_changes_while_something_is_queued)
{
    uint64_t set = SIGNAL_BIT(SIGUSR2), old = 0;
    handle(SIGUSR1, note, 0);
    handle(SIGUSR2, note, 0);
    cr_assert_eq(RUN(block_then_raise, 0, SIG_BLOCK, (long)&set, (long)&old, 8), 0);
    cr_expect_eq(ran, 1);
    cr_expect_eq(old & (SIGNAL_BIT(SIGHUP) | set), 0, "not libken's mask");
    cr_expect_eq(kernel_mask() & (SIGNAL_BIT(SIGHUP) | set), set);
    raise_now(SIGUSR2);
    cr_expect_eq(ran, 1);
}

static int pipe_ends[2];

static long reading(struct call *c)
{
    if (c->arg[5])
        raise_now((int)c->arg[5]);
    return signal_block(c);
}

static long read_pipe(char *to, int raise)
{
    return RUN(reading, SYS_read, pipe_ends[0], (long)to, 1, 0, 0, raise);
}

static void alarm_in(int microseconds)
{
    struct itimerval once = {.it_value.tv_usec = microseconds};
    setitimer(ITIMER_REAL, &once, NULL);
}

Test(signal_wrapper, a_queued_signal_interrupts_the_wait, .timeout = 5)
{
    char byte;
    cr_assert_eq(pipe(pipe_ends), 0);
    handle(SIGUSR1, note, 0);
    cr_expect_eq(read_pipe(&byte, SIGUSR1), -EINTR);
    cr_expect_eq(ran, 1);
    cr_expect_not(ran_inside);
}

static void note_and_write(int signal, siginfo_t *info, void *context)
{
    note(signal, info, context);
    cr_assert_eq(write(pipe_ends[1], "x", 1), 1);
}

Test(signal_wrapper, with_sa_restart_the_wait_goes_on_in_a_new_turn, .timeout = 5)
{
    char byte = 0;
    cr_assert_eq(pipe(pipe_ends), 0);
    handle(SIGUSR1, note_and_write, SA_RESTART);
    handle(SIGALRM, note_and_write, SA_RESTART);
    cr_expect_eq(read_pipe(&byte, SIGUSR1), 1);
    cr_expect_eq(turns_ended, 1, "what the handler wrote must be able to leave");
    alarm_in(20000);
    cr_expect_eq(read_pipe(&byte, 0), 1);
    cr_expect_eq(turns_ended, 2);
    cr_expect_eq(ran, 2);
    cr_expect_eq(thread_self()->inside, 0);
}

static long polling(struct call *c)
{
    raise_now(SIGUSR1);
    return signal_block(c);
}

Test(signal_wrapper, poll_never_restarts, .timeout = 5)
{
    cr_assert_eq(pipe(pipe_ends), 0);
    struct pollfd p = {.fd = pipe_ends[0], .events = POLLIN};
    handle(SIGUSR1, note, SA_RESTART);
    cr_expect_eq(RUN(polling, SYS_poll, (long)&p, 1, -1), -EINTR);
}

/* A handler that itself makes calls, one of which waits. */
static void note_and_read(int signal, siginfo_t *info, void *context)
{
    char byte;
    note(signal, info, context);
    if (signal == SIGALRM) {
        cr_assert_eq(write(pipe_ends[1], "y", 1), 1);
        cr_expect_eq(read_pipe(&byte, SIGUSR2), -EINTR);
        cr_expect_eq(read_pipe(&byte, 0), 1);
    }
}

Test(signal_wrapper, calls_nest_in_handlers, .timeout = 5)
{
    char byte;
    cr_assert_eq(pipe(pipe_ends), 0);
    handle(SIGALRM, note_and_read, 0);
    handle(SIGUSR2, note_and_read, 0);
    alarm_in(20000);
    cr_expect_eq(read_pipe(&byte, 0), -EINTR);
    cr_expect_eq(ran, 2);
    cr_expect_not(ran_inside);
    cr_expect_eq(thread_self()->inside, 0);
}

static sigjmp_buf back;

static void leap(int signal, siginfo_t *info, void *context)
{
    note(signal, info, context);
    siglongjmp(back, 1);
}

Test(signal_wrapper, a_handler_may_leave_by_longjmp, .timeout = 5)
{
    char byte;
    cr_assert_eq(pipe(pipe_ends), 0);
    handle(SIGALRM, leap, 0);
    for (volatile int i = 0; i < 3; i++) {
        if (!sigsetjmp(back, 1)) {
            alarm_in(5000);
            read_pipe(&byte, i == 1 ? SIGALRM : 0);
            cr_assert(false, "not reached");
        }
        cr_expect_eq(thread_self()->inside, 0);
        cr_expect_eq(thread_self()->signals.queued, 0);
    }
    cr_expect_eq(ran, 3);
}

/* The kernel makes a frame for each of several signals before the first handler has run one
 * instruction. */
Test(signal_wrapper, several_at_once_leave_the_mask_as_it_was)
{
    uint64_t all = ~0UL, none = 0;
    for (int signal = SIGRTMIN; signal < SIGRTMIN + 6; signal++)
        handle(signal, note, 0);
    sys(SYS_rt_sigprocmask, SIG_SETMASK, &all, NULL, 8);
    for (int signal = SIGRTMIN; signal < SIGRTMIN + 6; signal++)
        raise_now(signal);
    thread_self()->inside++;
    sys(SYS_rt_sigprocmask, SIG_SETMASK, &none, NULL, 8);
    thread_self()->inside--;
    cr_expect_eq(ran, 0);
    struct call c = {0};
    signal_leave(&c);
    cr_expect_eq(ran, 6);
    cr_expect_eq(kernel_mask(), none);
}

/* The race, at each instruction in turn: single steps through the wait, and before the k-th a
 * signal comes. It must end the wait, wherever it came; a wait that slept through it runs into its
 * time-out. */
extern char signal_block_syscall[];
static volatile int steps, raise_at;
static volatile uintptr_t raised_at;
#define TRAP_FLAG 0x100

static void step(int signal, siginfo_t *info, void *context)
{
    (void)signal, (void)info;
    greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
    if (++steps < raise_at)
        return;
    raised_at = (uintptr_t)r[REG_RIP];
    r[REG_EFL] &= ~TRAP_FLAG;
    raise_now(SIGALRM); /* blocked in here: it comes when this returns, at that instruction */
}

static long poll_by_steps(struct call *c)
{
    __asm__ volatile("pushfq; orq $0x100, (%%rsp); popfq" ::: "memory", "cc");
    long result = signal_block(c);
    __asm__ volatile("pushfq; andq $~0x100, (%%rsp); popfq" ::: "memory", "cc");
    return result;
}

Test(signal_wrapper, a_signal_at_any_instruction_ends_the_wait, .timeout = 20)
{
    struct signal_action trap = {.handler = (uintptr_t)step,
                                 .flags = SA_SIGINFO | 0x04000000,
                                 .restorer = (uintptr_t)signal_restorer,
                                 .mask = SIGNAL_BIT(SIGALRM)};
    int at_or_before = 0;
    cr_assert_eq(pipe(pipe_ends), 0);
    handle(SIGALRM, note, 0);
    sys(SYS_rt_sigaction, SIGTRAP, &trap, NULL, 8);
    for (raise_at = 1;; raise_at++) {
        struct pollfd p = {.fd = pipe_ends[0], .events = POLLIN};
        steps = ran = 0;
        long result = RUN(poll_by_steps, SYS_poll, (long)&p, 1, 100);
        if (at_or_before && raised_at != (uintptr_t)signal_block_syscall)
            break; /* the wait was over */
        cr_assert_eq(result, -EINTR, "step %d, ip %lx", raise_at, (unsigned long)raised_at);
        cr_assert_eq(ran, 1);
        cr_assert_eq(thread_self()->inside, 0);
        at_or_before += raised_at == (uintptr_t)signal_block_syscall;
    }
    cr_expect_eq(at_or_before, 1);
    cr_expect_gt(raise_at, 20);
}

static volatile long storms;

static void storm(int signal, siginfo_t *info, void *context)
{
    (void)signal, (void)info, (void)context;
    storms++;
}

Test(signal_wrapper, no_signal_is_lost_in_a_storm, .timeout = 30)
{
    long interrupted = 0, lost = 0;
    cr_assert_eq(pipe(pipe_ends), 0);
    handle(SIGALRM, storm, 0);
    /* One shot each: if it is taken before the wait and does not interrupt it, nothing else would.
     */
    for (int i = 0; i < 20000; i++) {
        struct itimerval once = {.it_value.tv_usec = 1 + i % 40};
        long before = storms;
        setitimer(ITIMER_REAL, &once, NULL);
        for (volatile int spin = i % 97 * 20; spin > 0; spin--)
            ;
        thread_self()->inside++;
        for (volatile int spin = i % 89 * 20; spin > 0; spin--)
            ;
        if (storms != before) { /* it ran before the call, as it might natively */
            thread_self()->inside--;
            if (signal_waiting())
                signal_leave(&(struct call){0});
            continue;
        }
        struct pollfd p = {.fd = pipe_ends[0], .events = POLLIN};
        struct call c = {.nr = SYS_poll, .arg = {(long)&p, 1, 2000}};
        long result = signal_block(&c);
        thread_self()->inside--;
        interrupted += result == -EINTR;
        lost += result == 0;
        if (storms == before)
            lost++;
    }
    cr_expect_eq(lost, 0);
    cr_expect_gt(interrupted, 1000, "%ld", interrupted);
}

Test(signal_wrapper, a_steady_storm_leaves_data_and_state_intact, .timeout = 60)
{
    struct itimerval often = {.it_value.tv_usec = 50, .it_interval.tv_usec = 50};
    unsigned char sent = 0, got = 0;
    cr_assert_eq(pipe(pipe_ends), 0);
    handle(SIGALRM, storm, SA_RESTART);
    pid_t writer = fork();
    if (writer == 0) {
        for (int i = 0; i < 20000; i++) {
            if (write(pipe_ends[1], &sent, 1) != 1)
                _exit(1);
            sent++;
            if (i % 16 == 0)
                usleep(20);
        }
        _exit(0);
    }
    setitimer(ITIMER_REAL, &often, NULL);
    for (int i = 0; i < 20000; i++) {
        unsigned char byte;
        cr_assert_eq(read_pipe((char *)&byte, 0), 1);
        cr_assert_eq(byte, got, "byte %d", i);
        got++;
    }
    struct itimerval off = {0};
    setitimer(ITIMER_REAL, &off, NULL);
    waitpid(writer, NULL, 0);
    cr_expect_gt(storms, 100);
    cr_expect_eq(thread_self()->inside, 0);
    cr_expect_eq(thread_self()->signals.queued, 0);
}

Test(signal_wrapper, sigsuspend_hears_what_was_blocked, .timeout = 5)
{
    uint64_t set = SIGNAL_BIT(SIGUSR1), none = 0;
    handle(SIGUSR1, note, SA_RESTART);
    RUN(call_rt_sigprocmask, 0, SIG_BLOCK, (long)&set, 0, 8);
    raise_now(SIGUSR1);
    cr_expect_eq(ran, 0);
    cr_expect_eq(RUN(call_rt_sigsuspend, SYS_rt_sigsuspend, (long)&none, 8), -EINTR);
    cr_expect_eq(ran, 1);
    cr_expect_eq(turns_ended, 1);
    cr_expect_eq(kernel_mask() & set, set);
}

Test(signal_wrapper, sigtimedwait_takes_and_times_out, .timeout = 5)
{
    uint64_t set = SIGNAL_BIT(SIGUSR1);
    struct timespec brief = {.tv_nsec = 10000000}, zero = {0, 0};
    siginfo_t info;
    process_boot();
    RUN(call_rt_sigprocmask, 0, SIG_BLOCK, (long)&set, 0, 8);
    cr_expect_eq(RUN(call_rt_sigtimedwait, 0, (long)&set, (long)&info, (long)&zero, 8), -EAGAIN);
    cr_expect_eq(turns_ended, 0);
    cr_expect_eq(RUN(call_rt_sigtimedwait, 0, (long)&set, (long)&info, (long)&brief, 8), -EAGAIN);
    cr_expect_eq(turns_ended, 1);
    raise_now(SIGUSR1);
    cr_expect_eq(RUN(call_rt_sigtimedwait, 0, (long)&set, (long)&info, 0, 8), SIGUSR1);
    cr_expect_eq(info.si_pid, getpid());
}

/* Deaths, each in a child. */
static int death(void (*how)(void))
{
    int status;
    pid_t child = fork();
    if (child == 0) {
        int quiet = open("/dev/null", O_WRONLY);
        dup2(quiet, 2);
        signal_boot();
        how();
        _exit(0);
    }
    cr_assert_eq(waitpid(child, &status, 0), child);
    return status;
}

static void fault(void)
{
    volatile uintptr_t nowhere = 16;
    *(volatile int *)nowhere = 1;
}

static void be_aborted(void)
{
    raise_now(SIGABRT);
}

static void fault_inside(void)
{
    thread_self()->inside = 1;
    handle(SIGSEGV, note, 0);
    fault();
}

static int deep(int n)
{
    volatile char page[4096];
    page[0] = (char)n;
    return n < 0 ? 0 : deep(n + 1) + page[0];
}

static void overflow(void)
{
    deep(0);
}

Test(signal_wrapper, a_fatal_signal_kills_by_itself, .timeout = 20)
{
    cr_expect_eq(WTERMSIG(death(fault)), SIGSEGV);
    cr_expect_eq(WTERMSIG(death(be_aborted)), SIGABRT);
    cr_expect_eq(WTERMSIG(death(fault_inside)), SIGSEGV,
                 "libken's own fault is not for the program's handler");
    cr_expect_eq(WTERMSIG(death(overflow)), SIGSEGV);
}
