#include "shim/call_cpu.h"
#include "shim/call_signal.h"
#include "shim/call_time.h"
#include "shim/process.h"
#include "shim/threads.h"

#include <sys/resource.h>
#include <sys/times.h>
#include <time.h>

/* Source: MAKE_PROCESS_CPUCLOCK in Linux, include/linux/posix-timers.h. */
enum { KIND = 7, OF_THREAD = 4, OF_FILE = 3, SCHEDULED = 2 };
#define TICK_NS 10000000 /* USER_HZ is 100 */

/* Image. `last` is as of the last commit, as the program knows it; `offset` is added to the kernel's. */
static bool watched;
static int64_t process_last, process_offset;
static struct {
    struct rusage last, offset;
} usages[2]; /* the process's, its children's */

static long clock_of(long tid)
{
    return (int)(~(unsigned)tid << 3) | OF_THREAD | SCHEDULED;
}

bool cpu_is_clock(long clock)
{
    int id = (int)clock;
    return id == CLOCK_PROCESS_CPUTIME_ID || id == CLOCK_THREAD_CPUTIME_ID || (id < 0 && (id & KIND) != OF_FILE);
}

int64_t cpu_offset_ns(long clock)
{
    int id = (int)clock;
    if (!watched)
        watched = true;
    if (id == CLOCK_PROCESS_CPUTIME_ID)
        return process_offset;
    const struct peer *p = threads_at(thread_self()->peer);
    int whose = id < 0 ? ~(id >> 3) : 0;
    if (id < 0 && !(id & OF_THREAD))
        return whose == 0 || whose == process_virtual_pid() ? process_offset : 0;
    if (whose)
        p = threads_by_tid(whose);
    return p ? p->cpu.offset : 0;
}

long cpu_clock_named(long clock)
{
    int id = (int)clock;
    bool own = id < 0 && (id & OF_THREAD) && (id & KIND) != KIND && ~(id >> 3) == 0; /* glibc's name for it */
    return own || id == CLOCK_THREAD_CPUTIME_ID ? clock_of(threads_known_tid(sys(SYS_gettid))) : clock;
}

static int64_t timeval_ns(const struct timeval *t)
{
    return t->tv_sec * 1000000000 + t->tv_usec * 1000;
}

static struct timeval timeval_of(int64_t ns)
{
    ns = ns > 0 ? ns : 0;
    return (struct timeval){.tv_sec = ns / 1000000000, .tv_usec = ns / 1000 % 1000000};
}

/* a + sign * b, but for the greatest size, which is no sum. */
static void usage_add(struct rusage *a, const struct rusage *b, int sign)
{
    long *to = &a->ru_ixrss;
    const long *from = &b->ru_ixrss;
    a->ru_utime = timeval_of(timeval_ns(&a->ru_utime) + sign * timeval_ns(&b->ru_utime));
    a->ru_stime = timeval_of(timeval_ns(&a->ru_stime) + sign * timeval_ns(&b->ru_stime));
    if (a->ru_maxrss < b->ru_maxrss)
        a->ru_maxrss = b->ru_maxrss;
    for (int i = 0; to + i <= &a->ru_nivcsw; i++)
        to[i] = sign < 0 && to[i] < from[i] ? 0 : to[i] + sign * from[i];
}

static void usage_now(struct rusage *u, int which)
{
    sys(SYS_getrusage, which ? RUSAGE_CHILDREN : RUSAGE_SELF, u);
    usage_add(u, &usages[which].offset, 1);
}

static void thread_usage(struct rusage *u)
{
    struct thread_cpu *cpu = &threads_at(thread_self()->peer)->cpu;
    cpu->user_seen = timeval_ns(&u->ru_utime) + cpu->user_offset;
    cpu->system_seen = timeval_ns(&u->ru_stime) + cpu->system_offset;
    u->ru_utime = timeval_of(cpu->user_seen);
    u->ru_stime = timeval_of(cpu->system_seen);
}

long call_getrusage(struct call *c)
{
    struct rusage u;
    long who = (int)c->arg[0], r = sys(SYS_getrusage, who, &u);
    watched = true;
    if (sys_failed(r))
        return r;
    if (who == RUSAGE_THREAD)
        thread_usage(&u);
    else
        usage_add(&u, &usages[who == RUSAGE_CHILDREN].offset, 1);
    return fault_copy((void *)c->arg[1], &u, sizeof u) ? 0 : -EFAULT;
}

static clock_t ticks(const struct timeval *t)
{
    return timeval_ns(t) / TICK_NS;
}

long call_times(struct call *c)
{
    struct rusage own, childrens;
    long r = sys(SYS_times, NULL);
    watched = true;
    usage_now(&own, 0);
    usage_now(&childrens, 1);
    struct tms all = {.tms_utime = ticks(&own.ru_utime), .tms_stime = ticks(&own.ru_stime),
                      .tms_cutime = ticks(&childrens.ru_utime), .tms_cstime = ticks(&childrens.ru_stime)};
    if (c->arg[0] && !fault_copy((void *)c->arg[0], &all, sizeof all))
        return -EFAULT;
    return r + time_offset_ns(CLOCK_MONOTONIC) / TICK_NS;
}

static bool lives(const struct peer *p)
{
    return p->state != THREAD_NONE && p->state != THREAD_EXITING;
}

void cpu_capture(void)
{
    struct peer *p;
    if (!watched)
        return;
    process_last = sys_clock_ns(CLOCK_PROCESS_CPUTIME_ID) + process_offset;
    usage_now(&usages[0].last, 0);
    usage_now(&usages[1].last, 1);
    for (uint32_t i = 0; (p = threads_at(i)); i++) {
        int64_t used = lives(p) ? sys_clock_ns(clock_of(p->real_tid)) + p->cpu.offset : 0;
        if (used != p->cpu.last) /* an unchanged line stays clean */
            p->cpu.last = used;
    }
}

/* What it was in the commit, less what the new thread has used already, to come back. Threads that were just made have used
 * next to nothing, and what is told of the split of their time goes by what was told before. */
static void thread_resume(struct peer *p)
{
    struct thread_cpu *cpu = &p->cpu;
    int64_t user = cpu->last - cpu->system_seen;
    cpu->offset = cpu->last - sys_clock_ns(clock_of(p->real_tid));
    cpu->system_offset = cpu->system_seen;
    cpu->user_offset = user > cpu->user_seen ? user : cpu->user_seen;
}

void cpu_resume(void)
{
    struct peer *p;
    if (!watched)
        return;
    for (uint32_t i = 0; (p = threads_at(i)); i++)
        if (lives(p))
            thread_resume(p);
    process_offset = process_last - sys_clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    for (int which = 0; which < 2; which++) {
        struct rusage now;
        sys(SYS_getrusage, which ? RUSAGE_CHILDREN : RUSAGE_SELF, &now);
        usages[which].offset = usages[which].last;
        usage_add(&usages[which].offset, &now, -1);
    }
}

void cpu_forked(void)
{
    process_offset = 0;
    usages[0].offset = usages[1].offset = (struct rusage){0};
    threads_at(thread_self()->peer)->cpu = (struct thread_cpu){0};
}
