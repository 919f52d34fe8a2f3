#include "heap/pages.h"
#include "heap/sys.h"
#include "heap/window.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#define COUNT 600u

static void open_window(void)
{
    cr_assert(!sys_failed(window_open(0)));
}

TestSuite(pages, .init = open_window);

static void set_all(bool *model, unsigned from, unsigned to, bool value)
{
    for (; from < to; from++)
        model[from] = value;
}

static void check(const struct pages *p, const bool *model)
{
    bool seen[COUNT] = {false};
    for (size_t i = 0; i < p->count; i++) {
        cr_assert(p->at[i].start < p->at[i].end);
        cr_assert(i == 0 || p->at[i - 1].end < p->at[i].start, "ranges are sorted and do not touch");
        set_all(seen, (unsigned)(p->at[i].start / PAGE_BYTES), (unsigned)(p->at[i].end / PAGE_BYTES), true);
    }
    cr_assert(!memcmp(seen, model, sizeof seen));
}

Test(pages, behave_as_a_bitmap_does)
{
    struct pages a = {0}, b = {0};
    bool in_a[COUNT] = {false}, in_b[COUNT] = {false};
    srand(3);
    for (int round = 0; round < 20000; round++) {
        unsigned from = (unsigned)rand() % COUNT, to = from + (unsigned)rand() % 8;
        if (to > COUNT)
            to = COUNT;
        bool second = rand() % 3 == 0, add = rand() % 2;
        set_all(second ? in_b : in_a, from, to, add);
        int r = add ? pages_add(second ? &b : &a, from * PAGE_BYTES, to * PAGE_BYTES)
                    : pages_remove(second ? &b : &a, from * PAGE_BYTES, to * PAGE_BYTES);
        cr_assert_eq(r, 0);
        if (round % 50)
            continue;
        check(&a, in_a);
        struct pages joined = {0};
        bool model[COUNT];
        cr_assert_eq(pages_add_missing(&joined, &a, &b), 0);
        for (unsigned i = 0; i < COUNT; i++)
            model[i] = in_a[i] && !in_b[i];
        check(&joined, model);
        cr_assert_eq(pages_add_common(&joined, &b, 100 * PAGE_BYTES, 300 * PAGE_BYTES), 0);
        for (unsigned i = 100; i < 300; i++)
            model[i] = model[i] || in_b[i];
        check(&joined, model);
    }
    cr_assert_gt(a.count, 20, "the test is about many ranges");
}

Test(pages, grow_beyond_the_first_array)
{
    struct pages p = {0};
    for (uintptr_t i = 0; i < 10000; i++)
        cr_assert_eq(pages_add(&p, 2 * i * PAGE_BYTES, (2 * i + 1) * PAGE_BYTES), 0);
    cr_assert_eq(p.count, 10000);
    for (uintptr_t i = 0; i < 10000; i++)
        cr_assert_eq(p.at[i].start, 2 * i * PAGE_BYTES);
    cr_assert_eq(pages_add(&p, 0, 20000 * PAGE_BYTES), 0);
    cr_assert_eq(p.count, 1);
}

Test(pages, are_copied_in_portions)
{
    struct pages p = {0}, again = {0};
    for (uintptr_t i = 10; i < 20; i++)
        cr_assert_eq(pages_add(&p, 4 * i * PAGE_BYTES, (4 * i + 2) * PAGE_BYTES), 0);
    uintptr_t at = 41 * PAGE_BYTES, to = 77 * PAGE_BYTES;
    int calls = 0;
    while (at < to) {
        struct page_range out[3];
        size_t n = pages_copy(&p, at, to, out, 3, &at);
        for (size_t i = 0; i < n; i++)
            cr_assert_eq(pages_add(&again, out[i].start, out[i].end), 0);
        cr_assert_lt(++calls, 10);
    }
    cr_assert_eq(calls, 4);
    cr_assert_eq(again.count, 10);
    cr_assert_eq(again.at[0].start, 41 * PAGE_BYTES, "clipped in front");
    cr_assert_eq(again.at[9].end, 77 * PAGE_BYTES, "clipped at the end");
}
