/* The same tests on each backend. */
#define _GNU_SOURCE /* mremap */
#include "tracker_fixture.h"

TestSuite(uffd, .init = open_window, .timeout = 60);
TestSuite(softdirty, .init = open_window, .timeout = 60);
TestSuite(compare, .init = open_window, .timeout = 60);
TestSuite(tracker, .init = open_window, .timeout = 60);

ON_EACH(writes_of_the_cpu_are_reported_once)
{
    uint8_t *m = map(16, PROT_READ | PROT_WRITE);
    memset(m, 1, 8 * PAGE);
    add(t, m, 16);
    expect_none(t, "armed");
    m[3 * PAGE + 5] = 2;
    m[12 * PAGE] = 2;
    EXPECT(t, "written", m + 3 * PAGE, m + 12 * PAGE);
    expect_none(t, "nothing since");
    m[3 * PAGE] = 2;
    EXPECT(t, "written again", m + 3 * PAGE);
}

ON_EACH(reading_is_not_writing)
{
    uint8_t *m = map(8, PROT_READ | PROT_WRITE);
    m[0] = 1;
    add(t, m, 8);
    for (int i = 0; i < 8; i++)
        cr_assert_eq(*(volatile uint8_t *)(m + (size_t)i * PAGE), i == 0);
    expect_none(t, "read");
    m[5 * PAGE] = 1;
    EXPECT(t, "written after having been read", m + 5 * PAGE);
}

ON_EACH(writes_of_the_kernel_are_reported)
{
    int pipes[2], pair[2];
    uint8_t *m = map(8, PROT_READ | PROT_WRITE);
    cr_assert_eq(pipe(pipes), 0);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair), 0);
    m[PAGE] = 1;
    add(t, m, 8);
    cr_assert_eq(write(pipes[1], "abcdefgh", 8), 8);
    cr_assert_eq(read(pipes[0], m + 2 * PAGE - 4, 8), 8, "into a present and an absent page");
    cr_assert_eq(send(pair[1], "x", 1, 0), 1);
    struct sockaddr_storage *from = (void *)(m + 6 * PAGE);
    cr_assert_eq(recvfrom(pair[0], m + 4 * PAGE, 10, 0, (void *)from, (socklen_t *)(m + 7 * PAGE)), 1);
    cr_assert_eq(memcmp(m + 2 * PAGE - 4, "abcdefgh", 8), 0);
    EXPECT(t, "kernel", m + PAGE, m + 2 * PAGE, m + 4 * PAGE, m + 7 * PAGE);
}

ON_EACH(private_file_mappings_are_tracked)
{
    uint8_t *m = map_file(8);
    m[PAGE] = 1;
    add(t, m, 8);
    expect_none(t, "armed");
    cr_assert_eq(m[2 * PAGE], 'f');
    expect_none(t, "read");
    m[2 * PAGE] = 1;
    m[PAGE] = 2;
    m[5 * PAGE] = 2;
    EXPECT(t, "written", m + PAGE, m + 2 * PAGE, m + 5 * PAGE);
    for (int order = 0; order < 2; order++) {
        m[2 * PAGE] = 1;
        EXPECT(t, "written", m + 2 * PAGE);
        if (order)
            cr_assert_eq(tracker_mark(t, (uintptr_t)m, (uintptr_t)m + 8 * PAGE), 0);
        cr_assert_eq(madvise(m, 8 * PAGE, MADV_DONTNEED), 0);
        if (!order)
            cr_assert_eq(tracker_mark(t, (uintptr_t)m, (uintptr_t)m + 8 * PAGE), 0);
        cr_assert_eq(m[2 * PAGE], 'f');
        scan(t);
        cr_assert(is_found(m + 2 * PAGE), "dropped and marked, order %d", order);
        expect_none(t, "once");
    }
}

