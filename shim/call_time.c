#include "shim/call_time.h"
#include "heap/fault.h"
#include "heap/session.h"
#include "shim/call_cpu.h"
#include "shim/call_signal.h"
#include "shim/process.h"
#include "shim/threads.h"
#include "shim/time_timers.h"
#include "shim/turn.h"

#include <string.h>
#include <sys/time.h>

static int64_t offset; /* image */

/* The program's monotonic time at the last commit. It changes with each, so it is kept with the record's own figures
 * and not in a page that would be dirty for it alone. */
static int64_t *last_commit(void)
{
    static int64_t unprotected;
    return session ? &session->image.meta->program_ns : &unprotected;
}

static int64_t kernel_ns(long clock)
{
    struct timespec now = {0, 0};
    sys(SYS_clock_gettime, time_kernels_clock(clock), &now);
    return time_ns(&now);
}

int64_t time_offset_ns(long clock)
{
    switch (clock) {
    case CLOCK_MONOTONIC:
    case CLOCK_MONOTONIC_RAW:
    case CLOCK_MONOTONIC_COARSE:
    case CLOCK_BOOTTIME:
    case CLOCK_BOOTTIME_ALARM:
        return offset;
    default:
        return cpu_is_clock(clock) ? cpu_offset_ns(clock) : 0;
    }
}

int64_t time_monotonic_ns(void)
{
    return kernel_ns(CLOCK_MONOTONIC) + offset;
}

/* Source: MAKE_PROCESS_CPUCLOCK in Linux, include/linux/posix-timers.h. */
long time_kernels_clock(long clock)
{
    enum { KIND = 7, OF_THREAD = 4, OF_FILE = 3 };
    int id = (int)clock;
    if (id >= 0 || (id & KIND) == OF_FILE)
        return clock;
    int whose = ~(id >> 3);
    long real = whose == 0 ? 0 : id & OF_THREAD ? threads_real_tid(whose) : process_real_pid(whose);
    return (int)(~(unsigned)real << 3) | (id & KIND);
}

struct timespec time_kernels(long clock, const struct timespec *deadline)
{
    int64_t at = time_ns(deadline) - time_offset_ns(clock);
    return time_spec(at > 0 ? at : 1);
}

long time_read(struct timespec *to, const void *from)
{
    if (!fault_copy(to, from, sizeof *to))
        return -EFAULT;
    bool valid = to->tv_sec >= 0 && to->tv_nsec >= 0 && to->tv_nsec < 1000000000;
    return valid ? 0 : -EINVAL;
}

long call_clock_gettime(struct call *c)
{
    struct timespec now;
    int64_t add = time_offset_ns(c->arg[0]);
    struct call with = *c;
    with.arg[0] = time_kernels_clock(c->arg[0]);
    if (!add)
        return call_raw(&with);
    long result = sys(SYS_clock_gettime, with.arg[0], &now);
    if (sys_failed(result))
        return result;
    now = time_spec(time_ns(&now) + add);
    return fault_copy((void *)c->arg[1], &now, sizeof now) ? 0 : -EFAULT;
}

long call_clock_getres(struct call *c)
{
    struct call with = *c;
    with.arg[0] = time_kernels_clock(c->arg[0]);
    return call_raw(&with);
}

/* Peers are served while the program sleeps (call_peer.c). The unit tests do without. */
__attribute__((weak)) long peer_sleep(long clock, int64_t deadline);
__attribute__((weak)) bool peer_awake(void);

static long sleep_in_kernel(long clock, int64_t deadline)
{
    int64_t kernels = deadline == INT64_MAX ? deadline : deadline - time_offset_ns(clock);
    struct timespec until = time_spec(kernels);
    struct call inner = {.nr = SYS_clock_nanosleep, .arg = {time_kernels_clock(clock), TIMER_ABSTIME, (long)&until, 0}};
    return peer_sleep && peer_awake() ? peer_sleep(clock, kernels) : signal_block_once(&inner);
}

