/* The pool: blocks of every length, aligned, apart from each other, given again. */
#include "net_host.h"

#include "net/pool.h"

TestSuite(pool, .init = host_open, .fini = host_close);

Test(pool, blocks_of_every_length)
{
    static unsigned char *blocks[5000];
    size_t count = 0;
    for (size_t n = 0; n <= POOL_BLOCK_MAX; n += 1 + n / 64) {
        unsigned char *b = pool_take(n);
        cr_assert(b && (uintptr_t)b % 16 == 0, "%zu bytes", n);
        memset(b, (int)count, n);
        blocks[count++] = b;
    }
    cr_assert_null(pool_take(POOL_BLOCK_MAX + 1));
    cr_assert(pool_take(POOL_BLOCK_MAX));
    size_t i = 0;
    for (size_t n = 0; n <= POOL_BLOCK_MAX; n += 1 + n / 64, i++)
        for (size_t k = 0; k < n; k += 1 + n / 100)
            cr_assert_eq(blocks[i][k], (unsigned char)i, "block of %zu bytes, byte %zu", n, k);
}

Test(pool, a_block_that_was_given_back_comes_again)
{
    for (size_t n = 1; n < POOL_BLOCK_MAX; n *= 3) {
        void *first = pool_take(n), *second = pool_take(n);
        cr_assert(first && second && first != second);
        pool_give(first);
        cr_assert_eq(pool_take(n), first);
        pool_give(second);
        pool_give(second); /* once is enough */
        cr_assert_eq(pool_take(n), second);
        cr_assert_neq(pool_take(n), second);
    }
}

/* What a block is longer than asked for: a quarter at most, from 64 bytes on. */
Test(pool, little_is_wasted)
{
    for (size_t n = 48; n <= POOL_BLOCK_MAX; n += 1 + n / 50) {
        size_t before = pool_room();
        cr_assert(pool_take(n));
        size_t used = before - pool_room();
        cr_assert(used >= n + POOL_COST && used <= (n + POOL_COST) * 5 / 4 + 16, "%zu bytes for %zu", used, n);
    }
}