ON_EACH(read_only_mappings_are_tracked_for_later)
{
    uint8_t *m = map(4, PROT_READ | PROT_WRITE);
    m[PAGE] = 1;
    cr_assert_eq(mprotect(m, 4 * PAGE, PROT_READ), 0);
    add(t, m, 4);
    expect_none(t, "armed");
    cr_assert_eq(mprotect(m, 4 * PAGE, PROT_READ | PROT_WRITE), 0);
    expect_none(t, "writable now");
    m[PAGE] = 3;
    m[2 * PAGE] = 3;
    cr_assert_eq(mprotect(m, 4 * PAGE, PROT_NONE), 0);
    cr_assert_eq(mprotect(m, 4 * PAGE, PROT_READ), 0);
    EXPECT(t, "written between", m + PAGE, m + 2 * PAGE);
    cr_assert_eq(mprotect(m + PAGE, PAGE, PROT_READ | PROT_WRITE), 0);
    m[PAGE] = 4;
    EXPECT(t, "one page of it", m + PAGE);
}

ON_EACH(dropped_pages_are_reported)
{
    uint8_t *m = map(8, PROT_READ | PROT_WRITE);
    memset(m, 7, 6 * PAGE);
    add(t, m, 8);
    expect_none(t, "armed");
    cr_assert_eq(madvise(m + PAGE, 2 * PAGE, MADV_DONTNEED), 0);
    EXPECT(t, "dropped", m + PAGE, m + 2 * PAGE);
    expect_none(t, "once");
    cr_assert_eq(madvise(m + 3 * PAGE, PAGE, MADV_DONTNEED), 0);
    cr_assert_eq(tracker_mark(t, (uintptr_t)m + 3 * PAGE, (uintptr_t)m + 4 * PAGE), 0);
    cr_assert_eq(m[3 * PAGE], 0);
    EXPECT(t, "dropped, marked, read again", m + 3 * PAGE);
    m[3 * PAGE] = 1;
    EXPECT(t, "written where something was dropped", m + 3 * PAGE);
}

ON_EACH(marks_count_where_pages_are_tracked_only)
{
    uint8_t *m = map(16, PROT_READ | PROT_WRITE);
    memset(m, 1, 16 * PAGE);
    add(t, m + PAGE, 1);
    add(t, m + 4 * PAGE, 2);
    add(t, m + 9 * PAGE, 2);
    cr_assert_eq(mprotect(m + 4 * PAGE, PAGE, PROT_READ), 0); /* two mappings */
    cr_assert_eq(munmap(m + 7 * PAGE, PAGE), 0);
    cr_assert_eq(tracker_mark(t, (uintptr_t)m, (uintptr_t)m + 10 * PAGE), 0);
    EXPECT(t, "marked", m + PAGE, m + 4 * PAGE, m + 5 * PAGE, m + 9 * PAGE);
    cr_assert(!is_found(m) && !is_found(m + 2 * PAGE) && !is_found(m + 6 * PAGE) && !is_found(m + 8 * PAGE));
    expect_none(t, "once");
}

ON_EACH(pages_that_are_expected_to_be_written_are_found_once)
{
    uint8_t *m = map(16, PROT_READ | PROT_WRITE);
    memset(m, 1, 6 * PAGE); /* the last two are absent */
    add(t, m, 8);
    expect_none(t, "armed");
    tracker_expect(t, (uintptr_t)m + 4 * PAGE, (uintptr_t)m + 8 * PAGE);
    memset(m + 4 * PAGE, 2, 4 * PAGE);
    m[PAGE] = 2;
    EXPECT(t, "written", m + PAGE, m + 4 * PAGE, m + 5 * PAGE, m + 6 * PAGE, m + 7 * PAGE);
    expect_none(t, "once");
    m[5 * PAGE] = 3;
    EXPECT(t, "written later", m + 5 * PAGE);
    tracker_expect(t, (uintptr_t)m + 6 * PAGE, (uintptr_t)m + 12 * PAGE); /* a part is not tracked */
    m[7 * PAGE] = m[9 * PAGE] = 4;
    scan(t);
    cr_assert(is_found(m + 7 * PAGE) && !is_found(m + 9 * PAGE));
}

