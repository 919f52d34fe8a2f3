/* Every kind of pthread object, used from turn to turn: pthread_kinds PORT
 *
 * Each command takes one step of one object. What a step begins (a lock that is held, a thread that waits for it) a later
 * one ends, so that the objects are in all their states while the program waits for its next command. Answers depend on
 * the commands alone: a twin that nobody kills gives the same. */
#define _GNU_SOURCE
#include "service.h"

#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/uio.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <time.h>

static int checked(int error, const char *what)
{
    if (error)
        errx(1, "%s: %s", what, strerror(error));
    return error;
}

static pthread_t begin(void *(*run)(void *), void *argument)
{
    pthread_t thread;
    checked(pthread_create(&thread, NULL, run, argument), "pthread_create");
    return thread;
}

static long end(pthread_t thread)
{
    void *result;
    checked(pthread_join(thread, &result), "pthread_join");
    return (long)result;
}

static pthread_mutex_t mutex_of(int type, int robust, int protocol)
{
    pthread_mutex_t m;
    pthread_mutexattr_t a;
    pthread_mutexattr_init(&a);
    pthread_mutexattr_settype(&a, type);
    pthread_mutexattr_setrobust(&a, robust);
    pthread_mutexattr_setprotocol(&a, protocol);
    checked(pthread_mutex_init(&m, &a), "pthread_mutex_init");
    return m;
}

/* --- mutexes: held by the main thread from one command to the next, wanted by another ------------- */

struct contest {
    pthread_mutex_t mutex;
    pthread_t waiter;
    int depth, waiting;
    long got;
};

static struct contest contests[4]; /* normal, recursive, error-checking, priority-inheriting */

static void *want(void *argument)
{
    struct contest *c = argument;
    checked(pthread_mutex_lock(&c->mutex), "pthread_mutex_lock");
    c->got++;
    checked(pthread_mutex_unlock(&c->mutex), "pthread_mutex_unlock");
    return (void *)c->got;
}

static void *try_it(void *argument)
{
    struct contest *c = argument;
    int r = pthread_mutex_trylock(&c->mutex);
    if (!r)
        pthread_mutex_unlock(&c->mutex);
    return (void *)(long)r;
}

static void *give_foreign(void *argument)
{
    return (void *)(long)pthread_mutex_unlock(&((struct contest *)argument)->mutex);
}

/* Steps: lock; let a thread wait; (recursive: deeper); unlock and see the thread through. */
static void contest_step(struct contest *c, int kind)
{
    long foreign = 0, again = 0;
    if (!c->depth) {
        checked(pthread_mutex_lock(&c->mutex), "pthread_mutex_lock");
        c->depth = 1;
    } else if (!c->waiting) {
        c->waiter = begin(want, c);
        c->waiting = 1;
        if (kind == 1 && !pthread_mutex_lock(&c->mutex))
            c->depth++;
        if (kind == 2) {
            again = pthread_mutex_lock(&c->mutex);
            foreign = end(begin(give_foreign, c));
        }
    } else {
        for (; c->depth; c->depth--)
            checked(pthread_mutex_unlock(&c->mutex), "unlock");
        end(c->waiter);
        c->waiting = 0;
    }
    service_answer("mutex %d depth %d waiting %d got %ld again %ld foreign %ld try %ld", kind, c->depth, c->waiting, c->got,
                   again, foreign, end(begin(try_it, c)));
}

/* --- robust: the owner is gone ------------------------------------------------------------------------ */

static pthread_mutex_t robust;
static pthread_t owner;
static sem_t owner_go, owner_has;
static int owned, recovered;

static void *own_and_go(void *unused)
{
    (void)unused;
    checked(pthread_mutex_lock(&robust), "robust");
    sem_post(&owner_has);
    while (sem_wait(&owner_go))
        ;
    return NULL;
}

static void robust_step(void)
{
    int r = 0;
    if (!owned) {
        owner = begin(own_and_go, NULL);
        while (sem_wait(&owner_has))
            ;
        r = pthread_mutex_trylock(&robust);
    } else {
        sem_post(&owner_go);
        end(owner);
        r = pthread_mutex_lock(&robust);
        if (r == EOWNERDEAD)
            recovered += !pthread_mutex_consistent(&robust);
        checked(pthread_mutex_unlock(&robust), "robust unlock");
    }
    owned = !owned;
    service_answer("robust %d: %s, recovered %d", owned, strerrorname_np(r) ? strerrorname_np(r) : "0", recovered);
}

/* --- rwlock ---------------------------------------------------------------------------------------------- */