/* Between the calls of its other threads a program sleeps within the turn at first. *ended: a commit of another thread's took
 * the sleep along. Returns as sleep_in_kernel(), or SIGNAL_AGAIN: some of it is left. */
static long sleep_within_turn(long clock, int64_t deadline, bool *ended)
{
    uint64_t turn = turn_number();
    int64_t until = time_after(kernel_ns(clock) + time_offset_ns(clock), turn_grace_ns());
    long result = sleep_in_kernel(clock, until < deadline ? until : deadline);
    if (result || until >= deadline)
        return result;
    *ended = turn_number() != turn;
    return SIGNAL_AGAIN;
}

/* Sleeps until `deadline` of `clock` as the program sees it; 0 or -EINTR. The kernel is given the
 * deadline, not a duration: what libken does meanwhile, a restart too, is part of the sleep. */
static long sleep_until(long clock, int64_t deadline)
{
    bool ended = false;
    long result = threads_many && !turn_overdue() ? sleep_within_turn(clock, deadline, &ended) : SIGNAL_AGAIN;
    while (result == SIGNAL_AGAIN || result == THREADS_AGAIN) {
        if (!ended && result == SIGNAL_AGAIN)
            turn_end(TURN_WAIT); /* may end in another incarnation, with another offset */
        ended = false;
        result = sleep_in_kernel(clock, deadline);
    }
    return result;
}

static long sleep_for(long clock, const struct timespec *wanted, void *remaining)
{
    int64_t now = kernel_ns(clock) + time_offset_ns(clock);
    int64_t deadline = time_after(now, time_ns(wanted));
    long result = sleep_until(clock, deadline);
    if (result == -EINTR && remaining) {
        struct timespec left = time_spec(deadline - kernel_ns(clock) - time_offset_ns(clock));
        if (!fault_copy(remaining, &left, sizeof left))
            return -EFAULT;
    }
    return result;
}

long call_nanosleep(struct call *c)
{
    struct timespec wanted;
    long result = time_read(&wanted, (void *)c->arg[0]);
    if (sys_failed(result))
        return result;
    return sleep_for(CLOCK_MONOTONIC, &wanted, (void *)c->arg[1]);
}

long call_clock_nanosleep(struct call *c)
{
    struct timespec wanted, now;
    long clock = c->arg[0];
    bool absolute = c->arg[1] & TIMER_ABSTIME;
    long result = sys(SYS_clock_gettime, time_kernels_clock(clock), &now); /* is there such a clock? */
    if (sys_failed(result))
        return result;
    result = time_read(&wanted, (void *)c->arg[2]);
    if (sys_failed(result))
        return result;
    /* A relative sleep does not follow changes of the wall clock. */
    if (clock == CLOCK_REALTIME && !absolute)
        clock = CLOCK_MONOTONIC;
    if (absolute)
        return sleep_until(clock, time_ns(&wanted));
    return sleep_for(clock, &wanted, (void *)c->arg[3]);
}

static int64_t timeval_ns(const struct timeval *t)
{
    return t->tv_sec * 1000000000 + t->tv_usec * 1000;
}

/* The three interval timers. The kernel runs them; we only know which one may be running. */
static bool itimer_used[3];
static struct itimerval itimer_left[3]; /* as of the last commit */

static const int itimer_signal[3] = {SIGALRM, SIGVTALRM, SIGPROF};

static uint64_t heard; /* atomic; signals that came since a timer was set to send them */

void time_heard(int signal)
{
    if (!(__atomic_load_n(&heard, __ATOMIC_RELAXED) & SIGNAL_BIT(signal)))
        __atomic_fetch_or(&heard, SIGNAL_BIT(signal), __ATOMIC_RELEASE);
}

uint64_t time_unheard(uint64_t signals)
{
    return signals & ~__atomic_load_n(&heard, __ATOMIC_ACQUIRE);
}

void time_will_ring(int signal)
{
    __atomic_fetch_and(&heard, ~SIGNAL_BIT(signal), __ATOMIC_RELAXED);
}