ON_EACH(huge_drops_are_reported)
{
    size_t pages = 4096; /* whole page tables vanish */
    uint8_t *m = map(pages, PROT_READ | PROT_WRITE);
    madvise(m, pages * PAGE, MADV_NOHUGEPAGE); /* soft-dirty: a huge page is one page */
    memset(m, 7, pages * PAGE);
    add(t, m, pages);
    expect_none(t, "armed");
    cr_assert_eq(madvise(m, pages * PAGE, MADV_DONTNEED), 0);
    size_t n = scan(t);
    cr_assert_eq(n, pages, "%zu reported", n);
    m[1234 * PAGE] = 1;
    EXPECT(t, "written in the hole", m + 1234 * PAGE);
}

ON_EACH(a_small_array_is_filled_in_portions)
{
    uint8_t *m = map(200, PROT_READ | PROT_WRITE);
    add(t, m, 200);
    for (size_t i = 0; i < 200; i += 2)
        m[i * PAGE] = 1;
    size_t n = scan_span(t, (uintptr_t)m, (uintptr_t)m + 200 * PAGE, 7);
    cr_assert_eq(n, 100, "%zu", n);
    for (size_t i = 0; i < 200; i++)
        cr_assert_eq(is_found(m + i * PAGE), i % 2 == 0);
    expect_none(t, "all taken");
}

ON_EACH(part_of_the_span_leaves_the_rest_written)
{
    uint8_t *m = map(8, PROT_READ | PROT_WRITE);
    add(t, m, 8);
    m[PAGE] = m[2 * PAGE] = m[6 * PAGE] = 1;
    scan_span(t, (uintptr_t)m + 2 * PAGE, (uintptr_t)m + 4 * PAGE, 8);
    cr_assert(is_found(m + 2 * PAGE) && !is_found(m + PAGE) && !is_found(m + 6 * PAGE));
    m[3 * PAGE] = 1;
    EXPECT(t, "rest", m + PAGE, m + 3 * PAGE, m + 6 * PAGE);
}

ON_EACH(adding_leaves_what_others_wrote)
{
    uint8_t *a = map(4, PROT_READ | PROT_WRITE), *hole = map(4, PROT_READ | PROT_WRITE);
    uint8_t *b = map(4, PROT_READ | PROT_WRITE);
    munmap(hole, 4 * PAGE);
    add(t, a, 4);
    a[PAGE] = 1;
    b[PAGE] = 1;
    add(t, b, 4);
    b[2 * PAGE] = 1;
    EXPECT(t, "both", a + PAGE, b + 2 * PAGE);
    a[2 * PAGE] = a[3 * PAGE] = 1;
    add(t, a, 3); /* again */
    EXPECT(t, "what was added again is clean, the rest is not", a + 3 * PAGE);
}