static pthread_rwlock_t rwlock = PTHREAD_RWLOCK_INITIALIZER;
static pthread_t writer, reader;
static int rw_phase;
static long written;

static void *write_it(void *unused)
{
    (void)unused;
    checked(pthread_rwlock_wrlock(&rwlock), "wrlock");
    long result = ++written;
    checked(pthread_rwlock_unlock(&rwlock), "unlock");
    return (void *)result;
}

static void *read_it(void *unused)
{
    (void)unused;
    checked(pthread_rwlock_rdlock(&rwlock), "rdlock");
    long result = written;
    checked(pthread_rwlock_unlock(&rwlock), "unlock");
    return (void *)result;
}

static void rwlock_step(void)
{
    long seen = -1;
    switch (rw_phase) {
    case 0:
        checked(pthread_rwlock_rdlock(&rwlock), "rdlock");
        seen = end(begin(read_it, NULL));
        break;
    case 1:
        writer = begin(write_it, NULL);
        break;
    case 2:
        checked(pthread_rwlock_unlock(&rwlock), "unlock");
        seen = end(writer);
        break;
    case 3:
        checked(pthread_rwlock_wrlock(&rwlock), "wrlock");
        reader = begin(read_it, NULL);
        break;
    case 4:
        written += 100;
        checked(pthread_rwlock_unlock(&rwlock), "unlock");
        seen = end(reader);
        break;
    }
    rw_phase = (rw_phase + 1) % 5;
    service_answer("rwlock %d written %ld seen %ld", rw_phase, rw_phase == 2 ? -1 : written, seen);
}

/* --- barrier: three meet, one command each ------------------------------------------------------------- */

static pthread_barrier_t barrier;
static pthread_t arrived[2];
static int arrivals;
static long serials, meetings;

static void *arrive(void *unused)
{
    (void)unused;
    return (void *)(long)(pthread_barrier_wait(&barrier) == PTHREAD_BARRIER_SERIAL_THREAD);
}

static void barrier_step(void)
{
    if (arrivals < 2) {
        arrived[arrivals++] = begin(arrive, NULL);
    } else {
        serials += (long)arrive(NULL) + end(arrived[0]) + end(arrived[1]);
        meetings++;
        arrivals = 0;
    }
    service_answer("barrier %d met %ld serials %ld", arrivals, meetings, serials);
}

/* --- workers: condition variable, semaphore, TSD and __thread tallies ------------------------------- */

enum { WORKERS = 3 };
static pthread_mutex_t jobs_mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t jobs_come = PTHREAD_COND_INITIALIZER, jobs_done = PTHREAD_COND_INITIALIZER;
static long job[WORKERS], done[WORKERS]; /* how many were asked for, how many are done */
static sem_t taken;
static pthread_key_t key;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static _Atomic long destroyed, prepared;
static __thread long tally;

static void destroy(void *value)
{
    destroyed += *(long *)value > 0;
    free(value);
}

static void prepare(void)
{
    prepared++;
    checked(pthread_key_create(&key, destroy), "pthread_key_create");
}

static long count_in_tsd(void)
{
    pthread_once(&once, prepare);
    long *mine = pthread_getspecific(key);
    if (!mine) {
        mine = calloc(1, sizeof *mine);
        pthread_setspecific(key, mine);
    }
    return ++*mine;
}

static void *work(void *argument)
{
    long me = (long)argument;
    pthread_mutex_lock(&jobs_mutex);
    for (;;) {
        while (done[me] == job[me])
            pthread_cond_wait(&jobs_come, &jobs_mutex);
        tally++;
        if (count_in_tsd() != tally)
            errx(1, "worker %ld: TSD and __thread differ", me);
        sem_post(&taken);
        done[me] = tally;
        pthread_cond_broadcast(&jobs_done);
    }
    return NULL;
}

static void worker_step(unsigned long number)
{
    int me = (int)(number % WORKERS), left;
    pthread_mutex_lock(&jobs_mutex);
    job[me]++;
    pthread_cond_broadcast(&jobs_come);
    while (done[me] != job[me])
        pthread_cond_wait(&jobs_done, &jobs_mutex);
    pthread_mutex_unlock(&jobs_mutex);
    while (number % 3 == 0 && sem_trywait(&taken) == 0)
        ;
    sem_getvalue(&taken, &left);
    service_answer("worker %d done %ld taken %d prepared %ld", me, done[me], left, prepared);
}

static void *short_life(void *argument)
{
    count_in_tsd();
    if (argument)
        sem_post(argument);
    return NULL;
}

