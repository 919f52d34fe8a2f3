/* The soft-dirty tracker over files that stand in for /proc/self/pagemap and /proc/self/clear_refs, so that its logic
 * is tested on kernels without soft-dirty bits. The test plays the kernel. */
#define _GNU_SOURCE
#include "heap/sys.h"
#include "heap/tracker.h"
#include "heap/window.h"

#include <criterion/criterion.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define BASE 0x100000000UL
#define AT(page) (BASE + (page) * PAGE_BYTES)
#define HERE (PAGEMAP_PRESENT | 1)

static int pagemap, clear_refs;
static struct tracker *t;
static uint64_t entries[8192];

static void open_fake(void)
{
    cr_assert(!sys_failed(window_open(0)));
    pagemap = memfd_create("pagemap", 0);
    clear_refs = memfd_create("clear_refs", 0);
    cr_assert_eq(ftruncate(pagemap, (long)(AT(8192) / PAGE_BYTES * 8)), 0);
    t = window_alloc(sizeof *t);
    cr_assert_eq(tracker_open_on(t, TRACKER_SOFTDIRTY, pagemap, clear_refs), TRACKER_SOFTDIRTY);
}

TestSuite(softdirty_fake, .init = open_fake);

static void show(void)
{
    long bytes = (long)sizeof entries;
    cr_assert_eq(pwrite(pagemap, entries, sizeof entries, (long)(BASE / PAGE_BYTES * 8)), bytes);
}

static void set(unsigned page, uint64_t entry)
{
    entries[page] = entry;
    show();
}

static void write_page(unsigned page)
{
    set(page, HERE | PAGEMAP_SOFT_DIRTY);
}

/* What the kernel does when told to clear; returns how often it was told. */
static unsigned cleared(void)
{
    char text[64];
    long n = pread(clear_refs, text, sizeof text, 0);
    for (long i = 0; i < n; i++)
        cr_assert_eq(text[i], '4');
    if (n) {
        cr_assert_eq(ftruncate(clear_refs, 0), 0);
        cr_assert_eq(lseek(clear_refs, 0, SEEK_SET), 0);
        for (unsigned i = 0; i < 8192; i++)
            entries[i] &= ~PAGEMAP_SOFT_DIRTY;
        show();
    }
    return (unsigned)n;
}

static void add(unsigned from, unsigned to)
{
    cr_assert_eq(tracker_add(t, AT(from), AT(to)), 0);
    cr_assert_eq(cleared(), 1, "adding arms");
}

static long scan(unsigned from, unsigned to, struct page_range *out, size_t capacity, unsigned *walked)
{
    uintptr_t end;
    long n = tracker_scan(t, AT(from), AT(to), out, capacity, &end);
    *walked = (unsigned)((end - BASE) / PAGE_BYTES);
    return n;
}

static void expect_one(unsigned from, unsigned to, const char *what)
{
    struct page_range out[4];
    unsigned walked;
    cr_assert_eq(scan(0, 8192, out, 4, &walked), 1, "%s: number of ranges", what);
    cr_assert(out[0].start == AT(from) && out[0].end == AT(to), "%s: %lx-%lx", what, out[0].start, out[0].end);
    cr_assert_eq(walked, 8192);
    cleared();
}

static void expect_none(const char *what)
{
    struct page_range out[4];
    unsigned walked;
    long n = scan(0, 8192, out, 4, &walked);
    cr_assert_eq(n, 0, "%s: %ld ranges, the first %lx-%lx", what, n, out[0].start, out[0].end);
    cleared();
}

Test(softdirty_fake, reports_and_clears)
{
    write_page(9);
    add(0, 4096);
    expect_none("armed");
    write_page(10);
    write_page(11);
    write_page(5000); /* not tracked */
    struct page_range out[4];
    unsigned walked;
    cr_assert_eq(scan(0, 8192, out, 4, &walked), 1);
    cr_assert(out[0].start == AT(10) && out[0].end == AT(12));
    cr_assert_eq(cleared(), 1, "cleared once, after reading");
    expect_none("cleared");
}

Test(softdirty_fake, what_does_not_fit_is_kept_and_looked_at_once)
{
    struct page_range out[3];
    unsigned at = 0, found = 0, calls = 0;
    add(0, 100);
    for (unsigned i = 0; i < 20; i += 2)
        write_page(i);
    while (at < 8192) {
        long n = scan(at, 8192, out, 3, &at);
        for (long i = 0; i < n; i++, found++)
            cr_assert_eq(out[i].start, AT(2 * found));
        cr_assert_eq(cleared(), calls++ == 0, "only the beginning of a pass looks");
        write_page(1); /* behind the pass: found by the next */
    }
    cr_assert_eq(found, 10);
    cr_assert_eq(calls, 4);
    expect_one(1, 2, "next pass");
}