ON_EACH(what_was_removed_or_never_added_is_not_reported)
{
    uint8_t *m = map(8, PROT_READ | PROT_WRITE);
    add(t, m, 6);
    m[PAGE] = m[3 * PAGE] = m[7 * PAGE] = 1;
    cr_assert_eq(munmap(m + 2 * PAGE, 2 * PAGE), 0);
    cr_assert_eq(tracker_remove(t, (uintptr_t)m + 2 * PAGE, (uintptr_t)m + 4 * PAGE), 0);
    EXPECT(t, "removed", m + PAGE);
    cr_assert(!is_found(m + 3 * PAGE) && !is_found(m + 7 * PAGE));
    uint8_t *again = mmap(m + 2 * PAGE, 2 * PAGE, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    again[PAGE] = 1;
    scan(t);
    cr_assert(!is_found(again + PAGE), "a new mapping at the old place");
    cr_assert_eq(tracker_remove(t, (uintptr_t)m, (uintptr_t)m + PAGE), 0);
    m[0] = 1;
    scan(t);
    cr_assert(!is_found(m), "removed, still mapped");
}

ON_EACH(replaced_mappings_can_be_added_again)
{
    uint8_t *m = map(4, PROT_READ | PROT_WRITE);
    memset(m, 1, 4 * PAGE);
    add(t, m, 4);
    mmap(m + PAGE, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    tracker_remove(t, (uintptr_t)m + PAGE, (uintptr_t)m + 2 * PAGE);
    m[PAGE] = 2;
    add(t, m + PAGE, 1);
    scan(t);
    cr_assert(!exact(t) || !is_found(m + PAGE)); /* soft-dirty: mappings that merge are dirty as a whole, once */
    expect_none(t, "armed");
    m[PAGE] = 3;
    EXPECT(t, "written", m + PAGE);
}

ON_EACH(moved_mappings_must_be_added_again)
{
    uint8_t *m = map(4, PROT_READ | PROT_WRITE), *room = map(16, PROT_NONE);
    memset(m, 1, 3 * PAGE);
    add(t, m, 4);
    uint8_t *to = mremap(m, 4 * PAGE, 8 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, room);
    cr_assert_eq(to, room);
    tracker_remove(t, (uintptr_t)m, (uintptr_t)m + 4 * PAGE);
    add(t, to, 8);
    expect_none(t, "armed");
    cr_assert_eq(to[2 * PAGE], 1);
    to[2 * PAGE] = to[3 * PAGE] = to[7 * PAGE] = 2;
    EXPECT(t, "written", to + 2 * PAGE, to + 3 * PAGE, to + 7 * PAGE);
}

ON_EACH(mappings_that_grow_in_place_can_be_added_again)
{
    uint8_t *m = map(16, PROT_READ | PROT_WRITE);
    cr_assert_eq(munmap(m + 4 * PAGE, 12 * PAGE), 0);
    m[PAGE] = 1;
    add(t, m, 4);
    m[2 * PAGE] = 1;
    cr_assert_eq(mremap(m, 4 * PAGE, 8 * PAGE, 0), m);
    m[6 * PAGE] = 1;
    add(t, m + 4 * PAGE, 4);
    m[5 * PAGE] = 1;
    EXPECT(t, "written", m + 2 * PAGE, m + 5 * PAGE);
}

ON_EACH(stacks_that_grow_are_reported)
{
    uint8_t *m = map(300, PROT_NONE);
    uint8_t *stack = mmap(m + 292 * PAGE, 8 * PAGE, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_GROWSDOWN, -1, 0);
    cr_assert_eq(munmap(m, 292 * PAGE), 0);
    stack[PAGE] = 1;
    add(t, stack, 8);
    expect_none(t, "armed");
    *(volatile uint8_t *)(stack - PAGE) = 1;
    stack[2 * PAGE] = 1;
    if (t->kind != TRACKER_UFFD)
        add(t, stack - PAGE, 1); /* and the caller takes it all */
    scan(t);
    cr_assert(is_found(stack + 2 * PAGE));
    cr_assert(t->kind != TRACKER_UFFD || is_found(stack - PAGE), "the new part comes by itself");
    stack[-(long)PAGE] = 2;
    EXPECT(t, "grown part, written again", stack - PAGE);
}

ON_EACH(parents_of_a_fork_stay_tracked)
{
    uint8_t *m = map(8, PROT_READ | PROT_WRITE);
    memset(m, 1, 6 * PAGE);
    add(t, m, 8);
    expect_none(t, "armed");
    m[PAGE] = 2;
    int go[2];
    cr_assert_eq(pipe(go), 0);
    pid_t child = fork();
    if (child == 0) {
        m[5 * PAGE] = 9;
        char c;
        _exit(read(go[0], &c, 1) != 1);
    }
    m[2 * PAGE] = 2; /* copied on write */
    m[7 * PAGE] = 2;
    EXPECT(t, "child alive", m + PAGE, m + 2 * PAGE, m + 7 * PAGE);
    cr_assert_eq(write(go[1], "", 1), 1);
    waitpid(child, NULL, 0);
    expect_none(t, "child gone");
    m[3 * PAGE] = 2;
    EXPECT(t, "after", m + 3 * PAGE);
}

static size_t populated(struct tracker *t, const uint8_t *m, size_t pages, size_t portion, bool *have)
{
    uintptr_t at = (uintptr_t)m, end = at + pages * PAGE;
    size_t count = 0;
    memset(have, 0, pages);
    while (at < end) {
        struct page_range out[64];
        long n = tracker_populated(t, at, end, out, portion, &at);
        cr_assert_geq(n, 0, "populated: %ld", n);
        for (long i = 0; i < n; i++)
            for (uintptr_t p = out[i].start; p < out[i].end; p += PAGE, count++)
                have[(p - (uintptr_t)m) / PAGE] = true;
    }
    return count;
}

static void check_populated(struct tracker *t, uint8_t *m, bool anonymous)
{
    bool have[64];
    static const size_t written[] = {3, 4, 9, 20, 22, 24, 63};
    size_t n = sizeof written / sizeof written[0];
    for (size_t i = 0; i < n; i++)
        m[written[i] * PAGE] = 1;
    if (!anonymous)
        cr_assert_eq(m[30 * PAGE], 'f');
    for (int round = 0; round < 6; round++) {
        size_t count = populated(t, m, 64, round % 2 ? 2 : 64, have);
        cr_assert_eq(count, n, "round %d: %zu populated", round, count);
        for (size_t i = 0; i < n; i++)
            cr_assert(have[written[i]], "round %d: page %zu", round, written[i]);
        if (round == 0)
            add(t, m, 64);
        if (round > 1)
            expect_none(t, "asking changes nothing");
        if (round == 3) {
            m[20 * PAGE] = 2;
            populated(t, m, 64, 3, have);
            EXPECT(t, "what was written is still known", m + 20 * PAGE);
        }
    }
}

ON_EACH(populated_pages_of_anonymous_memory_are_told)
{
    check_populated(t, map(64, PROT_READ | PROT_WRITE), true);
}

ON_EACH(populated_pages_of_a_file_are_the_written_ones)
{
    check_populated(t, map_file(64), false);
}

/* ---- one for all -------------------------------------------------------------------------------- */

Test(tracker, best_is_one_that_works)
{
    struct tracker *t = window_alloc(sizeof *t);
    int kind = tracker_open(t, TRACKER_BEST);
    cr_assert_gt(kind, 0);
    cr_assert_eq((int)t->kind, kind);
    cr_assert_geq(t->pagemap.fd, 900);
    cr_assert(fcntl(t->pagemap.fd, F_GETFD) & FD_CLOEXEC);
    cr_assert(t->uffd == -1 || t->uffd >= 900);
    int fd = t->pagemap.fd;
    tracker_close(t);
    cr_assert_eq(fcntl(fd, F_GETFD), -1);
}

Test(tracker, the_missing_ones_are_named)
{
    for (int kind = TRACKER_UFFD; kind <= TRACKER_COMPARE; kind++) {
        struct tracker *t = window_alloc(sizeof *t);
        int r = tracker_open(t, (enum tracker_kind)kind);
        cr_assert_eq(r, kernel_has((enum tracker_kind)kind) ? kind : -EOPNOTSUPP, "%d", r);
        if (r != kind)
            printf("SKIP tracker: this kernel has no %s\n", tracker_name((enum tracker_kind)kind));
        fflush(stdout);
    }
}

Test(tracker, names_go_both_ways)
{
    for (int kind = TRACKER_BEST; kind <= TRACKER_COMPARE; kind++)
        cr_assert_eq(tracker_named(tracker_name((enum tracker_kind)kind)), kind);
    cr_assert_eq(tracker_named("mprotect"), -EINVAL);
}
