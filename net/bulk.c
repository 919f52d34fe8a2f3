#include "net/bulk.h"
#include "net/host.h"
#include "net/pool.h"
#include "heap/fault.h"

#define BLOCKS 2048u  /* 64 MiB */
#define STEP 32u      /* blocks that are made usable at once */

static struct {
    char *base;
    uint32_t ready, used; /* blocks: may be written; were ever taken */
    uint32_t free, leaving;
    uint16_t stack[BLOCKS]; /* [0, free): to be taken, the last first; from the end on, `leaving` of them: when the turn is durable */
} bulk;

static char *block_at(uint32_t n)
{
    return bulk.base + (size_t)n * BULK_BLOCK;
}

static bool open_more(void)
{
    if (!bulk.base) {
        if (!(bulk.base = pool_reserve((size_t)BLOCKS * BULK_BLOCK)))
            return false;
        session_loose_claim(bulk.base, (size_t)BLOCKS * BULK_BLOCK);
    }
    if (bulk.used == BLOCKS)
        return false;
    if (bulk.used < bulk.ready)
        return true;
    if (pool_open(block_at(bulk.ready), (size_t)STEP * BULK_BLOCK) < 0)
        return false;
    bulk.ready += STEP;
    return true;
}

void *bulk_take(void)
{
    if (bulk.free)
        return block_at(bulk.stack[--bulk.free]);
    return open_more() ? block_at(bulk.used++) : NULL;
}

bool bulk_write(void *at, size_t bytes)
{
    return session_loose_write(at, bytes);
}

bool bulk_holds(const void *at)
{
    return bulk.base && (const char *)at >= bulk.base && (const char *)at < bulk.base + (size_t)BLOCKS * BULK_BLOCK;
}

void bulk_give(void *block)
{
    uint16_t n = (uint16_t)(((char *)block - bulk.base) / BULK_BLOCK);
    if (MUTANT("bulk.taken_early", true, false))
        bulk.stack[bulk.free++] = n;
    else
        bulk.stack[BLOCKS - ++bulk.leaving] = n;
}

void bulk_committed(void)
{
    while (bulk.leaving) {
        uint16_t n = bulk.stack[BLOCKS - bulk.leaving--];
        session_loose_give_up(block_at(n), BULK_BLOCK);
        bulk.stack[bulk.free++] = n;
    }
}

void bulk_span(uintptr_t *start, uintptr_t *end)
{
    *start = (uintptr_t)bulk.base;
    *end = *start + (size_t)bulk.used * BULK_BLOCK;
}
