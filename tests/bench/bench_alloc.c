/* Allocator workloads, one a run; an ordinary program, so that any allocator can be preloaded.
 *
 *     bench_alloc WORKLOAD     prints: CPU nanoseconds per operation, resident KiB at the end
 *
 * An operation is one malloc and one free (or one realloc).
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static uint64_t draw(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    return *seed ^= *seed << 17;
}

/* CPU time of all threads: other load on the machine counts less than by the wall clock. */
static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void *touched(size_t bytes)
{
    char *p = malloc(bytes);
    if (!p)
        abort();
    p[0] = 1;
    return p;
}

/* One object of 64 bytes at a time. */
static long fixed(void)
{
    const long rounds = 20000000;
    for (long i = 0; i < rounds; i++) {
        void *p = touched(64);
        __asm__ volatile("" : : "r"(p) : "memory");
        free(p);
    }
    return rounds;
}

/* 256 live objects of 16 to 256 bytes. */
static long churn(void)
{
    const long rounds = 10000000;
    void *live[256] = {0};
    uint64_t seed = 42;
    for (long i = 0; i < rounds; i++) {
        uint64_t r = draw(&seed);
        void **slot = &live[r % 256];
        free(*slot);
        *slot = touched(16 + (r >> 32) % 241);
    }
    return rounds;
}

static long replace(long rounds, int whole)
{
    enum { LIVE = 100000 };
    void **live = calloc(LIVE, sizeof *live);
    uint64_t seed = 4711;
    for (long i = 0; i < LIVE + rounds; i++) {
        uint64_t r = draw(&seed);
        size_t bytes = 16 + (r >> 32) % 4081;
        void **slot = &live[i < LIVE ? i : (long)(r % LIVE)];
        free(*slot);
        *slot = touched(bytes);
        if (whole)
            memset(*slot, 1, bytes);
    }
    return LIVE + rounds;
}

static long random_sizes(void)
{
    return replace(2000000, 0);
}

/* The same with every byte written: what is resident in the end is the figure. */
static long resident(void)
{
    return replace(1000000, 1);
}

enum { LARSON_LIVE = 1000, LARSON_ROUNDS = 100000, LARSON_GENERATIONS = 30 };

struct larson {
    void *live[LARSON_LIVE];
    uint64_t seed;
};

/* Each generation is a new thread that frees what the one before it allocated. */
static void *larson_thread(void *argument)
{
    struct larson *l = argument;
    for (long i = 0; i < LARSON_ROUNDS; i++) {
        uint64_t r = draw(&l->seed);
        void **slot = &l->live[r % LARSON_LIVE];
        free(*slot);
        *slot = touched(10 + (r >> 32) % 490);
    }
    return NULL;
}

static void *larson_chain(void *argument)
{
    for (int i = 0; i < LARSON_GENERATIONS; i++) {
        pthread_t thread;
        pthread_create(&thread, NULL, larson_thread, argument);
        pthread_join(thread, NULL);
    }
    return NULL;
}

static long larson(int chains)
{
    static struct larson l[2];
    pthread_t thread[2];
    for (int i = 0; i < chains; i++) {
        l[i].seed = 99 + (uint64_t)i;
        pthread_create(&thread[i], NULL, larson_chain, &l[i]);
    }
    for (int i = 0; i < chains; i++)
        pthread_join(thread[i], NULL);
    return (long)LARSON_ROUNDS * LARSON_GENERATIONS;
}

static long larson1(void)
{
    return larson(1);
}

static long larson2(void)
{
    return larson(2);
}

/* `count` buffers grow side by side from 16 bytes to 1 MiB in steps of 48. */
static long grow(int count, int times)
{
    long operations = 0;
    for (int k = 0; k < times; k++) {
        char *buffer[8] = {0};
        for (size_t bytes = 16; bytes < 1 << 20; bytes += 48)
            for (int i = 0; i < count; i++, operations++) {
                buffer[i] = realloc(buffer[i], bytes);
                buffer[i][bytes - 1] = 1;
            }
        for (int i = 0; i < count; i++)
            free(buffer[i]);
    }
    return operations;
}

static long realloc1(void)
{
    return grow(1, 40);
}

static long realloc8(void)
{
    return grow(8, 5);
}

/* One process that produces what another thread frees. */
static void *_Atomic ring[1024];

static void *consumer(void *unused)
{
    (void)unused;
    for (;;)
        for (int i = 0; i < 1024; i++) {
            void *p;
            while (!(p = __atomic_exchange_n((void **)&ring[i], NULL, __ATOMIC_ACQ_REL)))
                ;
            if (p == (void *)ring)
                return NULL;
            free(p);
        }
}

static long handover(void)
{
    const long rounds = 3000000;
    pthread_t thread;
    pthread_create(&thread, NULL, consumer, NULL);
    for (long i = 0; i <= rounds; i++) {
        void *p = i < rounds ? touched(64) : (void *)ring;
        while (__atomic_load_n(&ring[i % 1024], __ATOMIC_ACQUIRE))
            ;
        __atomic_store_n(&ring[i % 1024], p, __ATOMIC_RELEASE);
    }
    pthread_join(thread, NULL);
    return rounds;
}

static long resident_kib(void)
{
    char text[128] = {0};
    int fd = open("/proc/self/statm", O_RDONLY);
    long size = 0, pages = 0;
    if (fd >= 0 && read(fd, text, sizeof text - 1) > 0)
        sscanf(text, "%ld %ld", &size, &pages);
    close(fd);
    return pages * 4;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        long (*run)(void);
    } workloads[] = {
        {"fixed", fixed},       {"churn", churn},       {"random", random_sizes},
        {"resident", resident}, {"larson1", larson1},   {"larson2", larson2},
        {"realloc1", realloc1}, {"realloc8", realloc8}, {"handover", handover},
    };
    for (unsigned i = 0; argc == 2 && i < sizeof workloads / sizeof *workloads; i++)
        if (!strcmp(argv[1], workloads[i].name)) {
            double start = now();
            long operations = workloads[i].run();
            double elapsed = now() - start;
            printf("%.2f %ld\n", elapsed / (double)operations, resident_kib());
            return 0;
        }
    fprintf(stderr, "usage: bench_alloc WORKLOAD\n");
    return 2;
}
