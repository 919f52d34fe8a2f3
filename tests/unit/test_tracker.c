/* The same tests on each backend that this kernel has; what is missing is skipped with its name. */
#define _GNU_SOURCE /* mremap */
#include "heap/sys.h"
#include "heap/tracker.h"
#include "heap/window.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE PAGE_BYTES
#define SPAN_END 0x7ffffffff000UL

static void open_window(void)
{
    cr_assert(!sys_failed(window_open(0)));
}

TestSuite(uffd, .init = open_window, .timeout = 60);
TestSuite(softdirty, .init = open_window, .timeout = 60);
TestSuite(compare, .init = open_window, .timeout = 60);
TestSuite(tracker, .init = open_window, .timeout = 60);

/* Asked of the kernel by other means than the tracker's own trial, so that a tracker that broke is a failure and
 * not a skip. */
static bool kernel_has(enum tracker_kind kind)
{
    if (kind == TRACKER_UFFD) {
        struct uffdio_api api = {.api = UFFD_API, .features = 1UL << 15 | 1UL << 13 | 1};
        int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
        bool has = fd >= 0 && ioctl(fd, UFFDIO_API, &api) == 0;
        close(fd);
        return has; /* WP_ASYNC came with PAGEMAP_SCAN */
    }
    if (kind == TRACKER_COMPARE)
        return true;
    uint64_t entry = 0;
    volatile uint8_t *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int fd = open("/proc/self/pagemap", O_RDONLY);
    page[0] = 1;
    cr_assert_eq(pread(fd, &entry, 8, (long)((uintptr_t)page / PAGE * 8)), 8);
    close(fd);
    return entry & PAGEMAP_SOFT_DIRTY;
}

static struct tracker *open_or_skip(enum tracker_kind kind)
{
    struct tracker *t = window_alloc(sizeof *t);
    int r = tracker_open(t, kind);
    if (r == -EOPNOTSUPP && !kernel_has(kind))
        cr_skip_test("this kernel has no %s tracker", tracker_name(kind));
    cr_assert_eq(r, (int)kind, "open: %d", r);
    return t;
}

#define ON_EACH(name)                                                                              \
    static void name(struct tracker *t);                                                           \
    Test(uffd, name) { name(open_or_skip(TRACKER_UFFD)); }                                         \
    Test(softdirty, name) { name(open_or_skip(TRACKER_SOFTDIRTY)); }                               \
    Test(compare, name) { name(open_or_skip(TRACKER_COMPARE)); }                                   \
    static void name(struct tracker *t)

/* What the last scan found. */
static struct page_range found[4096];
static size_t found_count;

static size_t scan_span(struct tracker *t, uintptr_t from, uintptr_t to, size_t portion)
{
    found_count = 0;
    while (from < to) {
        cr_assert_leq(found_count + portion, 4096);
        long n = tracker_scan(t, from, to, found + found_count, portion, &from);
        cr_assert_geq(n, 0, "scan: %ld", n);
        found_count += (size_t)n;
    }
    size_t pages = 0;
    for (size_t i = 0; i < found_count; i++)
        pages += (found[i].end - found[i].start) / PAGE;
    return pages;
}

static size_t scan(struct tracker *t)
{
    return scan_span(t, PAGE, SPAN_END, 512);
}

static bool is_found(const void *page)
{
    for (size_t i = 0; i < found_count; i++)
        if ((uintptr_t)page >= found[i].start && (uintptr_t)page < found[i].end)
            return true;
    return false;
}

static bool exact(const struct tracker *t)
{
    return t->kind != TRACKER_COMPARE;
}

/* These pages, and for an exact tracker no others. */
static void expect(struct tracker *t, size_t n, const uint8_t *const *pages, const char *what)
{
    size_t count = scan(t);
    for (size_t i = 0; i < n; i++)
        cr_assert(is_found(pages[i]), "%s: page %zu is not reported", what, i);
    if (exact(t))
        cr_assert_eq(count, n, "%s: %zu pages reported instead of %zu", what, count, n);
}
#define EXPECT(t, what, ...)                                                                       \
    expect(t, sizeof((const uint8_t *[]){__VA_ARGS__}) / sizeof(uint8_t *),                        \
           (const uint8_t *[]){__VA_ARGS__}, what)

static void expect_none(struct tracker *t, const char *what)
{
    expect(t, 0, NULL, what);
}

