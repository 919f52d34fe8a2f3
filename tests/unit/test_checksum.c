#include "heap/checksum.h"

#include <criterion/criterion.h>
#include <stdlib.h>

#define LONG (1UL << 20)

static uint8_t bytes[LONG + 64];

static void fill(void)
{
    uint64_t x = 88172645463325252;
    for (size_t i = 0; i < sizeof bytes; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        bytes[i] = (uint8_t)x;
    }
}

/* What stands in a store must be read by every other build: values of the published algorithm. */
Test(checksum, is_xxh3)
{
    cr_assert_eq(checksum_of("", 0), 0x2d06800538d394c2UL);
    cr_assert_eq(checksum_of("a", 1), 0xe6c632b61e964e1fUL);
    cr_assert_eq(checksum_of("abc", 3), 0x78af5f94892f3950UL);
}

Test(checksum, both_ways_agree)
{
    fill();
    if (!checksum_wide_runs())
        cr_skip("this processor has no AVX2");
    for (size_t length = 0; length < 3000; length++)
        for (size_t at = 0; at < 32; at += 8)
            cr_assert_eq(checksum_wide(bytes + at, length), checksum_plain(bytes + at, length), "%zu bytes at %zu", length, at);
    for (size_t length = LONG - 70; length <= LONG; length++)
        cr_assert_eq(checksum_wide(bytes + 16, length), checksum_plain(bytes + 16, length), "%zu bytes", length);
}

Test(checksum, each_bit_counts)
{
    fill();
    uint64_t before = checksum_of(bytes, 4096);
    for (unsigned bit = 0; bit < 4096 * 8; bit += 7) {
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        cr_assert_neq(checksum_of(bytes, 4096), before, "bit %u", bit);
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
}

Test(checksum, parts_are_summed_as_a_whole)
{
    static char text[20000];
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (char)(i * 131 + i / 251);
    for (size_t first = 16; first < 9000; first += 1 + first / 7)
        for (size_t second = 0; first + second < sizeof text; second += 1 + second / 2) {
            struct iovec v[] = {{text, first}, {text + first, second}, {text + first + second, sizeof text - first - second}};
            uint64_t whole = checksum_plain(text + 16, sizeof text - 16);
            cr_assert_eq(checksum_plain_parts(v, 3, 16), whole);
            cr_assert_eq(checksum_of_parts(v, 3, 16), whole);
            if (checksum_wide_runs())
                cr_assert_eq(checksum_wide_parts(v, 3, 16), whole);
        }
    cr_assert_eq(checksum_of_parts(&(struct iovec){text, 500}, 1, 16), checksum_plain(text + 16, 484));
}
