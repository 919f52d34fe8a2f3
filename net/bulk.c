#include "net/bulk.h"
#include "net/host.h"
#include "net/pool.h"
#include "heap/fault.h"
#include "heap/sys.h"

#include <sys/mman.h>

#define BLOCKS 2048u  /* 64 MiB */
#define HUGE_PAGE (2UL << 20)
#define STEP (HUGE_PAGE / BULK_BLOCK) /* blocks that are made usable at once */

static struct {
    char *base;
    uint32_t ready, used; /* blocks: may be written; were ever taken */
    uint32_t free, leaving;
    uint64_t lent[BLOCKS / 64], recalled[BLOCKS / 64]; /* a bit for each block */
    uint16_t stack[BLOCKS]; /* [0, free): to be taken, the last first; from the end on, `leaving` of them: when the turn is durable */
} bulk;

static char *block_at(uint32_t n)
{
    return bulk.base + (size_t)n * BULK_BLOCK;
}

static uint16_t number_of(const void *at)
{
    return (uint16_t)((size_t)((const char *)at - bulk.base) / BULK_BLOCK);
}

static bool reserve(void)
{
    char *at = pool_reserve(BLOCKS * BULK_BLOCK + HUGE_PAGE);
    if (!at)
        return false;
    bulk.base = (char *)(((uintptr_t)at + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1));
    session_loose_claim(bulk.base, BLOCKS * BULK_BLOCK);
    return true;
}

static bool open_more(void)
{
    if (bulk.used == BLOCKS || (!bulk.base && !reserve()))
        return false;
    if (bulk.used < bulk.ready)
        return true;
    if (pool_open(block_at(bulk.ready), HUGE_PAGE) < 0)
        return false;
    /* A disk reads pages that adjoin in a third less time; where there is no huge page it has to do with small ones. */
    sys(SYS_madvise, block_at(bulk.ready), HUGE_PAGE, MADV_HUGEPAGE);
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
    uint16_t n = number_of(block);
    if (MUTANT("bulk.taken_early", true, false))
        bulk.stack[bulk.free++] = n;
    else
        bulk.stack[BLOCKS - ++bulk.leaving] = n;
}

void bulk_lend(const void *at)
{
    unsigned n = number_of(at);
    bulk.lent[n / 64] |= 1UL << n % 64;
}

void bulk_recall(void)
{
    for (unsigned i = 0; i < BLOCKS / 64; i++)
        if (MUTANT("bulk.not_recalled", false, bulk.lent[i] != 0))
            bulk.recalled[i] |= bulk.lent[i];
}

/* Pages that the program has locked are let go by newer kernels only. */
static bool let_go(void *at)
{
    return !sys_failed(sys(SYS_madvise, at, BULK_BLOCK, MADV_DONTNEED)) ||
           !sys_failed(sys(SYS_madvise, at, BULK_BLOCK, MADV_DONTNEED_LOCKED));
}

/* Nobody refers to its pages any more, or it gets others: what it held is not needed. False: it can't be used again. */
static bool take_home(unsigned n)
{
    uint64_t bit = 1UL << n % 64;
    if (bulk.recalled[n / 64] & bit && !let_go(block_at(n)))
        return false;
    bulk.lent[n / 64] &= ~bit;
    bulk.recalled[n / 64] &= ~bit;
    return true;
}

void bulk_committed(void)
{
    while (bulk.leaving) {
        uint16_t n = bulk.stack[BLOCKS - bulk.leaving--];
        session_loose_give_up(block_at(n), BULK_BLOCK);
        if (take_home(n))
            bulk.stack[bulk.free++] = n;
    }
}

void bulk_span(uintptr_t *start, uintptr_t *end)
{
    *start = (uintptr_t)bulk.base;
    *end = *start + (size_t)bulk.used * BULK_BLOCK;
}