/* --- time-outs, cancellation, detached threads --------------------------------------------------------- */

static void timeout_step(void)
{
    static sem_t never;
    struct timespec at;
    clock_gettime(CLOCK_REALTIME, &at);
    at.tv_nsec += 3000000;
    at.tv_sec += at.tv_nsec / 1000000000;
    at.tv_nsec %= 1000000000;
    int semaphore = sem_timedwait(&never, &at) ? errno : 0;
    pthread_mutex_lock(&jobs_mutex);
    static pthread_cond_t nothing = PTHREAD_COND_INITIALIZER;
    int condition = pthread_cond_timedwait(&nothing, &jobs_mutex, &at);
    pthread_mutex_unlock(&jobs_mutex);
    service_answer("timeout %d %d", semaphore == ETIMEDOUT, condition == ETIMEDOUT);
}

static pthread_t victim;
static int victim_lives;
static long cleaned;
static sem_t victim_ready;

static void clean(void *argument)
{
    cleaned += (long)argument;
}

static void *wait_for_ever(void *how)
{
    pthread_cleanup_push(clean, (void *)1L);
    pthread_cleanup_push(clean, (void *)10L);
    sem_post(&victim_ready);
    static sem_t never;
    if (how)
        sem_wait(&never);
    for (;;)
        nanosleep(&(struct timespec){1000, 0}, NULL);
    pthread_cleanup_pop(0);
    pthread_cleanup_pop(0);
    return NULL;
}

static void cancel_step(unsigned long number)
{
    long cancelled = -1;
    if (!victim_lives) {
        victim = begin(wait_for_ever, (void *)(number % 2));
        while (sem_wait(&victim_ready))
            ;
    } else {
        checked(pthread_cancel(victim), "pthread_cancel");
        cancelled = end(victim) == (long)PTHREAD_CANCELED;
    }
    victim_lives = !victim_lives;
    service_answer("cancel %d cancelled %ld cleaned %ld", victim_lives, cancelled, cleaned);
}

static void detach_step(void)
{
    static sem_t gone;
    pthread_attr_t a;
    pthread_t thread;
    pthread_attr_init(&a);
    pthread_attr_setdetachstate(&a, PTHREAD_CREATE_DETACHED);
    checked(pthread_create(&thread, &a, short_life, &gone), "pthread_create");
    while (sem_wait(&gone))
        ;
    end(begin(short_life, NULL));
    service_answer("detached, prepared %ld", prepared);
}

/* --- threads that begin and end all the time, whoever commits meanwhile ---------------------------------- */

static _Atomic long births[2];
static _Atomic bool misborn;

static void *be_brief(void *argument)
{
    count_in_tsd();
    return argument;
}

static void *breed(void *argument)
{
    long me = (long)argument;
    for (long n = 1;; n++) {
        pthread_t joined = begin(be_brief, (void *)n), detached = begin(be_brief, NULL);
        checked(pthread_detach(detached), "pthread_detach");
        if (end(joined) != n)
            misborn = true;
        births[me] = n;
        usleep(n % 4 * 300);
    }
    return NULL;
}

static void breed_step(void)
{
    static bool begun;
    if (!begun)
        for (long i = 0; i < 2; i++)
            checked(pthread_detach(begin(breed, (void *)i)), "pthread_detach");
    begun = true;
    for (int i = 0; i < 2; i++)
        for (long before = births[i]; births[i] < before + 2;)
            usleep(500);
    service_answer("bred %s", misborn ? "wrong" : "right");
}

/* --- a pipe that is full until another thread reads --------------------------------------------------- */

enum { PIECES = 900, PIECE = 211 };

static void *drain(void *argument)
{
    unsigned char bytes[1000];
    long sum = 0, left = (long)PIECES * PIECE;
    while (left > 0) {
        ssize_t n = read(*(int *)argument, bytes, left < 1000 ? (size_t)left : sizeof bytes);
        if (n <= 0)
            err(1, "read");
        for (ssize_t i = 0; i < n; i++)
            sum = (sum * 31 + bytes[i]) % 1000003;
        left -= n;
    }
    return (void *)sum;
}

static void pipe_step(unsigned long number)
{
    static int ends[2] = {-1, -1};
    static unsigned char bytes[PIECES * PIECE];
    static struct iovec v[PIECES];
    if (ends[0] < 0 && pipe(ends))
        err(1, "pipe");
    for (int i = 0; i < PIECES * PIECE; i++)
        bytes[i] = (unsigned char)(number + (unsigned)i * 7);
    for (int i = 0; i < PIECES; i++)
        v[i] = (struct iovec){bytes + i * PIECE, PIECE};
    pthread_t other = begin(drain, &ends[0]);
    ssize_t n = number % 2 ? writev(ends[1], v, PIECES) : write(ends[1], bytes, sizeof bytes);
    service_answer("pipe took %zd, sum %ld", n, end(other));
}

