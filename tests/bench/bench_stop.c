/* How long it takes to stop eight threads: bench_stop KIND TURNS STORE|PAUSE; KIND: compute, sleep, mixed
 *
 * With STORE, a path, it runs under libken: each turn says something to the outside and ends, and libken's own figures are read
 * from its memory. With PAUSE the same threads are stopped by signals alone, as simply as it can be done, each time after so many
 * microseconds: how long they have run counts for much where there are more than there are processors. Prints the median, the
 * 90th percentile and the longest, in microseconds, and how far apart the stops were. */
#define _GNU_SOURCE
#include "heap/layout.h"
#include "heap/session.h"
#include "heap/sys.h"

#include <arpa/inet.h>
#include <err.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

enum { THREADS = 8, MOST = 10000 };

static pid_t tids[THREADS];
static sem_t begun, never;
static uint32_t stopped, go;
static volatile unsigned long work[THREADS][512];

static double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static void futex_call(uint32_t *word, int operation, uint32_t value)
{
    syscall(SYS_futex, word, operation | FUTEX_PRIVATE_FLAG, value, NULL, NULL, 0);
}

static void stand_still(int number)
{
    (void)number;
    uint32_t seen = __atomic_load_n(&go, __ATOMIC_ACQUIRE);
    if (__atomic_add_fetch(&stopped, 1, __ATOMIC_RELEASE) == THREADS)
        futex_call(&stopped, FUTEX_WAKE, 1);
    while (__atomic_load_n(&go, __ATOMIC_ACQUIRE) == seen)
        futex_call(&go, FUTEX_WAIT, seen);
}

static void *compute(void *argument)
{
    long me = (long)argument;
    tids[me] = gettid();
    sem_post(&begun);
    for (unsigned long n = 1;; n = n * 6364136223846793005UL + 1442695040888963407UL)
        work[me][n >> 55] += n;
    return NULL;
}

static void *rest(void *argument)
{
    long me = (long)argument;
    tids[me] = gettid();
    sem_post(&begun);
    for (;;) {
        if (me % 2)
            sem_wait(&never);
        else
            poll(NULL, 0, -1);
    }
    return NULL;
}

static double stop_by_signals(void)
{
    double from = now_us();
    stopped = 0;
    for (int i = 0; i < THREADS; i++)
        syscall(SYS_tgkill, getpid(), tids[i], SIGUSR1);
    for (uint32_t have; (have = __atomic_load_n(&stopped, __ATOMIC_ACQUIRE)) < THREADS;)
        futex_call(&stopped, FUTEX_WAIT, have);
    double took = now_us() - from;
    __atomic_add_fetch(&go, 1, __ATOMIC_RELEASE);
    futex_call(&go, FUTEX_WAKE, THREADS);
    return took;
}

static void turn(void)
{
    static int out = -1;
    struct sockaddr_in nobody = {.sin_family = AF_INET, .sin_port = htons(9), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (out < 0)
        out = socket(AF_INET, SOCK_DGRAM, 0);
    sendto(out, "x", 1, 0, (void *)&nobody, sizeof nobody);
    usleep(200);
}

/* The session is the first thing in the window. */
static const struct session *session_of(const char *store)
{
    char path[4096];
    struct super super;
    snprintf(path, sizeof path, "%s/super", store);
    int fd = open(path, O_RDONLY);
    if (fd < 0 || read(fd, &super, sizeof super) != sizeof super)
        err(1, "%s", path);
    close(fd);
    return (const struct session *)(super.window_base + PAGE_BYTES);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void print(double *took, int count, double apart)
{
    qsort(took, (size_t)count, sizeof *took, compare);
    printf("%.1f %.1f %.1f %.0f\n", took[count / 2], took[count * 9 / 10], took[count - 1], apart);
}

int main(int argc, char **argv)
{
    static double took[MOST];
    int turns = argc > 2 ? atoi(argv[2]) : 0;
    if (argc != 4 || turns < 1 || turns > MOST)
        errx(2, "usage: bench_stop compute|sleep|mixed TURNS STORE|PAUSE");
    sem_init(&begun, 0, 0);
    sem_init(&never, 0, 0);
    struct sigaction action = {.sa_handler = stand_still, .sa_flags = SA_RESTART};
    sigaction(SIGUSR1, &action, NULL);
    for (long i = 0; i < THREADS; i++) {
        pthread_t thread;
        bool computes = argv[1][0] == 'c' || (argv[1][0] == 'm' && i % 4 < 2);
        if (pthread_create(&thread, NULL, computes ? compute : rest, (void *)i))
            errx(1, "no thread");
        while (sem_wait(&begun))
            ;
    }
    usleep(20000);
    double from = now_us();
    if (argv[3][0] != '/') {
        for (int i = 0; i < turns; i++) {
            usleep((useconds_t)atoi(argv[3]));
            took[i] = stop_by_signals();
        }
        print(took, turns, (now_us() - from) / turns);
        return 0;
    }
    uint64_t ticks = __rdtsc();
    const struct session *s = session_of(argv[3]);
    int count = 0;
    while (count < turns) {
        uint64_t before = s->stops;
        turn();
        for (uint64_t n = before; n < s->stops && count < turns; n++)
            took[count++] = s->stop_ticks[n % SESSION_STOPS];
    }
    double all = now_us() - from, per_us = (double)(__rdtsc() - ticks) / all;
    for (int i = 0; i < count; i++)
        took[i] /= per_us;
    print(took, count, all / count);
    return 0;
}