static void itimer_set(int which, bool runs)
{
    itimer_used[which] = runs;
    if (runs)
        time_will_ring(itimer_signal[which]);
}

long call_setitimer(struct call *c)
{
    struct itimerval wanted;
    bool known = c->arg[1] && c->arg[0] >= 0 && c->arg[0] < 3 && fault_copy(&wanted, (void *)c->arg[1], sizeof wanted);
    long result = call_raw(c);
    if (!sys_failed(result) && known)
        itimer_set((int)c->arg[0], timeval_ns(&wanted.it_value));
    return result;
}

long call_getitimer(struct call *c)
{
    return call_raw(c);
}

long call_alarm(struct call *c)
{
    itimer_set(ITIMER_REAL, (unsigned)c->arg[0]);
    return call_raw(c);
}

/* The kernel starts ITIMER_REAL's next period when its signal is taken: as long as that is blocked, nothing is left of a timer
 * that goes on all the same. So what counts is the period. */
static bool itimers_capture(uint64_t *rung)
{
    bool any = false;
    for (int which = 0; which < 3; which++) {
        if (!itimer_used[which])
            continue;
        struct itimerval left;
        sys(SYS_getitimer, which, &left);
        if (memcmp(&left, &itimer_left[which], sizeof left) != 0)
            itimer_left[which] = left;
        itimer_used[which] = timeval_ns(&left.it_value) || timeval_ns(&left.it_interval);
        if (!itimer_used[which])
            *rung |= SIGNAL_BIT(itimer_signal[which]);
        any = true;
    }
    return any;
}

int64_t time_left_ns(int64_t left, int64_t down)
{
    return left == 0 ? 0 : left - down > 1000 ? left - down : 1000;
}

static void itimers_resume(int64_t down)
{
    for (int which = 0; which < 3; which++) {
        struct itimerval left = itimer_left[which];
        if (!itimer_used[which])
            continue;
        int64_t ns = time_left_ns(timeval_ns(&left.it_value), which == ITIMER_REAL ? down : 0);
        if (!ns) /* its signal was pending, and is again */
            ns = timeval_ns(&left.it_interval);
        left.it_value = (struct timeval){.tv_sec = ns / 1000000000, .tv_usec = ns / 1000 % 1000000};
        MUTANT("time.itimer_lost", 0, sys(SYS_setitimer, which, &left, NULL));
    }
}

uint64_t time_timers_signals(void)
{
    uint64_t signals = timers_signals();
    for (int which = 0; which < 3; which++)
        if (itimer_used[which])
            signals |= SIGNAL_BIT(itimer_signal[which]);
    return signals;
}

bool time_timers_info(siginfo_t *info, long tid)
{
    if (timers_info(info, tid))
        return true;
    info->si_code = SI_KERNEL;
    for (int which = 0; which < 3; which++)
        if (!tid && itimer_used[which] && itimer_signal[which] == info->si_signo)
            return true;
    return false;
}

bool time_capture_timers(uint64_t *rung)
{
    return itimers_capture(rung) | timers_capture(rung);
}

void time_forked(void)
{
    memset(itimer_used, 0, sizeof itimer_used);
    cpu_forked();
    timers_forked();
}

void time_capture(void)
{
    cpu_capture();
    *last_commit() = time_monotonic_ns();
}

/* How long the process was away by the wall clock, which a reboot does not set back. */
static int64_t wall_down(int64_t otherwise)
{
    if (!session)
        return otherwise;
    int64_t down = kernel_ns(CLOCK_REALTIME) - (int64_t)session->image.meta->committed_ns;
    return down > 0 ? down : 0;
}

void time_resume(void)
{
    int64_t now = time_monotonic_ns(), then = *last_commit();
    if (now < then)
        offset += then - now;
    int64_t down = now > then ? now - then : 0;
    cpu_resume();
    itimers_resume(down);
    timers_resume(down, wall_down(down));
}
