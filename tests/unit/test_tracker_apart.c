/* Pages that stand apart from userfaultfd. */
#define _GNU_SOURCE /* mremap */
#include "tracker_fixture.h"

TestSuite(uffd, .init = open_window, .timeout = 60);

/* Writes the pages again and again, each time for a pass. */
static void heat(struct tracker *t, uint8_t *const *pages, size_t count, int passes)
{
    for (int pass = 0; pass < passes; pass++) {
        for (size_t i = 0; i < count; i++)
            pages[i][pass % 4000]++;
        scan(t);
        for (size_t i = 0; i < count; i++)
            cr_assert(is_found(pages[i]), "pass %d, page %zu", pass, i);
    }
}

Test(uffd, hot_pages_are_reported_without_being_asked_for)
{
    struct tracker *t = open_apart();
    int pipes[2];
    uint8_t *m = map(32, PROT_READ | PROT_WRITE), *hot[] = {m + 3 * PAGE, m + 4 * PAGE, m + 9 * PAGE};
    memset(m, 1, 32 * PAGE);
    add(t, m, 32);
    heat(t, hot, 3, 100);
    cr_assert(t->apart.hot.count == 2, "%zu", t->apart.hot.count);
    m[20 * PAGE] = 1;
    cr_assert_eq(scan(t), 4, "the hot ones and what was written");
    cr_assert(is_found(m + 20 * PAGE));
    cr_assert_eq(scan_span(t, (uintptr_t)m + 4 * PAGE, (uintptr_t)m + 9 * PAGE, 8), 1, "part of the span");
    cr_assert(is_found(m + 4 * PAGE));
    cr_assert_eq(pipe(pipes), 0);
    cr_assert_eq(write(pipes[1], "abcdefgh", 8), 8);
    cr_assert_eq(read(pipes[0], m + 5 * PAGE - 4, 8), 8, "half of it into a hot page");
    cr_assert_eq(scan(t), 4);
    cr_assert(is_found(m + 5 * PAGE));
}

Test(uffd, pages_at_equal_distances_get_hot)
{
    struct tracker *t = open_apart();
    uint8_t *m = map(8 * APART_HEAT, PROT_READ | PROT_WRITE), *stacks[8];
    add(t, m, 8 * APART_HEAT);
    for (size_t i = 0; i < 8; i++)
        stacks[i] = m + (i * APART_HEAT + 5) * PAGE;
    heat(t, stacks, 8, 200);
    cr_assert_eq(t->apart.hot.count, 8, "%zu", t->apart.hot.count);
}

Test(uffd, pages_written_in_most_passes_get_hot)
{
    struct tracker *t = open_apart();
    uint8_t *m = map(32, PROT_READ | PROT_WRITE);
    memset(m, 1, 32 * PAGE);
    add(t, m, 32);
    scan(t);
    for (size_t pass = 0; pass < 300; pass++) {
        uint8_t *often = m + 3 * PAGE, *seldom = m + 20 * PAGE;
        if (pass % 4 == 0)
            (*often)++;
        if (pass % 50 == 0)
            (*seldom)++;
        scan(t);
        cr_assert(pass % 4 || is_found(often), "pass %zu", pass);
        cr_assert(pass % 50 || is_found(seldom), "pass %zu", pass);
    }
    cr_assert_eq(t->apart.hot.count, 1, "%zu", t->apart.hot.count);
    cr_assert_eq(t->apart.hot.at[0].start, (uintptr_t)m + 3 * PAGE);
}

Test(uffd, hot_pages_cool_down)
{
    struct tracker *t = open_apart();
    uint8_t *m = map(8, PROT_READ | PROT_WRITE), *hot[] = {m + 3 * PAGE};
    memset(m, 1, 8 * PAGE);
    add(t, m, 8);
    heat(t, hot, 1, 100);
    size_t passes = 0, most = 10000;
    while (scan(t) && passes < most)
        passes++;
    cr_assert_lt(passes, most);
    expect_none(t, "cooled down");
    m[3 * PAGE] = 9;
    EXPECT(t, "and tracked as others are", m + 3 * PAGE);
}

