/* Every way to allocate, from several threads, each block with a pattern that is checked: malloc_kinds PORT
 *
 * `step <seed>` makes some dozen moves on the blocks of each thread; the answer is a checksum of what is live. The threads
 * live on between the commands, and blocks wander from one to the next, so that frees meet other threads' memory. */
#define _GNU_SOURCE
#include "service.h"

#include <malloc.h>
#include <pthread.h>
#include <stdint.h>

enum { THREADS = 3, BLOCKS = 100, MOVES = 60 };

struct block {
    unsigned char *at;
    size_t bytes;
    unsigned char fill;
};

static struct block blocks[THREADS][BLOCKS];
static pthread_barrier_t start, finish;
static uint64_t seed;
static unsigned long sums[THREADS];

static uint64_t draw(uint64_t *s)
{
    *s ^= *s << 13;
    *s ^= *s >> 7;
    return *s ^= *s << 17;
}

static void demand(int holds, const char *what, const struct block *b)
{
    if (!holds)
        errx(1, "%s: block %p of %zu bytes", what, (void *)b->at, b->bytes);
}

static void check_block(const struct block *b, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        demand(b->at[i] == b->fill, "contents", b);
}

static void fill_block(struct block *b)
{
    demand(b->at != NULL, "no memory", b);
    demand(malloc_usable_size(b->at) >= b->bytes, "usable size", b);
    memset(b->at, b->fill, b->bytes);
}

static size_t draw_bytes(uint64_t *s)
{
    uint64_t r = draw(s);
    return r % 256 == 0 ? r / 256 % 3000000 : r % 8 == 0 ? r / 64 % 40000 : r / 64 % 600;
}

static void take(struct block *b, uint64_t *s)
{
    uint64_t way = draw(s) % 8;
    size_t alignment = (size_t)1 << (4 + draw(s) % 12);
    b->bytes = draw_bytes(s);
    b->fill = (unsigned char)(draw(s) | 1);
    switch (way) {
    case 0:
        b->at = calloc(b->bytes / 8 + 1, 8);
        for (size_t i = 0; i < b->bytes; i++)
            demand(b->at[i] == 0, "calloc", b);
        break;
    case 1:
        b->at = memalign(alignment, b->bytes);
        demand((uintptr_t)b->at % alignment == 0, "memalign", b);
        break;
    case 2:
        if (posix_memalign((void **)&b->at, alignment, b->bytes))
            b->at = NULL;
        demand((uintptr_t)b->at % alignment == 0, "posix_memalign", b);
        break;
    case 3:
        b->bytes = (b->bytes + alignment - 1) & -alignment;
        b->at = aligned_alloc(alignment, b->bytes);
        demand((uintptr_t)b->at % alignment == 0, "aligned_alloc", b);
        break;
    case 4:
        b->at = reallocarray(NULL, b->bytes / 4 + 1, 4);
        break;
    case 5:
        b->at = valloc(b->bytes);
        demand((uintptr_t)b->at % 4096 == 0, "valloc", b);
        break;
    default:
        b->at = malloc(b->bytes);
        demand((uintptr_t)b->at % 16 == 0, "malloc", b);
    }
    fill_block(b);
}

static void change(struct block *b, uint64_t *s)
{
    size_t bytes = draw_bytes(s) + 1, kept = bytes < b->bytes ? bytes : b->bytes;
    b->at = realloc(b->at, bytes);
    check_block(b, kept);
    b->bytes = bytes;
    fill_block(b);
}

static void move_block(int me, uint64_t *s)
{
    struct block *b = &blocks[me][draw(s) % BLOCKS];
    if (!b->at) {
        take(b, s);
    } else if (draw(s) % 3 == 0) {
        change(b, s);
    } else {
        check_block(b, b->bytes);
        free(b->at);
        *b = (struct block){0};
    }
}

static void *serve(void *argument)
{
    long me = (long)argument;
    for (;;) {
        pthread_barrier_wait(&start);
        uint64_t s = seed + (uint64_t)me * 977 + 1;
        for (int i = 0; i < MOVES; i++)
            move_block((int)me, &s);
        sums[me] = 0;
        for (int i = 0; i < BLOCKS; i++) {
            const struct block *b = &blocks[me][i];
            check_block(b, b->bytes);
            sums[me] = sums[me] * 31 + b->bytes * 7 + b->fill;
        }
        pthread_barrier_wait(&finish);
    }
    return NULL;
}

/* Each thread gets the blocks of the one before. */
static void rotate(void)
{
    static struct block last[BLOCKS];
    memcpy(last, blocks[THREADS - 1], sizeof last);
    memmove(blocks[1], blocks[0], sizeof last * (THREADS - 1));
    memcpy(blocks[0], last, sizeof last);
}

/* What must fail, fails, and leaves errno. */
static const char *refusals(void)
{
    volatile size_t huge = SIZE_MAX / 2 + 8;
    void *p = NULL;
    errno = 0;
    if (malloc(huge) || errno != ENOMEM)
        return "malloc";
    if (calloc(huge, 4))
        return "calloc";
    if (reallocarray(NULL, huge, 4))
        return "reallocarray";
    if (posix_memalign(&p, 3, 8) != EINVAL)
        return "posix_memalign";
    free(NULL);
    void *zero = malloc(0), *other = malloc(0);
    int distinct = zero && other && zero != other;
    free(zero);
    free(other);
    return distinct ? "none" : "malloc(0)";
}

int main(int argc, char **argv)
{
    if (argc != 2)
        errx(2, "usage: malloc_kinds PORT");
    pthread_barrier_init(&start, NULL, THREADS + 1);
    pthread_barrier_init(&finish, NULL, THREADS + 1);
    for (long i = 0; i < THREADS; i++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, serve, (void *)i))
            errx(1, "pthread_create");
    }
    service_open(atoi(argv[1]));
    for (;;) {
        unsigned long number;
        if (sscanf(service_next(), "step %lu", &number) != 1) {
            service_answer("refused: %s", refusals());
            continue;
        }
        seed = number * 6364136223846793005u + 1442695040888963407u;
        pthread_barrier_wait(&start);
        pthread_barrier_wait(&finish);
        service_answer("%lx %lx %lx", sums[0], sums[1], sums[2]);
        rotate();
    }
}
