/* Sleeps, clocks and timers, and what of them a new process gets. */
#define _GNU_SOURCE /* unshare */
#include "shim_signals.h"
#include "shim/call_time.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile int ran;
static volatile int timer_id = -1;
static uint64_t rung;

static void note(int signal, siginfo_t *info, void *context)
{
    (void)signal, (void)context;
    if (info->si_code == SI_TIMER)
        timer_id = info->si_timerid;
    ran++;
}

#define MS 1000000L

static long sleep_for(long ns, struct timespec *left)
{
    struct timespec wanted = time_spec(ns);
    return RUN(call_nanosleep, SYS_nanosleep, (long)&wanted, (long)left);
}

static void alarm_in(long microseconds)
{
    struct itimerval once = {.it_value.tv_usec = microseconds};
    cr_assert_eq(RUN(call_setitimer, SYS_setitimer, ITIMER_REAL, (long)&once, 0), 0);
}

Test(call_time, a_sleep_lasts_and_ends_the_turn, .timeout = 5)
{
    int64_t before = time_monotonic_ns();
    cr_expect_eq(sleep_for(20 * MS, NULL), 0);
    int64_t took = time_monotonic_ns() - before;
    cr_expect(took >= 20 * MS && took < 500 * MS);
    cr_expect_eq(turns_ended, 1);
}

Test(call_time, an_interrupted_sleep_tells_what_is_left, .timeout = 5)
{
    struct timespec left = {0, 0};
    handle(SIGALRM, note, SA_RESTART);
    alarm_in(20000);
    cr_expect_eq(sleep_for(1000 * MS, &left), -EINTR);
    cr_expect_eq(ran, 1);
    cr_expect(time_ns(&left) > 500 * MS && time_ns(&left) < 985 * MS);
}

Test(call_time, bad_times_are_refused)
{
    struct timespec bad = {.tv_nsec = 1000000000}, negative = {.tv_sec = -1}, brief = {0, 1};
    signal_boot();
    cr_expect_eq(RUN(call_nanosleep, SYS_nanosleep, (long)&bad, 0), -EINVAL);
    cr_expect_eq(RUN(call_nanosleep, SYS_nanosleep, (long)&negative, 0), -EINVAL);
    cr_expect_eq(RUN(call_nanosleep, SYS_nanosleep, 16, 0), -EFAULT);
    cr_expect_eq(RUN(call_clock_nanosleep, SYS_clock_nanosleep, 77, 0, (long)&brief, 0), -EINVAL);
    cr_expect_eq(turns_ended, 0);
}

Test(call_time, an_absolute_sleep_ends_at_its_time, .timeout = 5)
{
    struct timespec until = time_spec(time_monotonic_ns() + 30 * MS), past = {0, 1};
    cr_expect_eq(RUN(call_clock_nanosleep, SYS_clock_nanosleep, CLOCK_MONOTONIC, TIMER_ABSTIME,
                     (long)&until, 0),
                 0);
    cr_expect_geq(time_monotonic_ns(), time_ns(&until));
    cr_expect_eq(RUN(call_clock_nanosleep, SYS_clock_nanosleep, CLOCK_REALTIME, TIMER_ABSTIME,
                     (long)&past, 0),
                 0);
}

Test(call_time, sleeping_for_ever_does_not_overflow, .timeout = 5)
{
    struct timespec ever = {.tv_sec = INT64_MAX};
    handle(SIGALRM, note, 0);
    alarm_in(20000);
    cr_expect_eq(RUN(call_nanosleep, SYS_nanosleep, (long)&ever, 0), -EINTR);
}

Test(call_time, an_alarm_goes_on_in_the_new_process, .timeout = 5)
{
    struct itimerval off = {0}, left;
    handle(SIGALRM, note, 0);
    cr_assert_eq(RUN(call_alarm, SYS_alarm, 100), 0);
    cr_expect(time_capture_timers(&rung));
    time_capture();
    setitimer(ITIMER_REAL, &off, NULL); /* a new process has none */
    time_resume();
    getitimer(ITIMER_REAL, &left);
    cr_expect(left.it_value.tv_sec == 99 || left.it_value.tv_sec == 100);
    cr_expect_eq(RUN(call_alarm, SYS_alarm, 0), 100);
    time_capture_timers(&rung);
    time_capture();
    time_resume();
    getitimer(ITIMER_REAL, &left);
    cr_expect(left.it_value.tv_sec == 0 && left.it_value.tv_usec == 0);
}

Test(call_time, a_timer_runs_on_while_the_process_is_away, .timeout = 5)
{
    struct itimerval half = {.it_value.tv_usec = 500000}, left, off = {0};
    handle(SIGALRM, note, 0);
    cr_assert_eq(RUN(call_setitimer, SYS_setitimer, ITIMER_REAL, (long)&half, 0), 0);
    time_capture_timers(&rung);
    time_capture();
    setitimer(ITIMER_REAL, &off, NULL);
    usleep(100000);
    time_resume();
    getitimer(ITIMER_REAL, &left);
    cr_expect(left.it_value.tv_usec > 100000 && left.it_value.tv_usec <= 400000);
    cr_expect_eq(time_left_ns(5000, 100000), 1000, "it is over: at once");
    cr_expect_eq(time_left_ns(0, 100000), 0, "it was not armed");
}