Test(uffd, hot_pages_go_with_their_mapping)
{
    struct tracker *t = open_apart();
    uint8_t *m = map(8, PROT_READ | PROT_WRITE), *hot[] = {m + 3 * PAGE, m + 5 * PAGE};
    memset(m, 1, 8 * PAGE);
    add(t, m, 8);
    heat(t, hot, 2, 100);
    cr_assert_eq(munmap(m + 3 * PAGE, PAGE), 0);
    cr_assert_eq(tracker_remove(t, (uintptr_t)m + 3 * PAGE, (uintptr_t)m + 4 * PAGE), 0);
    cr_assert_eq(scan(t), 1);
    cr_assert(is_found(m + 5 * PAGE));
    cr_assert_eq(tracker_settle(t, (uintptr_t)m, (uintptr_t)m + 8 * PAGE), 0);
    cr_assert_eq(mprotect(m + 4 * PAGE, 4 * PAGE, PROT_NONE), 0);
    EXPECT(t, "settled: once", m + 5 * PAGE);
    expect_none(t, "not looked at while nobody may");
    cr_assert_eq(mprotect(m + 4 * PAGE, 4 * PAGE, PROT_READ | PROT_WRITE), 0);
    m[5 * PAGE] = 7;
    EXPECT(t, "written", m + 5 * PAGE);
}

Test(uffd, first_pages_never_get_hot)
{
    struct tracker *t = open_apart();
    uint8_t *m = map(300, PROT_NONE);
    uint8_t *stack = mmap(m + 292 * PAGE, 8 * PAGE, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_GROWSDOWN, -1, 0);
    cr_assert_eq(munmap(m, 292 * PAGE), 0);
    memset(stack, 1, 8 * PAGE);
    add(t, stack, 8);
    heat(t, &stack, 1, 100);
    stack[-(long)PAGE] = 1;
    scan(t);
    cr_assert(is_found(stack - PAGE), "what grew is tracked");
    cr_assert_eq(t->apart.hot.count, 0);
}

/* The kernel's view of a page: written, that is, not protected against it. */
static bool is_open(struct tracker *t, const uint8_t *page)
{
    struct scan_query query = {.all = SCAN_WRITTEN, .wanted = SCAN_WRITTEN};
    struct scan_region open[1];
    uintptr_t walked;
    return pagemap_scan(&t->pagemap, &query, (uintptr_t)page, (uintptr_t)page + PAGE, open, 1, &walked) == 1;
}

Test(uffd, what_must_not_be_split_is_kept_warm)
{
    struct tracker *t = open_apart();
    uint8_t *m = map(64, PROT_READ | PROT_WRITE), *warm[] = {m, m + 60 * PAGE, m + 61 * PAGE};
    memset(m, 1, 64 * PAGE);
    t->apart.whole = (struct page_range){(uintptr_t)m + 32 * PAGE, (uintptr_t)m + 64 * PAGE};
    add(t, m, 64);
    heat(t, warm, 3, 100);
    cr_assert_eq(t->apart.hot.count, 0);
    cr_assert_eq(t->apart.warm.count, 2);
    for (size_t i = 0; i < 3; i++)
        cr_assert(is_open(t, warm[i]), "page %zu: its next write is free", i);
    m[20 * PAGE] = m[62 * PAGE] = 1;
    cr_assert_eq(scan(t), 5, "the warm ones and what was written");
    cr_assert(is_found(m + 20 * PAGE) && is_found(m + 62 * PAGE));
    cr_assert_not(is_open(t, m + 62 * PAGE));
    cr_assert_eq(scan_span(t, (uintptr_t)m + PAGE, (uintptr_t)m + 61 * PAGE, 8), 1, "part of the span");
    cr_assert(is_found(m + 60 * PAGE));
    cr_assert_eq(tracker_settle(t, (uintptr_t)m + 61 * PAGE, (uintptr_t)m + 62 * PAGE), 0);
    scan(t);
    cr_assert(is_found(m + 61 * PAGE), "settled: once more");
    cr_assert_eq(scan(t), 2);
    size_t passes = 0;
    while (scan(t) && passes < 10000)
        passes++;
    expect_none(t, "cooled down");
    m[60 * PAGE] = 9;
    EXPECT(t, "and tracked as others are", m + 60 * PAGE);
}

