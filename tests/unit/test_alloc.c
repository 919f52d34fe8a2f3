/* The allocator: contents, alignment, placement, misuse; its invariants after random operations. */
#define _GNU_SOURCE
#include "heap/alloc.h"
#include "heap/alloc_span.h"
#include "heap/region.h"

#include <criterion/criterion.h>
#include <criterion/redirect.h>
#include <signal.h>
#include <string.h>

#define LIVE 4000

struct block {
    unsigned char *at;
    size_t bytes;
    unsigned char tag;
};

static uint64_t seed = 88172645463325252UL;

static uint64_t draw(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    return seed ^= seed << 17;
}

static size_t draw_size(void)
{
    uint64_t kind = draw() % 100;
    if (kind < 70)
        return draw() % 1024;
    if (kind < 95)
        return draw() % 40000;
    return kind < 99 ? draw() % 400000 : draw() % (6UL << 20);
}

static void fill(struct block *b)
{
    b->tag = (unsigned char)draw();
    memset(b->at, b->tag, b->bytes);
}

static void verify(const struct block *b, size_t bytes)
{
    for (size_t i = 0; i < bytes; i += i < 64 || i + 64 >= bytes ? 1 : 61)
        cr_assert(b->at[i] == b->tag, "byte %zu of %zu changed", i, b->bytes);
}

static void all_zero(const unsigned char *p, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        cr_assert(p[i] == 0, "byte %zu of %zu is not zero", i, bytes);
}

static void make(struct block *b)
{
    size_t align = 16;
    b->bytes = draw_size();
    switch (draw() % 8) {
    case 0:
        b->at = alloc_calloc(1, b->bytes);
        all_zero(b->at, b->bytes);
        break;
    case 1:
        align = 1UL << (draw() % 17);
        b->at = alloc_aligned(align, b->bytes);
        break;
    default:
        b->at = alloc_malloc(b->bytes);
    }
    cr_assert(b->at);
    cr_assert_eq((uintptr_t)b->at % (align < 16 ? 16 : align), 0);
    cr_assert(alloc_usable(b->at) >= b->bytes);
    fill(b);
}

static void change(struct block *b)
{
    size_t bytes = draw() % 2 ? draw_size() : b->bytes + draw() % (b->bytes + 32);
    bytes += bytes == 0;
    unsigned char *moved = alloc_realloc(b->at, bytes);
    cr_assert(moved);
    b->at = moved;
    verify(b, bytes < b->bytes ? bytes : b->bytes);
    b->bytes = bytes;
    fill(b);
}

Test(alloc, random_operations_keep_contents_and_invariants)
{
    static struct block live[LIVE];
    for (int step = 0; step < 100000; step++) {
        struct block *b = &live[draw() % LIVE];
        if (!b->at) {
            make(b);
        } else if (draw() % 5 == 0) {
            change(b);
        } else {
            verify(b, b->bytes);
            alloc_free(b->at);
            b->at = NULL;
        }
        if (step % 5000 == 0)
            cr_assert_eq(alloc_check(), 0);
    }
    for (int i = 0; i < LIVE; i++)
        alloc_free(live[i].at);
    cr_assert_eq(alloc_check(), 0);
    struct alloc_stats stats;
    alloc_get_stats(&stats);
    cr_assert(stats.drops > 0, "nothing was ever given back");
    cr_assert(stats.used_pages < 40 * 64, "%zu pages are in use with nothing live",
              stats.used_pages);
}

Test(alloc, every_size_lands_in_the_smallest_class_that_holds_it)
{
    for (size_t bytes = 0; bytes <= CLASS_LARGEST; bytes++) {
        unsigned kind = class_of(bytes);
        cr_assert(kind < CLASSES && class_size(kind) >= bytes);
        cr_assert(kind == 0 || class_size(kind - 1) < bytes);
        cr_assert_eq(alloc_bin_at[(bytes + 15) / 16], offsetof(struct heap, bin[kind]));
    }
    for (unsigned kind = 0; kind < CLASSES; kind++) {
        cr_assert_eq(class_size(kind) % 16, 0);
        cr_assert(class_objects(kind) <= CLASS_MOST_OBJECTS && class_objects(kind) >= 8);
        size_t span = class_pages(kind) * 4096UL;
        cr_assert(span - class_objects(kind) * class_size(kind) <= span / 40);
    }
}

Test(alloc, an_object_begins_at_multiples_of_its_size_only)
{
    for (unsigned kind = 0; kind < CLASSES; kind++) {
        char *p = alloc_malloc(class_size(kind));
        const struct span *s = span_of((uintptr_t)p);
        cr_assert(s && s->kind == kind && s->size == class_size(kind));
        for (uintptr_t at = 0; at < class_pages(kind) * PAGE_BYTES; at++) {
            uint64_t quotient = span_quotient(s, s->start + at);
            bool begins = at % s->size == 0;
            cr_assert_eq(span_is_start(s, quotient), begins, "%lu of %u", at, s->size);
            cr_assert(!begins || quotient >> 32 == at / s->size);
            cr_assert_eq(span_index(s, s->start + at),
                         begins && at / s->size < s->capacity ? (long)(at / s->size) : -1);
        }
        alloc_free(p);
    }
}

Test(alloc, zero_bytes_are_unique_pointers)
{
    void *a = alloc_malloc(0), *b = alloc_malloc(0);
    cr_assert(a && b && a != b);
    alloc_free(a);
    alloc_free(b);
    alloc_free(NULL);
}

