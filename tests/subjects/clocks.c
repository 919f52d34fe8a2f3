/* Every way to wait for a time: clocks PORT
 *
 * `wait NAME MS` waits so long and answers `NAME in time`, or how wrong it was by the way's clock; `names` lists the
 * ways. `begin MS` has a thread for each way wait so long, and `end` tells whether all were in time; meanwhile others commands
 * are answered. The clock itself must not go back from one reading to the next. */
#define _GNU_SOURCE
#include "service.h"

#include <dlfcn.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>

#define SECOND 1000000000L

static int64_t now(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec * SECOND + t.tv_nsec;
}

/* As runtimes read it that do without libc. */
static bool vdso_agrees(void)
{
    static int (*read_vdso)(clockid_t, struct timespec *);
    struct timespec t;
    int64_t before = now(CLOCK_MONOTONIC);
    if (!read_vdso)
        read_vdso = dlsym(dlopen("linux-vdso.so.1", RTLD_LAZY | RTLD_NOLOAD), "__vdso_clock_gettime");
    if (!read_vdso || read_vdso(CLOCK_MONOTONIC, &t))
        err(1, "no vdso");
    int64_t ns = t.tv_sec * SECOND + t.tv_nsec;
    return before <= ns && ns <= now(CLOCK_MONOTONIC);
}

static struct timespec spec(int64_t ns)
{
    return (struct timespec){ns / SECOND, ns % SECOND};
}

static struct timespec in(clockid_t clock, int64_t ns)
{
    return spec(now(clock) + ns);
}

static void sleep_relative(int64_t ns)
{
    struct timespec t = spec(ns);
    nanosleep(&t, NULL);
}

static void sleep_absolute(int64_t ns)
{
    struct timespec t = in(CLOCK_MONOTONIC, ns);
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
}

static void timerfd(int64_t ns, clockid_t clock, int flags)
{
    uint64_t count;
    int fd = timerfd_create(clock, 0);
    struct itimerspec t = {.it_value = flags ? in(clock, ns) : spec(ns)};
    timerfd_settime(fd, flags, &t, NULL);
    if (read(fd, &count, sizeof count) != sizeof count)
        err(1, "timerfd");
    close(fd);
}

static void timerfd_relative(int64_t ns) { timerfd(ns, CLOCK_MONOTONIC, 0); }
static void timerfd_absolute(int64_t ns) { timerfd(ns, CLOCK_MONOTONIC, TFD_TIMER_ABSTIME); }
static void timerfd_boottime(int64_t ns) { timerfd(ns, CLOCK_BOOTTIME, TFD_TIMER_ABSTIME); }
static void timerfd_realtime(int64_t ns) { timerfd(ns, CLOCK_REALTIME, TFD_TIMER_ABSTIME); }

static void timer(int64_t ns, clockid_t clock, int number)
{
    timer_t id;
    sigset_t set;
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = number};
    struct itimerspec t = {.it_value = in(clock, ns)};
    sigemptyset(&set);
    sigaddset(&set, number);
    timer_create(clock, &event, &id);
    timer_settime(id, TIMER_ABSTIME, &t, NULL);
    sigwaitinfo(&set, NULL);
    timer_delete(id);
}

static void posix_timer(int64_t ns) { timer(ns, CLOCK_MONOTONIC, SIGUSR1); }
static void posix_timer_realtime(int64_t ns) { timer(ns, CLOCK_REALTIME, SIGRTMIN); }

static void signal_time_limit(int64_t ns)
{
    struct timespec t = spec(ns);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    sigtimedwait(&set, NULL, &t);
}

static pthread_mutex_t taken;

static void condition(int64_t ns, clockid_t clock)
{
    pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    pthread_cond_t cond;
    pthread_condattr_t attribute;
    struct timespec until = in(clock, ns);
    pthread_condattr_init(&attribute);
    pthread_condattr_setclock(&attribute, clock);
    pthread_cond_init(&cond, &attribute);
    pthread_mutex_lock(&mutex);
    while (pthread_cond_timedwait(&cond, &mutex, &until) != ETIMEDOUT)
        ;
    pthread_mutex_unlock(&mutex);
    pthread_cond_destroy(&cond);
}