static void wait_for_ring(void)
{
    uint64_t pending = 0;
    while (!(pending & SIGNAL_BIT(SIGALRM)))
        sys(SYS_rt_sigpending, &pending, 8);
}

/* The kernel says then that nothing is left; it would go on as soon as the signal is taken. */
Test(call_time, an_interval_timer_whose_signal_is_pending_goes_on, .timeout = 5)
{
    struct itimerval often = {.it_value.tv_usec = 1000, .it_interval.tv_usec = 20000}, left, off = {0};
    uint64_t alarm = SIGNAL_BIT(SIGALRM);
    handle(SIGALRM, note, 0);
    cr_assert_eq(RUN(call_rt_sigprocmask, SYS_rt_sigprocmask, SIG_BLOCK, (long)&alarm, 0, 8), 0);
    cr_assert_eq(RUN(call_setitimer, SYS_setitimer, ITIMER_REAL, (long)&often, 0), 0);
    wait_for_ring();
    cr_expect(time_capture_timers(&rung));
    cr_expect(time_capture_timers(&rung), "and the next time, too");
    time_capture();
    setitimer(ITIMER_REAL, &off, NULL);
    time_resume();
    getitimer(ITIMER_REAL, &left);
    cr_expect_eq(left.it_interval.tv_usec, 20000);
    cr_expect(left.it_value.tv_usec > 0 && left.it_value.tv_usec <= 20000);
}

/* A child whose clock is five seconds behind stands for the process after a reboot. */
static bool enter_the_past(void)
{
    static const char offsets[] = "monotonic -5 0\nboottime -5 0\n";
    if (unshare(CLONE_NEWTIME))
        return false;
    int fd = open("/proc/self/timens_offsets", O_WRONLY);
    bool done = fd >= 0 && write(fd, offsets, sizeof offsets - 1) > 0;
    close(fd);
    return done;
}

static int after_reboot(int64_t before)
{
    struct timespec now, until;
    time_resume();
    if (time_offset_ns(CLOCK_REALTIME) != 0 || time_monotonic_ns() < before)
        return 1;
    if (RUN(call_clock_gettime, SYS_clock_gettime, CLOCK_MONOTONIC, (long)&now) ||
        time_ns(&now) < before)
        return 2;
    until = time_spec(time_ns(&now) + 30 * MS);
    if (RUN(call_clock_nanosleep, SYS_clock_nanosleep, CLOCK_MONOTONIC, TIMER_ABSTIME, (long)&until,
            0))
        return 3;
    int64_t over = time_monotonic_ns() - time_ns(&until);
    return over < 0 || over > 1000 * MS ? 4 : 0;
}

Test(call_time, the_monotonic_clock_never_goes_back, .timeout = 5)
{
    time_capture();
    time_resume();
    cr_expect_eq(time_offset_ns(CLOCK_MONOTONIC), 0, "no reboot, no offset");
    if (!enter_the_past())
        cr_skip_test("no time namespaces here");
    int64_t before = time_monotonic_ns();
    time_capture();
    pid_t child = fork();
    if (child == 0)
        _exit(after_reboot(before));
    int status;
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status));
    cr_expect_eq(WEXITSTATUS(status), 0, "%d", WEXITSTATUS(status));
}

static int make_timer(struct sigevent *event)
{
    int id = -1;
    cr_assert_eq(RUN(call_timer_create, SYS_timer_create, CLOCK_MONOTONIC, (long)event, (long)&id),
                 0);
    return id;
}

Test(call_time, posix_timers_keep_their_ids, .timeout = 5)
{
    struct itimerspec brief = {.it_value.tv_nsec = 10 * MS}, later = {.it_value.tv_sec = 100}, left;
    handle(SIGALRM, note, 0);
    int first = make_timer(NULL), second = make_timer(NULL);
    cr_assert_neq(first, second);
    cr_assert_eq(RUN(call_timer_settime, SYS_timer_settime, second, 0, (long)&later, 0), 0);
    cr_expect(time_capture_timers(&rung));
    time_capture();
    time_resume(); /* the old ones stay with this process; they are not armed to fire soon */
    cr_assert_eq(RUN(call_timer_gettime, SYS_timer_gettime, second, (long)&left), 0);
    cr_expect(left.it_value.tv_sec >= 99);
    cr_assert_eq(RUN(call_timer_settime, SYS_timer_settime, first, 0, (long)&brief, 0), 0);
    cr_expect_eq(sleep_for(1000 * MS, NULL), -EINTR);
    cr_expect_eq(timer_id, first);
    cr_expect_eq(RUN(call_timer_delete, SYS_timer_delete, first), 0);
    cr_expect_eq(RUN(call_timer_delete, SYS_timer_delete, first), -EINVAL);
    cr_expect_eq(RUN(call_timer_gettime, SYS_timer_gettime, 77, (long)&left), -EINVAL);
    cr_expect_eq(make_timer(NULL), first, "the place is free again");
}