Test(alloc, impossible_sizes_are_refused)
{
    void *p = alloc_malloc(100);
    size_t huge[] = {SIZE_MAX, PTRDIFF_MAX, (size_t)PTRDIFF_MAX + 1, SIZE_MAX - 4095, 1UL << 50};
    for (unsigned i = 0; i < sizeof huge / sizeof *huge; i++) {
        cr_assert_null(alloc_malloc(huge[i]));
        cr_assert_null(alloc_calloc(1, huge[i]));
        cr_assert_null(alloc_calloc(huge[i], 16));
        cr_assert_null(alloc_realloc(p, huge[i]));
        cr_assert_null(alloc_aligned(1UL << 20, huge[i]));
        cr_assert_null(alloc_aligned(1UL << 62, 1));
    }
    alloc_free(p);
    cr_assert_eq(alloc_check(), 0);
}

Test(alloc, what_is_freed_is_handed_out_next)
{
    char *a = alloc_malloc(64), *b = alloc_malloc(64);
    alloc_free(a);
    cr_assert_eq((void *)alloc_malloc(64), (void *)a);
    alloc_free(b);
    cr_assert_eq((void *)alloc_malloc(50), (void *)b);
}

Test(alloc, free_does_not_touch_the_object)
{
    unsigned char *p = alloc_malloc(200);
    memset(p, 0x5a, 200);
    alloc_free(p);
    for (int i = 0; i < 200; i++)
        cr_assert_eq(((volatile unsigned char *)p)[i], 0x5a);
}

Test(alloc, calloc_is_zero_after_reuse)
{
    for (size_t bytes = 16; bytes < 3000000; bytes = bytes * 3 + 8) {
        unsigned char *p = alloc_malloc(bytes), *q = alloc_malloc(bytes);
        memset(p, 0xff, bytes);
        memset(q, 0xff, bytes);
        alloc_free(p);
        alloc_free(q);
        for (int i = 0; i < 4; i++)
            all_zero(alloc_calloc(bytes, 1), bytes);
    }
}

Test(alloc, a_growing_block_moves_seldom)
{
    char *p = alloc_malloc(16), *other[64] = {0};
    int moves = 0;
    for (size_t bytes = 16; bytes < (16UL << 20); bytes += bytes / 50 + 16) {
        char *moved = alloc_realloc(p, bytes);
        moves += moved != p;
        p = moved;
        char **o = &other[draw() % 64]; /* somebody else allocates meanwhile */
        alloc_free(*o);
        *o = alloc_malloc(bytes / 3);
    }
    cr_assert(moves < 60, "%d moves", moves);
    cr_assert_eq(alloc_check(), 0);
}

static size_t dropped, grown;
static void count_drop(uintptr_t start, size_t bytes)
{
    cr_assert(start % 4096 == 0 && bytes % 4096 == 0 && region_holds(start));
    dropped += bytes;
}
static void count_growth(uintptr_t start, size_t bytes)
{
    cr_assert(region_holds(start));
    grown += bytes;
}

Test(alloc, memory_is_given_back_and_told)
{
    region_on_drop(count_drop);
    region_on_grow(count_growth);
    char *p = alloc_malloc(100UL << 20);
    memset(p, 1, 100UL << 20);
    cr_assert(grown >= 100UL << 20);
    cr_assert(region_high_water() >= (uintptr_t)p + (100UL << 20));
    cr_assert_eq(dropped, 0);
    alloc_free(p);
    cr_assert(dropped >= 100UL << 20);
    all_zero(alloc_calloc(1, 1 << 20), 1 << 20);
}

Test(alloc, a_hot_block_is_not_given_back_each_time)
{
    struct alloc_stats before, after;
    alloc_get_stats(&before);
    for (int i = 0; i < 1000; i++) {
        char *p = alloc_malloc(2UL << 20);
        p[0] = 1;
        alloc_free(p);
    }
    alloc_get_stats(&after);
    cr_assert_eq(before.drops, after.drops);
}

Test(alloc, dropped_pages_of_a_restored_image_are_not_taken_for_zero)
{
    region_set_file_backed();
    char *p = alloc_malloc(64UL << 20);
    memset(p, 7, 64UL << 20);
    alloc_free(p);
    memset((void *)p, 7, 64UL << 20); /* what a file's page would bring back */
    all_zero(alloc_calloc(1, 32UL << 20), 32UL << 20);
}

#define MISUSE(name, ...)                                                                          \
    Test(alloc, name, .init = cr_redirect_stderr, .signal = SIGABRT)                               \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }

MISUSE(double_free_of_a_small_object, char *p = alloc_malloc(40); alloc_free(p); alloc_free(p);)
MISUSE(double_free_of_a_large_block, char *p = alloc_malloc(400000); alloc_free(p); alloc_free(p);)
MISUSE(free_of_an_interior_pointer, char *p = alloc_malloc(400); alloc_free(p + 16);)
MISUSE(free_of_an_interior_page, char *p = alloc_malloc(400000); alloc_free(p + 8192);)
MISUSE(free_of_a_stack_address, char here; alloc_malloc(1); alloc_free(&here);)
MISUSE(free_of_metadata, alloc_malloc(1); alloc_free((void *)(region.base + 64));)
MISUSE(realloc_of_a_freed_object, char *p = alloc_malloc(40); alloc_free(p); alloc_realloc(p, 50);)
MISUSE(usable_size_of_a_freed_block, char *p = alloc_malloc(90000); alloc_free(p); alloc_usable(p);)