static void condition_monotonic(int64_t ns) { condition(ns, CLOCK_MONOTONIC); }
static void condition_realtime(int64_t ns) { condition(ns, CLOCK_REALTIME); }

/* A priority-inheriting mutex that another thread holds. */
static void mutex_limit(int64_t ns, clockid_t clock)
{
    struct timespec until = in(clock, ns);
    if (pthread_mutex_clocklock(&taken, clock, &until) != ETIMEDOUT)
        errx(1, "the mutex was free");
}

static void mutex_monotonic(int64_t ns) { mutex_limit(ns, CLOCK_MONOTONIC); }
static void mutex_realtime(int64_t ns) { mutex_limit(ns, CLOCK_REALTIME); }

static void semaphore(int64_t ns)
{
    sem_t sem;
    struct timespec until = in(CLOCK_MONOTONIC, ns);
    sem_init(&sem, 0, 0);
    while (sem_clockwait(&sem, CLOCK_MONOTONIC, &until) < 0 && errno == EINTR)
        ;
    sem_destroy(&sem);
}

static void futex(int64_t ns)
{
    static int word;
    struct timespec t = spec(ns);
    while (syscall(SYS_futex, &word, 0 /* FUTEX_WAIT */, 0, &t, NULL, 0) < 0 && errno == EINTR)
        ;
}

static void poll_limit(int64_t ns) { poll(NULL, 0, (int)(ns / 1000000)); }

static void select_limit(int64_t ns)
{
    struct timeval t = {ns / SECOND, ns % SECOND / 1000};
    select(0, NULL, NULL, NULL, &t);
}

static void epoll_limit(int64_t ns)
{
    struct epoll_event event;
    int fd = epoll_create1(0);
    epoll_wait(fd, &event, 1, (int)(ns / 1000000));
    close(fd);
}

static void receive_limit(int64_t ns)
{
    char byte;
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    struct timeval t = {ns / SECOND, ns % SECOND / 1000};
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    bind(fd, (void *)&any, sizeof any);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
    recv(fd, &byte, 1, 0);
    close(fd);
}

static const struct {
    const char *name;
    void (*wait)(int64_t ns);
    clockid_t clock;
} ways[] = {
    {"nanosleep", sleep_relative, CLOCK_MONOTONIC},
    {"clock_nanosleep", sleep_absolute, CLOCK_MONOTONIC},
    {"timerfd", timerfd_relative, CLOCK_MONOTONIC},
    {"timerfd_absolute", timerfd_absolute, CLOCK_MONOTONIC},
    {"timerfd_boottime", timerfd_boottime, CLOCK_MONOTONIC},
    {"timerfd_realtime", timerfd_realtime, CLOCK_REALTIME},
    {"timer", posix_timer, CLOCK_MONOTONIC},
    {"timer_realtime", posix_timer_realtime, CLOCK_REALTIME},
    {"sigtimedwait", signal_time_limit, CLOCK_MONOTONIC},
    {"cond", condition_monotonic, CLOCK_MONOTONIC},
    {"cond_realtime", condition_realtime, CLOCK_REALTIME},
    {"sem", semaphore, CLOCK_MONOTONIC},
    {"futex", futex, CLOCK_MONOTONIC},
    {"poll", poll_limit, CLOCK_MONOTONIC},
    {"select", select_limit, CLOCK_MONOTONIC},
    {"epoll", epoll_limit, CLOCK_MONOTONIC},
    {"recv", receive_limit, CLOCK_MONOTONIC},
    /* With another thread only: */
    {"mutex", mutex_monotonic, CLOCK_MONOTONIC},
    {"mutex_realtime", mutex_realtime, CLOCK_REALTIME},
};

enum { WAYS = sizeof ways / sizeof *ways, ALONE = WAYS - 2 };

