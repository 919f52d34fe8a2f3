#include "shim/time_timers.h"
#include "shim/call_cpu.h"
#include "shim/call_signal.h"
#include "shim/call_time.h"
#include "shim/pending.h"
#include "shim/threads.h"

#include "heap/fault.h"
#include "heap/say.h"

#include <string.h>

/* Image. `left` is as of the last commit. */
static struct timer {
    bool used, armed;
    int kernel_id;
    long clock;
    struct sigevent event;
    struct itimerspec left;
} timers[TIMERS_MAX];

static struct timer *timer_at(long id)
{
    return id >= 0 && id < TIMERS_MAX && timers[id].used ? &timers[id] : NULL;
}

static long create_in_kernel(struct timer *t)
{
    struct sigevent event = t->event;
    if (event.sigev_notify == SIGEV_THREAD_ID)
        event._sigev_un._tid = (pid_t)threads_real_tid(event._sigev_un._tid);
    return sys(SYS_timer_create, time_kernels_clock(t->clock), &event, &t->kernel_id);
}

long call_timer_create(struct call *c)
{
    int id = 0;
    while (id < TIMERS_MAX && timers[id].used)
        id++;
    if (id == TIMERS_MAX)
        return -EAGAIN;
    struct timer t = {.used = true, .clock = cpu_clock_named(c->arg[0])};
    if (!c->arg[1]) { /* the default names the timer by its id, which must be ours */
        t.event.sigev_notify = SIGEV_SIGNAL;
        t.event.sigev_signo = SIGALRM;
        t.event.sigev_value.sival_int = id;
    } else if (!fault_copy(&t.event, (void *)c->arg[1], sizeof t.event)) {
        return -EFAULT;
    }
    long result = create_in_kernel(&t);
    if (sys_failed(result))
        return result;
    if (!fault_copy((void *)c->arg[2], &id, sizeof id)) {
        sys(SYS_timer_delete, t.kernel_id);
        return -EFAULT;
    }
    timers[id] = t;
    return 0;
}

long call_timer_settime(struct call *c)
{
    struct timer *t = timer_at(c->arg[0]);
    struct itimerspec wanted, old;
    if (!t || !c->arg[2])
        return -EINVAL;
    if (!fault_copy(&wanted, (void *)c->arg[2], sizeof wanted))
        return -EFAULT;
    bool arms = wanted.it_value.tv_sec || wanted.it_value.tv_nsec;
    if (arms && (c->arg[1] & TIMER_ABSTIME) && time_offset_ns(t->clock))
        wanted.it_value = time_kernels(t->clock, &wanted.it_value);
    long result = sys(SYS_timer_settime, t->kernel_id, c->arg[1], &wanted, &old);
    if (sys_failed(result))
        return result;
    t->armed = arms;
    if (t->event.sigev_notify == SIGEV_THREAD_ID)
        sys(SYS_timer_gettime, t->kernel_id, &t->left);
    if (arms && t->event.sigev_notify != SIGEV_NONE)
        time_will_ring(t->event.sigev_signo);
    return !c->arg[3] || fault_copy((void *)c->arg[3], &old, sizeof old) ? 0 : -EFAULT;
}

/* The rest of a timer's calls differ only in its number. */
static long with_kernel_id(struct call *c)
{
    struct timer *t = timer_at(c->arg[0]);
    if (!t)
        return -EINVAL;
    c->arg[0] = t->kernel_id;
    return call_raw(c);
}

long call_timer_gettime(struct call *c)
{
    return with_kernel_id(c);
}

long call_timer_getoverrun(struct call *c)
{
    return with_kernel_id(c);
}

long call_timer_delete(struct call *c)
{
    struct timer *t = timer_at(c->arg[0]);
    long result = with_kernel_id(c);
    if (t)
        t->used = false;
    return result;
}

void time_correct_timer(siginfo_t *info)
{
    if (info->si_code != SI_TIMER)
        return;
    for (int id = 0; id < TIMERS_MAX; id++)
        if (timers[id].used && timers[id].kernel_id == info->si_timerid) {
            info->si_timerid = id;
            return;
        }
}

/* Nothing but the timer's own time tells that it has sent its signal to a thread: there is less left, or none. */
static void note_ring(const struct timer *t, const struct itimerspec *left)
{
    int64_t now = time_ns(&left->it_value), before = time_ns(&t->left.it_value);
    struct thread *whom = now == 0 || now > before ? threads_named(t->event._sigev_un._tid) : NULL;
    if (whom && !whom->signals.unheard)
        pending_sent(whom, 1);
}

uint64_t timers_signals(void)
{
    uint64_t signals = 0;
    for (int id = 0; id < TIMERS_MAX; id++)
        if (timers[id].used && timers[id].event.sigev_notify != SIGEV_NONE)
            signals |= SIGNAL_BIT(timers[id].event.sigev_signo);
    return signals;
}

bool timers_info(siginfo_t *info, long tid)
{
    for (int id = 0; id < TIMERS_MAX; id++) {
        const struct timer *t = &timers[id];
        long whom = t->event.sigev_notify == SIGEV_THREAD_ID ? t->event._sigev_un._tid : 0;
        if (!t->used || t->event.sigev_notify == SIGEV_NONE || t->event.sigev_signo != info->si_signo || whom != tid)
            continue;
        info->si_code = SI_TIMER;
        info->si_timerid = t->kernel_id;
        info->si_value = t->event.sigev_value;
        return true;
    }
    return false;
}

bool timers_capture(uint64_t *rung)
{
    bool any = false;
    for (int id = 0; id < TIMERS_MAX; id++) {
        struct timer *t = &timers[id];
        struct itimerspec left;
        if (!t->used || !t->armed)
            continue;
        sys(SYS_timer_gettime, t->kernel_id, &left);
        if (t->event.sigev_notify == SIGEV_THREAD_ID)
            note_ring(t, &left);
        if (memcmp(&left, &t->left, sizeof left) != 0)
            t->left = left;
        t->armed = left.it_value.tv_sec || left.it_value.tv_nsec;
        if (!t->armed && t->event.sigev_notify != SIGEV_NONE)
            *rung |= SIGNAL_BIT(t->event.sigev_signo);
        any = true;
    }
    return any;
}

void timers_forked(void)
{
    memset(timers, 0, sizeof timers);
}

/* Clocks of processes and threads stand still with them. */
static int64_t passed(long clock, int64_t down, int64_t wall_down)
{
    return cpu_is_clock(clock) ? 0 : time_is_wall(clock) ? wall_down : down;
}

void timers_resume(int64_t down, int64_t wall_down)
{
    for (int id = 0; id < TIMERS_MAX; id++) {
        struct timer *t = &timers[id];
        if (!t->used)
            continue;
        struct itimerspec left = t->left;
        left.it_value = time_spec(time_left_ns(time_ns(&left.it_value), passed(t->clock, down, wall_down)));
        long result = create_in_kernel(t);
        if (!sys_failed(result) && t->armed)
            result = MUTANT("time.timer_lost", 0, sys(SYS_timer_settime, t->kernel_id, 0, &left, NULL));
        if (sys_in_trouble(result) || result == -EAGAIN)
            say_die_of(result, "cannot make a timer again: %s; the store is as it was, start the same command again",
                       say_error(result));
        if (sys_failed(result))
            say("a timer could not be made again: %s", say_error(result));
    }
}