static uint8_t *map(size_t pages, int prot)
{
    uint8_t *at = mmap(NULL, pages * PAGE, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(at, MAP_FAILED);
    return at;
}

static uint8_t *map_file(size_t pages)
{
    char name[] = "/tmp/test_tracker_XXXXXX";
    int fd = mkstemp(name);
    cr_assert_geq(fd, 0);
    unlink(name);
    for (size_t i = 0; i < pages * PAGE; i += 4)
        cr_assert_eq(write(fd, "file", 4), 4);
    uint8_t *at = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    cr_assert_neq(at, MAP_FAILED);
    close(fd);
    return at;
}

static void add(struct tracker *t, const void *at, size_t pages)
{
    int r = tracker_add(t, (uintptr_t)at, (uintptr_t)at + pages * PAGE);
    cr_assert_eq(r, 0, "add: %d", r);
}

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

/* ---- pages that stand apart from userfaultfd ----------------------------------------------------------- */

static struct tracker *open_apart(void)
{
    struct tracker *t = open_or_skip(TRACKER_UFFD);
    cr_assert_eq(tracker_allow_apart(t, true), 0);
    return t;
}

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

/* ---- random ------------------------------------------------------------------------------------- */

#define PAGES 96u
static uint8_t *world;   /* anonymous | hole | file | hole | stack-like */
static uint8_t *twins;
static bool touched[PAGES], mapped[PAGES];
static int feed[2];

static void build_world(struct tracker *t)
{
    world = map(PAGES, PROT_NONE);
    twins = map(PAGES, PROT_READ | PROT_WRITE);
    uint8_t *file = map_file(24);
    cr_assert_neq(mmap(world, 40 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0),
                  MAP_FAILED);
    cr_assert_neq(mremap(file, 24 * PAGE, 24 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, world + 48 * PAGE), MAP_FAILED);
    cr_assert_neq(mmap(world + 80 * PAGE, 16 * PAGE, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_STACK | MAP_NORESERVE, -1, 0), MAP_FAILED);
    munmap(world + 40 * PAGE, 8 * PAGE);
    munmap(world + 72 * PAGE, 8 * PAGE);
    for (unsigned i = 0; i < PAGES; i++) {
        mapped[i] = i < 40 || (i >= 48 && i < 72) || i >= 80;
        if (mapped[i] && i % 3)
            memset(world + i * PAGE, (int)i, 100);
        if (mapped[i])
            memcpy(twins + i * PAGE, world + i * PAGE, PAGE);
    }
    add(t, world, 40);
    add(t, world + 48 * PAGE, 24);
    add(t, world + 80 * PAGE, 16);
    cr_assert_eq(pipe(feed), 0);
}

static void random_act(struct tracker *t)
{
    unsigned i = (unsigned)rand() % PAGES;
    if (!mapped[i])
        return;
    uint8_t *page = world + i * PAGE;
    int act = rand() % 13;
    touched[i] = touched[i] || act != 11;
    if (act < 6) {
        page[rand() % (int)PAGE] = (uint8_t)rand();
    } else if (act < 8) {
        cr_assert_eq(write(feed[1], &act, sizeof act), (long)sizeof act);
        cr_assert_eq(read(feed[0], page + 8 * (rand() % 500), sizeof act), (long)sizeof act);
    } else if (act == 8) {
        cr_assert_eq(madvise(page, PAGE, MADV_DONTNEED), 0);
        cr_assert_eq(tracker_mark(t, (uintptr_t)page, (uintptr_t)page + PAGE), 0);
    } else if (act == 9) {
        tracker_settle(t, (uintptr_t)page, (uintptr_t)page + PAGE);
        mprotect(page, PAGE, PROT_READ);
        mprotect(page, PAGE, PROT_READ | PROT_WRITE);
        *page ^= 1;
    } else if (act == 10) {
        pid_t child = fork();
        if (child == 0) {
            memset(page, 77, PAGE);
            _exit(0);
        }
        page[1] ^= 3;
        waitpid(child, NULL, 0);
    } else if (act == 12) {
        tracker_expect(t, (uintptr_t)page, (uintptr_t)page + PAGE);
        memset(page, rand(), PAGE);
    } else {
        (void)*(volatile uint8_t *)page;
    }
}

/* Differences from the twins without reading the program's pages where nothing may have happened: reading maps
 * pages, and the absent ones are half of the subject. */
static void check_round(struct tracker *t, struct tracker *reference, bool look_everywhere)
{
    scan(t);
    bool mine[PAGES], theirs[PAGES];
    for (unsigned i = 0; i < PAGES; i++)
        mine[i] = is_found(world + i * PAGE);
    if (reference)
        scan(reference);
    for (unsigned i = 0; i < PAGES; i++)
        theirs[i] = reference ? is_found(world + i * PAGE) : mine[i];
    for (unsigned i = 0; i < PAGES; i++) {
        uint8_t *page = world + i * PAGE, *twin = twins + i * PAGE;
        if (exact(t) && !t->apart.allowed)
            cr_assert_eq(mine[i], touched[i], "page %u: reported %d, touched %d", i, mine[i], touched[i]);
        if (mapped[i] && (look_everywhere || touched[i]) && memcmp(page, twin, PAGE)) {
            cr_assert(mine[i], "page %u has changed and is not reported", i);
            cr_assert(theirs[i], "page %u has changed and compare does not report it", i);
            memcpy(twin, page, PAGE);
        }
        touched[i] = false;
    }
}

static void run_random(struct tracker *t, struct tracker *reference)
{
    build_world(t);
    if (reference) {
        add(reference, world, 40);
        add(reference, world + 48 * PAGE, 24);
        add(reference, world + 80 * PAGE, 16);
    }
    srand(5);
    for (int round = 0; round < 300; round++) {
        for (int n = rand() % 12; n > 0; n--)
            random_act(t);
        bool heating = t->apart.allowed && round / 40 % 2 == 0;
        for (unsigned i = 3; heating && i < PAGES; i += 11) {
            touched[i] = true;
            if (mapped[i])
                world[i * PAGE + 7]++;
        }
        check_round(t, reference, round % 10 == 9);
    }
}

ON_EACH(random_writes_are_all_found)
{
    run_random(t, NULL);
}

ON_EACH(random_writes_are_found_by_two_trackers)
{
    run_random(t, open_or_skip(TRACKER_COMPARE));
}

Test(uffd, random_writes_are_found_where_pages_stand_apart)
{
    struct tracker *t = open_apart();
    run_random(t, NULL);
    cr_assert_gt(t->apart.hot.count, 0, "nothing got hot");
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
