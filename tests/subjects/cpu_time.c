/* CPU time, by every way to ask for it: cpu_time PORT
 *
 *     work MS   the main thread computes for so long, and so does another one
 *     arm MS    the other thread sets a timer on its own CPU time
 *     ring      it computes until that has rung
 *     nap MS    the main thread sleeps until the process has used so much, while the other one computes
 *
 * After each, no clock may have gone back, and none may be behind the work that was done. */
#define _GNU_SOURCE
#include "service.h"

#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/times.h>
#include <time.h>

#define MS 1000000L

static clockid_t own, others, process;
static int64_t worked, others_work; /* ns that were computed for, by the main thread and by the other one */

static int64_t now(clockid_t clock)
{
    struct timespec t;
    if (clock_gettime(clock, &t))
        err(1, "clock_gettime");
    return t.tv_sec * 1000 * MS + t.tv_nsec;
}

static int64_t time_of(const struct timeval *t)
{
    return t->tv_sec * 1000 * MS + t->tv_usec * 1000;
}

static int64_t used(int who, int system)
{
    struct rusage usage;
    getrusage(who, &usage);
    return system ? time_of(&usage.ru_stime) : time_of(&usage.ru_utime);
}

static int64_t faults(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_minflt + usage.ru_nvcsw;
}

static int64_t ticks(int part)
{
    struct tms t;
    clock_t all = times(&t);
    int64_t tick = 1000 * MS / sysconf(_SC_CLK_TCK);
    return tick * (part == 0 ? all : part == 1 ? t.tms_utime : t.tms_stime);
}

static int64_t by_clock(void) { return clock() * (1000 * MS / CLOCKS_PER_SEC); }
static int64_t by_process(void) { return now(CLOCK_PROCESS_CPUTIME_ID); }
static int64_t by_named_process(void) { return now(process); }
static int64_t by_thread(void) { return now(CLOCK_THREAD_CPUTIME_ID); }
static int64_t by_named_thread(void) { return now(own); }
static int64_t by_other_thread(void) { return now(others); }
static int64_t by_usage(void) { return used(RUSAGE_SELF, 0) + used(RUSAGE_SELF, 1); }
static int64_t by_user_usage(void) { return used(RUSAGE_SELF, 0); }
static int64_t by_system_usage(void) { return used(RUSAGE_SELF, 1); }
static int64_t by_thread_usage(void) { return used(RUSAGE_THREAD, 0) + used(RUSAGE_THREAD, 1); }
static int64_t by_thread_system_usage(void) { return used(RUSAGE_THREAD, 1); }
static int64_t by_times(void) { return ticks(1) + ticks(2); }
static int64_t by_system_times(void) { return ticks(2); }
static int64_t by_ticks(void) { return ticks(0); }

static struct {
    const char *name;
    int64_t (*ask)(void);
    int main, other; /* whether the work of the two shows in it */
    int64_t last;
} ways[] = {
    {"clock", by_clock, 1, 1, 0},
    {"process", by_process, 1, 1, 0},
    {"named process", by_named_process, 1, 1, 0},
    {"thread", by_thread, 1, 0, 0},
    {"named thread", by_named_thread, 1, 0, 0},
    {"other thread", by_other_thread, 0, 1, 0},
    {"usage", by_usage, 1, 1, 0},
    {"user usage", by_user_usage, 0, 0, 0},
    {"system usage", by_system_usage, 0, 0, 0},
    {"thread usage", by_thread_usage, 1, 0, 0},
    {"thread system usage", by_thread_system_usage, 0, 0, 0},
    {"times", by_times, 1, 1, 0},
    {"system times", by_system_times, 0, 0, 0},
    {"ticks", by_ticks, 0, 0, 0},
    {"faults", faults, 0, 0, 0},
};

static void answer(const char *done)
{
    for (unsigned i = 0; i < sizeof ways / sizeof *ways; i++) {
        int64_t is = ways[i].ask(), least = ways[i].main * worked + ways[i].other * others_work - 25 * MS;
        if (is < ways[i].last) {
            service_answer("%s went back from %ld to %ld", ways[i].name, (long)ways[i].last, (long)is);
            return;
        }
        if (is < least) {
            service_answer("%s is %ld, less than %ld", ways[i].name, (long)is, (long)least);
            return;
        }
        ways[i].last = is;
    }
    service_answer("%s", done);
}

static int64_t compute(int64_t ns)
{
    int64_t begun = now(CLOCK_THREAD_CPUTIME_ID), is = begun;
    while (is < begun + ns)
        is = now(CLOCK_THREAD_CPUTIME_ID);
    return is - begun;
}

static sem_t asked, done;
static volatile sig_atomic_t sleeping;
static struct {
    enum { COMPUTE, ARM, RING, AWAKE } what;
    long ms;
} job;

static void arm(long ms)
{
    static timer_t timer;
    static int made;
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
    struct itimerspec in = {.it_value.tv_nsec = ms * MS};
    if (!made && timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &timer))
        err(1, "timer_create");
    made = 1;
    if (timer_settime(timer, 0, &in, NULL))
        err(1, "timer_settime");
}

static void ring(void)
{
    static const struct timespec none = {0, 0};
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    while (sigtimedwait(&set, NULL, &none) != SIGUSR1)
        others_work += compute(MS);
}

static void *other(void *unused)
{
    sem_post(&done);
    for (;;) {
        while (sem_wait(&asked))
            ;
        if (job.what == COMPUTE)
            others_work += compute(job.ms * MS);
        else if (job.what == ARM)
            arm(job.ms);
        else if (job.what == RING)
            ring();
        while (job.what == AWAKE && sleeping)
            others_work += compute(MS);
        sem_post(&done);
    }
    return unused;
}

static void await(void)
{
    while (sem_wait(&done))
        ;
}

static void begin(int what, long ms)
{
    job.what = what;
    job.ms = ms;
    sem_post(&asked);
}

static void nap(long ms)
{
    int64_t at = now(CLOCK_PROCESS_CPUTIME_ID) + ms * MS;
    struct timespec until = {at / (1000 * MS), at % (1000 * MS)};
    sleeping = 1;
    begin(AWAKE, 0);
    while (clock_nanosleep(CLOCK_PROCESS_CPUTIME_ID, TIMER_ABSTIME, &until, NULL))
        ;
    sleeping = 0;
    await();
}

int main(int argc, char **argv)
{
    sigset_t set;
    pthread_t thread;
    char verb[16];
    long ms;
    if (argc != 2)
        errx(2, "usage: cpu_time PORT");
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    sem_init(&asked, 0, 0);
    sem_init(&done, 0, 0);
    if (pthread_create(&thread, NULL, other, NULL))
        errx(1, "no thread");
    await();
    if (pthread_getcpuclockid(thread, &others) || pthread_getcpuclockid(pthread_self(), &own) ||
        clock_getcpuclockid(getpid(), &process))
        errx(1, "no clock of CPU time");
    service_open(atoi(argv[1]));
    for (;;) {
        if (sscanf(service_next(), "%15s %ld", verb, &ms) < 1)
            continue;
        if (!strcmp(verb, "work")) {
            begin(COMPUTE, ms);
            worked += compute(ms * MS);
            await();
        } else if (!strcmp(verb, "arm")) {
            begin(ARM, ms);
            await();
        } else if (!strcmp(verb, "ring")) {
            begin(RING, 0);
            await();
        } else {
            nap(ms);
        }
        answer(verb);
    }
}