/* The clocks of CPU time name a thread and the process by their numbers. A timer on one rings while the thread works. */
static void clock_step(void)
{
    static clockid_t thread, process;
    static timer_t watchdog;
    static bool made;
    struct timespec now, resolution;
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGRTMIN};
    struct itimerspec soon = {.it_value.tv_nsec = 1000000}, off = {{0}, {0}};
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    event._sigev_un._tid = gettid();
    if (!made) {
        checked(pthread_getcpuclockid(pthread_self(), &thread), "pthread_getcpuclockid");
        checked(clock_getcpuclockid(getpid(), &process), "clock_getcpuclockid");
        if (timer_create(thread, &event, &watchdog))
            err(1, "timer_create");
        made = true;
    }
    if (clock_gettime(thread, &now) || clock_gettime(process, &now) || clock_getres(thread, &resolution) ||
        timer_settime(watchdog, 0, &soon, NULL))
        err(1, "a clock of CPU time");
    struct timespec none = {0, 0};
    long rang = 0;
    for (unsigned long turns = 0; !rang && turns < 1000000000; turns++)
        rang = turns % 1000 == 0 && sigtimedwait(&set, NULL, &none) == SIGRTMIN;
    timer_settime(watchdog, 0, &off, NULL);
    service_answer("rang %ld", rang);
}

/* --- a timer that rings in a thread of its own: armed by one step, heard by the next -------------------- */

static atomic_int rings;

static void ring(union sigval value)
{
    rings++;
}

static void timer_step(void)
{
    static timer_t timer;
    static bool made, armed;
    struct sigevent event = {.sigev_notify = SIGEV_THREAD, .sigev_notify_function = ring};
    struct itimerspec often = {{0, 30000000}, {0, 30000000}}, off = {{0, 0}, {0, 0}};
    if (!made && timer_create(CLOCK_MONOTONIC, &event, &timer))
        err(1, "timer_create");
    made = true;
    for (int before = rings; armed && rings == before;)
        usleep(2000);
    armed = !armed;
    if (timer_settime(timer, 0, armed ? &often : &off, NULL))
        err(1, "timer_settime");
    service_answer("timer %s", armed ? "armed" : "heard");
}

int main(int argc, char **argv)
{
    if (argc != 2)
        errx(2, "usage: pthread_kinds PORT");
    static const int types[] = {PTHREAD_MUTEX_NORMAL, PTHREAD_MUTEX_RECURSIVE, PTHREAD_MUTEX_ERRORCHECK, PTHREAD_MUTEX_NORMAL};
    for (int i = 0; i < 4; i++)
        contests[i].mutex = mutex_of(types[i], PTHREAD_MUTEX_STALLED, i == 3 ? PTHREAD_PRIO_INHERIT : PTHREAD_PRIO_NONE);
    robust = mutex_of(PTHREAD_MUTEX_NORMAL, PTHREAD_MUTEX_ROBUST, PTHREAD_PRIO_NONE);
    checked(pthread_barrier_init(&barrier, NULL, 3), "pthread_barrier_init");
    for (long i = 0; i < WORKERS; i++)
        pthread_detach(begin(work, (void *)i));
    service_open(atoi(argv[1]));
    for (;;) {
        char *command = service_next();
        unsigned long number = service.number;
        int kind;
        if (sscanf(command, "mutex %d", &kind) == 1)
            contest_step(&contests[kind & 3], kind & 3);
        else if (!strcmp(command, "robust"))
            robust_step();
        else if (!strcmp(command, "rwlock"))
            rwlock_step();
        else if (!strcmp(command, "barrier"))
            barrier_step();
        else if (!strcmp(command, "worker"))
            worker_step(number);
        else if (!strcmp(command, "timeout"))
            timeout_step();
        else if (!strcmp(command, "cancel"))
            cancel_step(number);
        else if (!strcmp(command, "detach"))
            detach_step();
        else if (!strcmp(command, "pipe"))
            pipe_step(number);
        else if (!strcmp(command, "clock"))
            clock_step();
        else if (!strcmp(command, "timer"))
            timer_step();
        else if (!strcmp(command, "breed"))
            breed_step();
        else
            service_answer("what is %s?", command);
    }
}
