#include "heap/diff.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static _Alignas(4096) uint8_t now[4096], twin[4096], aside[4096];

static uint64_t by_memcmp(const uint8_t *other)
{
    uint64_t changed = 0;
    for (unsigned i = 0; i < PAGE_LINES; i++)
        changed |= (uint64_t)(memcmp(now + i * LINE_BYTES, other + i * LINE_BYTES, LINE_BYTES) != 0) << i;
    return changed;
}

Test(diff, page_finds_each_single_byte)
{
    for (unsigned i = 0; i < 4096; i++)
        now[i] = twin[i] = (uint8_t)(i * 7);
    cr_assert_eq(diff_page(now, twin), 0);
    for (unsigned i = 0; i < 4096; i++) {
        now[i] ^= 0x80;
        cr_assert_eq(diff_page(now, twin), 1UL << (i / LINE_BYTES), "byte %u", i);
        now[i] ^= 0x80;
    }
}

Test(diff, no_twin_counts_as_zeros)
{
    cr_assert_eq(diff_page(now, NULL), 0);
    for (unsigned i = 0; i < 4096; i++) {
        now[i] = 1;
        cr_assert_eq(diff_page(now, NULL), 1UL << (i / LINE_BYTES), "byte %u", i);
        now[i] = 0;
    }
    memset(now, 255, sizeof now);
    cr_assert_eq(diff_page(now, NULL), ~0UL);
}

Test(diff, page_agrees_with_memcmp_on_random_pages)
{
    srand(1);
    for (int round = 0; round < 2000; round++) {
        for (int n = rand() % 40; n > 0; n--)
            now[rand() % 4096] = (uint8_t)(rand() % 3);
        cr_assert_eq(diff_page(now, twin), by_memcmp(twin));
        cr_assert_eq(diff_page(now, NULL), by_memcmp(aside), "against zeros");
        if (round % 3 == 0)
            memcpy(twin, now, sizeof now);
        if (round % 97 == 0)
            memset(now, 0, sizeof now);
    }
}

static uint64_t of_runs(uint64_t mask, unsigned *runs)
{
    struct diff_run run;
    uint64_t joined = 0;
    unsigned end = 0;
    *runs = 0;
    while (diff_next(&mask, &run)) {
        cr_assert(run.lines > 0 && run.first + run.lines <= PAGE_LINES);
        cr_assert(*runs == 0 || run.first > end, "runs must ascend and not touch");
        end = run.first + run.lines;
        for (unsigned i = run.first; i < end; i++)
            joined |= 1UL << i;
        ++*runs;
    }
    return joined;
}

Test(diff, runs_cover_the_mask_exactly)
{
    static const struct {
        uint64_t mask;
        unsigned runs;
    } cases[] = {{0, 0}, {1, 1}, {~0UL, 1}, {1UL << 63, 1}, {3UL << 62, 1}, {0x8000000000000001, 2}, {5, 2},
                 {0xaaaaaaaaaaaaaaaa, 32}, {0x7fffffffffffffff, 1}, {0xfffffffffffffffe, 1}};
    unsigned runs;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        cr_assert_eq(of_runs(cases[i].mask, &runs), cases[i].mask);
        cr_assert_eq(runs, cases[i].runs, "mask %lx: %u runs", cases[i].mask, runs);
    }
    srand(2);
    for (int i = 0; i < 20000; i++) {
        uint64_t mask = ((uint64_t)rand() << 33) ^ ((uint64_t)rand() << 11) ^ (uint64_t)rand();
        cr_assert_eq(of_runs(mask, &runs), mask);
    }
}
