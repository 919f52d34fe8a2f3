/* Clocks, sleeps and timers. Times are int64_t nanoseconds; the program's clocks are virtual.
 *
 * The monotonic clocks start at 0 with each boot of the machine; the program never sees them go
 * back: virtual = kernel's + an offset, which is 0 until a restore finds the kernel's clock behind.
 * Clocks of CPU time: call_cpu.h.
 */
#ifndef KEN_SHIM_CALL_TIME_H
#define KEN_SHIM_CALL_TIME_H

#include "shim/call.h"
#include "shim/call_limits.h"

#include <signal.h>
#include <time.h>

/* CLOCK_MONOTONIC as the program sees it. */
int64_t time_monotonic_ns(void);

/* What to add to the kernel's time of `clock` to get the program's; 0 for those that somebody sets. A deadline that goes to the kernel (timerfd, futex) has it taken off. */
int64_t time_offset_ns(long clock);

/* A clock of the CPU time of some process or thread names it by the number that the program knows: the same by the
 * kernel's. Other clocks are returned as they are. */
long time_kernels_clock(long clock);

/* The clocks that somebody sets. */
static inline bool time_is_wall(long clock)
{
    return clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_ALARM || clock == CLOCK_TAI;
}

/* A deadline of the program on `clock`, as the kernel of this boot knows it. Never 0, which would disarm a timer: what is
 * past is due at once. */
struct timespec time_kernels(long clock, const struct timespec *deadline);

void time_capture(void); /* before each commit: the clock */

/* What armed timers have left; called by signal_capture(). False: none is armed. Adds to *rung the signals of those that
 * have stopped since the last time: each is pending, or was heard, or is just coming to a thread. */
bool time_capture_timers(uint64_t *rung);

/* The signals that alarms and timers send. */
uint64_t time_timers_signals(void);

/* What such a signal, info->si_signo, carries: to thread `tid`, as the program knows it, or to the process (0). False: no timer
 * sends it there. */
bool time_timers_info(siginfo_t *info, long tid);

/* A signal is written down where the next commit finds it, or handed over. Async-signal-safe. */
void time_heard(int signal);

/* A timer is set to send it. */
void time_will_ring(int signal);

/* Those of `signals` that were not heard since a timer was set to send them. */
uint64_t time_unheard(uint64_t signals);

/* Adapts the offset and arms the timers again; signals still blocked, or after signal_resume(). */
void time_resume(void);

/* Behind it, before another thread goes on: with an offset the vdso's own clock_gettime gets it, too, as some runtimes call that
 * without libc. The kernel lets its pages be changed for debuggers. */
void time_resume_vdso(void);

/* In a child of fork: it has no timers. */
void time_forked(void);

/* What a timer that had `left` has after `down` without the process: as sleeps do, it runs on
 * meanwhile, like those of a process that was stopped. One that is over fires at once. 0 stays 0:
 * not armed. */
int64_t time_left_ns(int64_t left, int64_t down);

/* In a siginfo of a POSIX timer: its id as the program knows it. */
void time_correct_timer(siginfo_t *info);

static inline int64_t time_ns(const struct timespec *t)
{
    if (t->tv_sec >= INT64_MAX / 1000000000)
        return INT64_MAX;
    return t->tv_sec * 1000000000 + t->tv_nsec;
}

/* Not below 0. */
static inline struct timespec time_spec(int64_t ns)
{
    if (ns < 0)
        ns = 0;
    return (struct timespec){.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
}

/* The sum of two times >= 0, INT64_MAX when it is beyond. */
static inline int64_t time_after(int64_t now, int64_t ns)
{
    return ns > INT64_MAX - now ? INT64_MAX : now + ns;
}

/* Copies a timespec of the program; -EFAULT, or -EINVAL as the kernel judges. */
long time_read(struct timespec *to, const void *from);

call_handler call_nanosleep, call_clock_nanosleep, call_clock_gettime, call_clock_getres, call_alarm, call_setitimer,
    call_getitimer;
call_handler call_timer_create, call_timer_settime, call_timer_gettime, call_timer_getoverrun,
    call_timer_delete;

#endif
