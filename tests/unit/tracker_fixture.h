/* What the tests of the trackers share: one for each backend that this kernel has; what is missing is skipped with its name. */
#ifndef KEN_TEST_TRACKER_FIXTURE_H
#define KEN_TEST_TRACKER_FIXTURE_H

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

static inline void open_window(void)
{
    cr_assert(!sys_failed(window_open(0)));
}

/* Asked of the kernel by other means than the tracker's own trial, so that a tracker that broke is a failure and
 * not a skip. */
static inline bool kernel_has(enum tracker_kind kind)
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

static inline struct tracker *open_or_skip(enum tracker_kind kind)
{
    struct tracker *t = window_alloc(sizeof *t);
    int r = tracker_open(t, kind);
    if (r == -EOPNOTSUPP && !kernel_has(kind))
        cr_skip_test("this kernel has no %s tracker", tracker_name(kind));
    cr_assert_eq(r, (int)kind, "open: %d", r);
    return t;
}

/* One that may leave pages to stand apart. */
static inline struct tracker *open_apart(void)
{
    struct tracker *t = open_or_skip(TRACKER_UFFD);
    cr_assert_eq(tracker_allow_apart(t, true), 0);
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

static inline size_t scan_span(struct tracker *t, uintptr_t from, uintptr_t to, size_t portion)
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

static inline size_t scan(struct tracker *t)
{
    return scan_span(t, PAGE, SPAN_END, 512);
}

static inline bool is_found(const void *page)
{
    for (size_t i = 0; i < found_count; i++)
        if ((uintptr_t)page >= found[i].start && (uintptr_t)page < found[i].end)
            return true;
    return false;
}

static inline bool exact(const struct tracker *t)
{
    return t->kind != TRACKER_COMPARE;
}

/* These pages, and for an exact tracker no others. */
static inline void expect(struct tracker *t, size_t n, const uint8_t *const *pages, const char *what)
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

static inline void expect_none(struct tracker *t, const char *what)
{
    expect(t, 0, NULL, what);
}

static inline uint8_t *map(size_t pages, int prot)
{
    uint8_t *at = mmap(NULL, pages * PAGE, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    cr_assert_neq(at, MAP_FAILED);
    return at;
}

static inline uint8_t *map_file(size_t pages)
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

static inline void add(struct tracker *t, const void *at, size_t pages)
{
    int r = tracker_add(t, (uintptr_t)at, (uintptr_t)at + pages * PAGE);
    cr_assert_eq(r, 0, "add: %d", r);
}

#endif
