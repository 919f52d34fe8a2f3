/* What finding and comparing 20 written pages costs, on each backend, and as a ratio to comparing everything.
 *
 * Medians of one run. "find" is tracker_scan(), "find+diff" adds diff_page() of every page found: that is the work
 * that a backend which reports too much moves elsewhere.
 */
#define _GNU_SOURCE
#include "heap/diff.h"
#include "heap/sys.h"
#include "heap/tracker.h"
#include "heap/window.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define DIRTY 20
#define SPAN_END 0x7ffffffff000UL

static double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double *values, size_t n)
{
    qsort(values, n, sizeof *values, by_value);
    return values[n / 2];
}

/* For small mappings the kernel's flush dominates: it invalidates page by page (0.13 us each on the build machine) from
 * the first written page of a mapping to its end, up to 33 pages, and all at once only beyond that. */

/* The memory of a layout: `mappings` of `pages` each, apart from each other. All pages hold the same. */
struct layout {
    const char *name;
    size_t mappings, pages;
    uint8_t *at[64];
};
static _Alignas(4096) uint8_t twin[PAGE_BYTES];

static void build(struct layout *l)
{
    for (size_t m = 0; m < l->mappings; m++) {
        size_t bytes = l->pages * PAGE_BYTES;
        uint8_t *room = mmap(NULL, bytes + 2 * PAGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (room == MAP_FAILED)
            exit(1);
        l->at[m] = room + PAGE_BYTES;
        mprotect(l->at[m], bytes, PROT_READ | PROT_WRITE);
        madvise(l->at[m], bytes, MADV_NOHUGEPAGE);
        memset(l->at[m], 7, bytes);
    }
}

static void unbuild(struct layout *l)
{
    for (size_t m = 0; m < l->mappings; m++)
        munmap(l->at[m] - PAGE_BYTES, (l->pages + 2) * PAGE_BYTES);
}

struct cost {
    double find, both, write; /* us; write: the first write to a page */
};

static void find(struct tracker *t, bool diff, size_t *pages, uint64_t *changed)
{
    static struct page_range out[4096];
    uintptr_t at = PAGE_BYTES;
    while (at < SPAN_END) {
        long n = tracker_scan(t, at, SPAN_END, out, 4096, &at);
        if (n < 0)
            exit(1);
        for (long i = 0; i < n; i++) {
            *pages += (out[i].end - out[i].start) / PAGE_BYTES;
            for (uintptr_t p = out[i].start; diff && p < out[i].end; p += PAGE_BYTES)
                *changed |= diff_page((void *)p, twin);
        }
    }
}

static struct cost measure(struct tracker *t, struct layout *l, int rounds)
{
    static double finds[1000], boths[1000], writes[1000];
    for (size_t m = 0; m < l->mappings; m++)
        if (tracker_add(t, (uintptr_t)l->at[m], (uintptr_t)l->at[m] + l->pages * PAGE_BYTES))
            exit(1);
    for (int r = 0; r < 2 * rounds; r++) {
        uint8_t *target[DIRTY];
        size_t pages = 0;
        uint64_t changed = 0;
        for (int i = 0; i < DIRTY; i++)
            target[i] = l->at[(size_t)rand() % l->mappings] + (size_t)rand() % l->pages * PAGE_BYTES;
        double start = now_us();
        for (int i = 0; i < DIRTY; i++)
            *(volatile uint8_t *)target[i] = 7;
        writes[r / 2] = (now_us() - start) / DIRTY;
        start = now_us();
        find(t, r % 2, &pages, &changed);
        (r % 2 ? boths : finds)[r / 2] = now_us() - start;
        if (pages == 0 || changed)
            exit(1);
    }
    for (size_t m = 0; m < l->mappings; m++)
        tracker_remove(t, (uintptr_t)l->at[m], (uintptr_t)l->at[m] + l->pages * PAGE_BYTES);
    return (struct cost){median(finds, (size_t)rounds), median(boths, (size_t)rounds), median(writes, (size_t)rounds)};
}

static double diff_ns(size_t pages, const void *other)
{
    uint8_t *m = mmap(NULL, pages * PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    double best = 1e9;
    memset(m, other ? 7 : 0, pages * PAGE_BYTES);
    for (int r = 0; r < 20; r++) {
        double start = now_us();
        for (size_t i = 0; i < pages; i++)
            if (diff_page(m + i * PAGE_BYTES, other))
                exit(1);
        double ns = (now_us() - start) * 1e3 / (double)pages;
        best = ns < best ? ns : best;
    }
    munmap(m, pages * PAGE_BYTES);
    return best;
}

static double add_absent_ms(struct tracker *t)
{
    size_t bytes = 1UL << 30;
    uint8_t *m = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    double start = now_us();
    tracker_add(t, (uintptr_t)m, (uintptr_t)m + bytes);
    double ms = (now_us() - start) / 1e3;
    tracker_remove(t, (uintptr_t)m, (uintptr_t)m + bytes);
    munmap(m, bytes);
    return ms;
}

int main(void)
{
    static struct {
        struct layout layout;
        int rounds;
    } cases[] = {{{"40 mappings", 40, 24, {0}}, 400},
                 {{"10 MB", 1, 2560, {0}}, 400},
                 {{"100 MB", 1, 25600, {0}}, 60},
                 {{"1 GiB", 1, 262144, {0}}, 8}};
    static struct tracker t[TRACKER_COMPARE + 1];
    bool over = false;
    if (sys_failed(window_open(0)))
        return 1;
    memset(twin, 7, sizeof twin);
    printf("%-12s %-10s %12s %14s %16s %10s\n", "layout", "tracker", "find us", "find+diff us", "first write us",
           "of compare");
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        struct layout *l = &cases[c].layout;
        double reference = 0;
        build(l);
        for (int kind = TRACKER_COMPARE; kind >= TRACKER_UFFD; kind--) {
            if (tracker_open(&t[kind], (enum tracker_kind)kind) != kind)
                continue;
            struct cost cost = measure(&t[kind], l, cases[c].rounds);
            tracker_close(&t[kind]);
            if (kind == TRACKER_COMPARE)
                reference = cost.both;
            printf("%-12s %-10s %12.1f %14.1f %16.2f %10.4f\n", l->name, tracker_name((enum tracker_kind)kind), cost.find,
                   cost.both, cost.write, cost.both / reference);
            over |= kind == TRACKER_UFFD && l->mappings == 1 && cost.both > reference / 5;
        }
        unbuild(l);
    }
    for (int kind = TRACKER_UFFD; kind <= TRACKER_COMPARE; kind++)
        if (tracker_open(&t[kind], (enum tracker_kind)kind) == kind)
            printf("add 1 GiB of absent pages, %s: %.1f ms\n", tracker_name((enum tracker_kind)kind), add_absent_ms(&t[kind]));
    printf("diff_page: %.0f ns a page in cache, %.0f ns against zeros, %.0f ns from memory\n", diff_ns(1, twin),
           diff_ns(1, NULL), diff_ns(16384, twin));
    printf("uffd against a fifth of comparing everything, from 10 MB on: %s\n", over ? "OVER" : "within");
    return 0;
}