Test(softdirty_fake, two_spans_are_one_pass)
{
    struct page_range out[4];
    unsigned walked;
    add(0, 100);
    write_page(10);
    write_page(60);
    cr_assert_eq(scan(0, 30, out, 4, &walked), 1);
    cr_assert_eq(out[0].start, AT(10));
    cr_assert_eq(cleared(), 1);
    cr_assert_eq(scan(50, 8192, out, 4, &walked), 1);
    cr_assert_eq(out[0].start, AT(60));
    cr_assert_eq(cleared(), 0);
    write_page(70);
    expect_one(70, 71, "next pass");
}

Test(softdirty_fake, outside_of_the_span_nothing_is_lost)
{
    struct page_range out[4];
    unsigned walked;
    add(0, 100);
    write_page(10);
    write_page(60);
    cr_assert_eq(scan(50, 70, out, 4, &walked), 1);
    cleared();
    expect_one(10, 11, "still to be told");
    expect_none("told");
}

Test(softdirty_fake, adding_clears_but_does_not_lose)
{
    add(0, 100);
    write_page(10);
    write_page(200);
    add(200, 300);
    expect_one(10, 11, "written before the other was added");
    write_page(200);
    write_page(50);
    add(0, 100);
    expect_one(200, 201, "added again: clean; the other's write is kept");
}

Test(softdirty_fake, removed_ranges_are_forgotten)
{
    add(0, 100);
    write_page(10);
    write_page(20);
    cr_assert_eq(tracker_remove(t, AT(20), AT(30)), 0);
    expect_one(10, 11, "before the pass");
    struct page_range out[4];
    unsigned walked;
    write_page(30);
    write_page(50);
    cr_assert_eq(scan(50, 8192, out, 4, &walked), 1, "30 is waiting");
    cleared();
    cr_assert_eq(tracker_remove(t, AT(30), AT(31)), 0);
    expect_none("removed while waiting");
    set(40, HERE);
    expect_none("40 is held now");
    cr_assert_eq(tracker_remove(t, AT(40), AT(41)), 0);
    set(40, 0);
    expect_none("gone, and nobody's business");
}

Test(softdirty_fake, dropped_pages_are_noticed)
{
    set(5, HERE);
    set(6, PAGEMAP_SWAPPED);
    set(7, HERE | PAGEMAP_FILE);
    set(8, HERE);
    add(0, 100);
    expect_none("armed");
    entries[5] = entries[6] = entries[7] = 0;
    show();
    expect_one(5, 7, "of which two held private memory");
    expect_none("once");
    set(8, HERE | PAGEMAP_FILE);
    expect_one(8, 9, "the file's page is back");
    set(9, HERE | PAGEMAP_SOFT_DIRTY);
    expect_one(9, 10, "new");
    set(9, 0);
    expect_one(9, 10, "new, then dropped");
}

Test(softdirty_fake, marks_are_reported)
{
    set(5, HERE);
    add(0, 10);
    add(20, 30);
    cr_assert_eq(tracker_mark(t, AT(9), AT(11)), 0);
    expect_one(9, 10, "the tracked part");
    expect_none("once");
}

Test(softdirty_fake, swapped_and_absent_pages_have_the_bit_too)
{
    add(0, 100);
    entries[5] = PAGEMAP_SWAPPED | PAGEMAP_SOFT_DIRTY;
    entries[6] = PAGEMAP_SOFT_DIRTY; /* a new mapping's hole */
    entries[7] = HERE | PAGEMAP_FILE | PAGEMAP_SOFT_DIRTY;
    show();
    expect_one(5, 8, "all three");
}

Test(softdirty_fake, large_ranges_are_read_in_portions)
{
    add(0, 8192);
    write_page(0);
    expect_one(0, 1, "first");
    write_page(4095);
    write_page(4096);
    expect_one(4095, 4097, "across");
    write_page(8191);
    expect_one(8191, 8192, "last");
}

Test(softdirty_fake, populated_pages_come_from_the_entries)
{
    struct page_range out[2];
    uintptr_t walked;
    entries[3] = HERE;
    entries[4] = PAGEMAP_SWAPPED;
    entries[5] = HERE | PAGEMAP_FILE;
    entries[6] = HERE;
    entries[4500] = HERE;
    show();
    cr_assert_eq(tracker_populated(t, AT(0), AT(8192), out, 2, &walked), 2);
    cr_assert(out[0].start == AT(3) && out[0].end == AT(5));
    cr_assert(out[1].start == AT(6) && out[1].end == AT(7));
    cr_assert_eq(walked, AT(4500));
    cr_assert_eq(tracker_populated(t, walked, AT(8192), out, 2, &walked), 1);
    cr_assert(out[0].start == AT(4500) && walked == AT(8192));
    cr_assert_eq(cleared(), 0);
}

Test(softdirty_fake, errors_lose_nothing)
{
    struct page_range out[4];
    uintptr_t walked;
    add(0, 10);
    write_page(3);
    int fd = dup(clear_refs);
    close(clear_refs);
    cr_assert_lt(tracker_scan(t, AT(0), AT(10), out, 4, &walked), 0, "nothing to clear with");
    cr_assert_eq(dup2(fd, clear_refs), clear_refs);
    expect_one(3, 4, "at the second try");
}