Test(uffd, what_holds_nothing_is_left_untouched)
{
    struct tracker *t = open_apart();
    size_t pages = 8192, table = 512; /* 32 MiB */
    int pipes[2];
    uint8_t *m = map(pages, PROT_READ | PROT_WRITE);
    madvise(m, pages * PAGE, MADV_NOHUGEPAGE);
    m[0] = m[5000 * PAGE] = 1;
    cr_assert_eq(tracker_add_sparse(t, (uintptr_t)m, (uintptr_t)m + pages * PAGE), 0);
    cr_assert_geq(t->apart.untouched.count, 2);
    expect_none(t, "armed");
    m[0] = m[5000 * PAGE] = 2;
    EXPECT(t, "what held something is tracked exactly", m, m + 5000 * PAGE);
    m[2000 * PAGE] = 1;
    cr_assert_leq(scan(t), table, "its neighbours at most");
    cr_assert(is_found(m + 2000 * PAGE));
    m[2000 * PAGE] = 2;
    m[2001 * PAGE] = 1;
    EXPECT(t, "tracked exactly from then on", m + 2000 * PAGE, m + 2001 * PAGE);
    cr_assert_eq(pipe(pipes), 0);
    cr_assert_eq(write(pipes[1], "abcdefgh", 8), 8);
    cr_assert_eq(read(pipes[0], m + 3000 * PAGE - 4, 8), 8);
    scan(t);
    cr_assert(is_found(m + 2999 * PAGE) && is_found(m + 3000 * PAGE), "the kernel's first write");
    expect_none(t, "once");
    cr_assert_eq(tracker_mark(t, (uintptr_t)m + 7000 * PAGE, (uintptr_t)m + 7001 * PAGE), 0);
    scan(t);
    cr_assert(is_found(m + 7000 * PAGE), "marked");
    expect_none(t, "once");
    cr_assert_geq(t->apart.untouched.count, 1);
    cr_assert_eq(tracker_allow_apart(t, false), 0);
    cr_assert_eq(t->apart.untouched.count, 0);
    scan(t);
    m[8000 * PAGE] = 1;
    EXPECT(t, "all of it the ordinary way", m + 8000 * PAGE);
}

Test(uffd, mappings_that_were_split_move_as_one_when_joined)
{
    struct tracker *t = open_apart();
    size_t pages = 4096;
    uint8_t *m = map(pages, PROT_READ | PROT_WRITE), *hot[] = {m + 3 * PAGE}, *room = map(2 * pages, PROT_NONE);
    madvise(m, pages * PAGE, MADV_NOHUGEPAGE);
    memset(m, 1, 10 * PAGE);
    cr_assert_eq(tracker_add_sparse(t, (uintptr_t)m, (uintptr_t)m + pages * PAGE), 0);
    heat(t, hot, 1, 100);
    cr_assert_eq(mremap(m, pages * PAGE, 2 * pages * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, room), MAP_FAILED);
    cr_assert_eq(tracker_join(t, (uintptr_t)m, (uintptr_t)m + pages * PAGE), 0);
    cr_assert_eq(mremap(m, pages * PAGE, 2 * pages * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, room), room);
    tracker_remove(t, (uintptr_t)m, (uintptr_t)m + pages * PAGE);
    add(t, room, 2 * pages);
    expect_none(t, "armed");
    room[3 * PAGE] = 9;
    EXPECT(t, "written", room + 3 * PAGE);
}

Test(uffd, sealed_ranges_are_tracked_when_they_open)
{
    struct tracker *t = open_apart();
    uint8_t *m = map_file(8);
    m[PAGE] = 1;
    cr_assert_eq(mprotect(m, 8 * PAGE, PROT_READ), 0);
    cr_assert_eq(tracker_add_sealed(t, (uintptr_t)m, (uintptr_t)m + 8 * PAGE), 0);
    expect_none(t, "sealed");
    cr_assert_eq(tracker_settle(t, (uintptr_t)m + 2 * PAGE, (uintptr_t)m + 4 * PAGE), 0);
    cr_assert_eq(mprotect(m + 2 * PAGE, 2 * PAGE, PROT_READ | PROT_WRITE), 0);
    expect_none(t, "open, and as it was");
    m[2 * PAGE] = 2;
    EXPECT(t, "written", m + 2 * PAGE);
    add(t, m, 8);
    cr_assert_eq(t->apart.sealed.count, 0);
}
