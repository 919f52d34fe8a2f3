#include "net/pool.h"
#include "net/host.h"
#include "net/trouble.h"
#include "heap/sys.h"

#include <string.h>
#include <sys/mman.h>

#define POOL_BYTES (512UL << 20)
#define STEP (64UL << 10) /* how far the high-water mark moves at least */
#define CLASSES 60        /* 16, 32, 48, 64, 80, 96, 112, 128, 160 ... 1 MiB */

struct block {
    uint32_t class;
    uint32_t taken;
    struct block *next; /* of the free list; the block's own bytes begin at 16 */
};

_Static_assert(sizeof(struct block) == POOL_COST, "a block's head");

static struct {
    char *base;
    size_t used, ready;
    struct block *free[CLASSES];
} pool;

/* EAGAIN is said to who may lock no more memory (mlockall). */
static long memory(long r)
{
    return trouble_none(r == -EAGAIN ? -ENOMEM : r, "get memory");
}

void *pool_reserve(size_t bytes)
{
    long at = sys(SYS_mmap, 0, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (sys_failed(memory(at)))
        return NULL;
    session_layout_changed();
    return (void *)at;
}

int pool_open(void *at, size_t bytes)
{
    /* A program that is told of it would mostly not look: its output would be missing, and it would be true for good. */
    long r = memory(sys(SYS_mprotect, at, bytes, PROT_READ | PROT_WRITE));
    session_layout_changed();
    return (int)r;
}

static struct block *carve(size_t bytes)
{
    if (!pool.base && !(pool.base = pool_reserve(POOL_BYTES)))
        return NULL;
    if (pool.used + bytes > POOL_BYTES)
        return NULL;
    while (pool.used + bytes > pool.ready) {
        size_t step = bytes > STEP ? bytes : STEP;
        if (pool.ready + step > POOL_BYTES)
            step = POOL_BYTES - pool.ready;
        if (pool_open(pool.base + pool.ready, step) < 0)
            return NULL;
        pool.ready += step;
    }
    struct block *b = (struct block *)(pool.base + pool.used);
    pool.used += bytes;
    return b;
}

/* The class of blocks of at least that length, 1 to 1 MiB, and how long they are. */
static uint32_t class_of(size_t bytes, size_t *length)
{
    unsigned top = 63 - (unsigned)__builtin_clzl((bytes - 1) | 1), shift = top > 6 ? top - 2 : 4;
    size_t quarter = (bytes - 1) >> shift;
    *length = (quarter + 1) << shift;
    return (uint32_t)((shift - 4) * 4 + quarter);
}

void *pool_take(size_t bytes)
{
    size_t length;
    if (bytes > POOL_BLOCK_MAX)
        return NULL;
    uint32_t class = class_of(bytes + sizeof(struct block), &length);
    struct block *b = pool.free[class];
    if (b)
        pool.free[class] = b->next;
    else if (!(b = carve(length)))
        return NULL;
    *b = (struct block){.class = class, .taken = 1};
    return b + 1;
}

size_t pool_room(void)
{
    return POOL_BYTES - pool.used;
}

void pool_span(uintptr_t *start, uintptr_t *end)
{
    *start = (uintptr_t)pool.base;
    *end = *start + pool.ready;
}

void *pool_copy(const void *from, size_t bytes)
{
    void *at = pool_take(bytes);
    return at ? memcpy(at, from, bytes) : NULL;
}

void pool_give(void *at)
{
    if (!at)
        return;
    struct block *b = (struct block *)at - 1;
    if (!b->taken)
        return;
    b->taken = 0;
    b->next = pool.free[b->class];
    pool.free[b->class] = b;
}
