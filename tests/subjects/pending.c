/* Signals that wait: sent to one thread or to the process, while the thread blocks them: pending PORT
 *
 *     kill WHO SIGNAL           pthread_kill
 *     queue WHO SIGNAL VALUE    pthread_sigqueue; WHO: main, sleeper, spinner, or process (sigqueue)
 *     hit WHO                   one that WHO does not block; answers when its handler ran
 *     ring WHO                  a timer that rings once, and is blocked by WHO
 *     spin ON                   whether the spinner computes meanwhile, or sleeps
 *     show                      takes all: what waited for the process, and for each thread */
#define _GNU_SOURCE
#include "service.h"

#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <time.h>

enum { MAIN, SLEEPER, SPINNER, IDLE, THREADS, PROCESS = THREADS };
static const char *const names[] = {"main", "sleeper", "spinner", "idle", "process"};

static struct actor {
    pthread_t thread;
    pid_t tid;
    sem_t asked, done;
    atomic_int hits;
    char found[800];
} actors[THREADS];

static atomic_bool spins, taking;
static sigset_t blocked;
static __thread struct actor *self;

static void hit(int number, siginfo_t *info, void *context)
{
    (void)number, (void)context;
    self->hits += info->si_code == SI_TKILL && info->si_pid == getpid();
}

/* The kernel gives a thread its own first, then the process's: who has none of its own finds the latter. */
static void take(struct actor *a)
{
    static const struct timespec none = {0, 0};
    siginfo_t info;
    int n = 0;
    a->found[0] = '\0';
    for (int number; (number = sigtimedwait(&blocked, &info, &none)) > 0 && n < 760;) {
        n += sprintf(a->found + n, " %d", number >= SIGRTMIN ? number - SIGRTMIN + 100 : number);
        if (info.si_code == SI_TIMER)
            n += sprintf(a->found + n, "t%d", info.si_value.sival_int);
        else if (info.si_code == SI_QUEUE)
            n += sprintf(a->found + n, "=%d%s", info.si_value.sival_int, info.si_pid == getpid() ? "" : "?");
        else
            n += sprintf(a->found + n, "%s%s", info.si_code == SI_TKILL ? "" : "p", info.si_pid == getpid() ? "" : "?");
    }
}

static void *act(void *argument)
{
    self = argument;
    self->tid = gettid();
    sem_post(&self->done);
    for (;;) {
        while (self == &actors[SPINNER] && spins && !taking)
            ;
        if (self == &actors[SPINNER] && !taking) {
            struct timespec soon = {0, 20000000};
            nanosleep(&soon, NULL);
            continue;
        }
        while (sem_wait(&self->asked))
            ;
        take(self);
        sem_post(&self->done);
        if (self != &actors[SPINNER])
            continue;
        while (taking)
            sched_yield();
        sem_post(&self->done); /* it has seen that it is over */
    }
    return NULL;
}

static void ask(struct actor *a)
{
    taking = a == &actors[SPINNER];
    sem_post(&a->asked);
    while (sem_wait(&a->done))
        ;
    taking = false;
    while (a == &actors[SPINNER] && sem_wait(&a->done))
        ;
}

static void show(void)
{
    ask(&actors[IDLE]);
    ask(&actors[SLEEPER]);
    ask(&actors[SPINNER]);
    take(&actors[MAIN]);
    service_answer("process%s, main%s, sleeper%s, spinner%s", actors[IDLE].found, actors[MAIN].found, actors[SLEEPER].found,
                   actors[SPINNER].found);
}

static void ring(struct actor *a)
{
    static timer_t timers[THREADS];
    static int rung;
    timer_t *t = &timers[a - actors];
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGRTMIN + 9};
    struct itimerspec soon = {.it_value.tv_nsec = 1000000}, left;
    event.sigev_value.sival_int = 7;
    event._sigev_un._tid = a->tid;
    if (!*t && timer_create(CLOCK_MONOTONIC, &event, t))
        err(1, "timer_create");
    timer_settime(*t, 0, &soon, NULL);
    do
        timer_gettime(*t, &left);
    while (left.it_value.tv_nsec);
    service_answer("rung %d", ++rung);
}

static void hit_it(struct actor *a)
{
    int before = a->hits;
    pthread_kill(a->thread, SIGUSR2);
    while (a->hits == before)
        usleep(100);
    service_answer("hit %d", a->hits);
}

static int find(const char *name)
{
    int i = 0;
    while (i < PROCESS && strcmp(names[i], name) != 0)
        i++;
    return i;
}

static void prepare(void)
{
    struct sigaction action = {.sa_sigaction = hit, .sa_flags = SA_SIGINFO};
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGUSR1);
    for (int n = 0; n < 10; n++)
        sigaddset(&blocked, SIGRTMIN + n);
    pthread_sigmask(SIG_BLOCK, &blocked, NULL);
    sigaction(SIGUSR2, &action, NULL);
    self = &actors[MAIN];
    *self = (struct actor){.thread = pthread_self(), .tid = gettid()};
    for (int i = 1; i < THREADS; i++) {
        sem_init(&actors[i].asked, 0, 0);
        sem_init(&actors[i].done, 0, 0);
        if (pthread_create(&actors[i].thread, NULL, act, &actors[i]))
            errx(1, "no thread");
        while (sem_wait(&actors[i].done))
            ;
    }
}

int main(int argc, char **argv)
{
    if (argc != 2)
        errx(2, "usage: pending PORT");
    prepare();
    service_open(atoi(argv[1]));
    for (;;) {
        char *command = service_next(), verb[16] = "", name[16] = "";
        int number = 0, value = 0, r = 0;
        sscanf(command, "%15s %15s %d %d", verb, name, &number, &value);
        if (number >= 100)
            number += SIGRTMIN - 100;
        int who = find(name);
        if (!strcmp(verb, "show")) {
            show();
            continue;
        } else if (!strcmp(verb, "hit")) {
            hit_it(&actors[who]);
            continue;
        } else if (!strcmp(verb, "ring")) {
            ring(&actors[who]);
            continue;
        } else if (!strcmp(verb, "spin"))
            spins = name[0] == '1';
        else if (!strcmp(verb, "kill"))
            r = who == PROCESS ? kill(getpid(), number) : pthread_kill(actors[who].thread, number);
        else
            r = who == PROCESS ? sigqueue(getpid(), number, (union sigval){.sival_int = value})
                               : pthread_sigqueue(actors[who].thread, number, (union sigval){.sival_int = value});
        service_answer("%s %d", verb, r);
    }
}