/* What was wrong with one wait, or "". */
static void judge(int way, long ms, char *text)
{
    int64_t steady = now(CLOCK_MONOTONIC), before = now(ways[way].clock);
    ways[way].wait(ms * 1000000);
    int64_t took = (now(ways[way].clock) - before) / 1000000, after = now(CLOCK_MONOTONIC);
    text[0] = '\0';
    if (after < steady)
        sprintf(text, "the clock went back: %ld, %ld", (long)steady, (long)after);
    else if (!vdso_agrees())
        sprintf(text, "the vdso has another clock");
    else if (took < ms || took > ms + 3000)
        sprintf(text, "%s took %ld ms for %ld", ways[way].name, (long)took, ms);
}

static void answer(const char *name, long ms)
{
    static int64_t last;
    char text[200];
    int way = 0;
    while (way < WAYS && strcmp(ways[way].name, name) != 0)
        way++;
    if (way == WAYS) {
        service_answer("no such way");
        return;
    }
    int64_t steady = now(CLOCK_MONOTONIC);
    judge(way, ms, text);
    if (steady < last)
        service_answer("the clock went back: %ld, %ld", (long)last, (long)steady);
    else if (text[0])
        service_answer("%s", text);
    else
        service_answer("%s in time", name);
    last = now(CLOCK_MONOTONIC);
}

static struct waiter {
    pthread_t thread;
    long ms;
    char text[200];
} waiters[WAYS];

static void *wait_beside(void *argument)
{
    struct waiter *w = argument;
    judge((int)(w - waiters), w->ms, w->text);
    return NULL;
}

static void begin(long ms)
{
    for (int way = 0; way < WAYS; way++) {
        waiters[way].ms = ms;
        if (pthread_create(&waiters[way].thread, NULL, wait_beside, &waiters[way]))
            errx(1, "no thread");
    }
    service_answer("begun");
}

static void end(void)
{
    char text[1500] = "";
    for (int way = 0; way < WAYS; way++) {
        pthread_join(waiters[way].thread, NULL);
        if (waiters[way].text[0] && strlen(text) < 1200)
            strcat(strcat(text, text[0] ? ", " : ""), waiters[way].text);
    }
    service_answer("%s", text[0] ? text : "all in time");
}

static void list(int count)
{
    char text[1024] = "";
    for (int i = 0; i < count; i++)
        strcat(strcat(text, i ? " " : ""), ways[i].name);
    service_answer("%s", text);
}

/* Holds the mutex that is waited for. */
static void *hold(void *ready)
{
    pthread_mutex_lock(&taken);
    sem_post(ready);
    for (;;)
        pause();
    return NULL;
}

static void prepare(void)
{
    sem_t ready;
    pthread_t thread;
    pthread_mutexattr_t attribute;
    pthread_mutexattr_init(&attribute);
    pthread_mutexattr_setprotocol(&attribute, PTHREAD_PRIO_INHERIT);
    pthread_mutex_init(&taken, &attribute);
    sem_init(&ready, 0, 0);
    if (pthread_create(&thread, NULL, hold, &ready))
        errx(1, "no thread");
    while (sem_wait(&ready))
        ;
}

int main(int argc, char **argv)
{
    sigset_t set;
    char name[32];
    long ms;
    if (argc < 2)
        errx(2, "usage: clocks PORT [thread]");
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGUSR2);
    sigaddset(&set, SIGRTMIN);
    sigprocmask(SIG_BLOCK, &set, NULL);
    if (argc > 2)
        prepare();
    service_open(atoi(argv[1]));
    for (;;) {
        const char *command = service_next();
        if (sscanf(command, "wait %31s %ld", name, &ms) == 2)
            answer(name, ms);
        else if (sscanf(command, "begin %ld", &ms) == 1)
            begin(ms);
        else if (!strcmp(command, "end"))
            end();
        else
            list(argc > 2 ? WAYS : ALONE);
    }
}
