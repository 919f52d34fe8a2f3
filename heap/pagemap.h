/* What the kernel tells of the process's pages: /proc/self/pagemap, read or scanned.
 *
 * Opened once, at start: later the process may have become not dumpable (setuid), and the open would fail.
 * Lives in the window. Not thread-safe.
 * Source: Documentation/admin-guide/mm/pagemap.rst; include/uapi/linux/fs.h of Linux 6.7 (Debian 12's headers are
 * older than PAGEMAP_SCAN, so its definitions are repeated here).
 */
#ifndef KEN_HEAP_PAGEMAP_H
#define KEN_HEAP_PAGEMAP_H

#include "heap/pages.h"

/* One entry of /proc/self/pagemap. */
#define PAGEMAP_PRESENT (1UL << 63)
#define PAGEMAP_SWAPPED (1UL << 62)
#define PAGEMAP_FILE (1UL << 61)
#define PAGEMAP_SOFT_DIRTY (1UL << 55)

/* PAGEMAP_SCAN's categories of a page. */
#define SCAN_WRITTEN (1UL << 1)
#define SCAN_FILE (1UL << 2)
#define SCAN_PRESENT (1UL << 3)
#define SCAN_SWAPPED (1UL << 4)
#define SCAN_ZERO_PAGE (1UL << 5)

struct scan_region {
    uint64_t start, end, categories;
};

/* Which pages a scan looks for: (categories ^ inverted) has all bits of `all` and, unless that is 0, one of `any`. */
struct scan_query {
    uint64_t inverted, all, any, wanted; /* wanted: which categories it returns */
    bool protect;                        /* write-protects what it finds; skips what is not under userfaultfd */
};

/* A page of private memory: in the process, not the file's, not the kernel's zero page. */
extern const struct scan_query SCAN_POPULATED;

struct pagemap {
    int fd;
    bool scans;          /* the kernel has PAGEMAP_SCAN */
    uint64_t *entries;   /* PAGEMAP_ENTRIES of scratch, in the window */
};
#define PAGEMAP_ENTRIES 4096u

/* Opens /proc/self/pagemap. Returns 0 or -errno. */
int pagemap_open(struct pagemap *);

/* The same over a file that stands in for it; the descriptor's ownership passes. */
int pagemap_open_on(struct pagemap *, int fd);
void pagemap_close(struct pagemap *);

/* Reads the entries from the page of `from` on, at most up to `to`, into `entries`. Returns how many, or -errno;
 * 0 beyond the end of the address space. */
long pagemap_read(struct pagemap *, uintptr_t from, uintptr_t to);

/* One PAGEMAP_SCAN, or as many as it takes to fill `regions` or get to the end. Returns the number of regions or
 * -errno; everything below *walk_end was looked at. Without regions (capacity 0) it only protects. */
long pagemap_scan(struct pagemap *, const struct scan_query *, uintptr_t from, uintptr_t to,
                  struct scan_region *regions, size_t capacity, uintptr_t *walk_end);

/* The pages that are in the process's page tables, whoever's they are; not what is swapped. Result as of
 * pagemap_populated(). */
long pagemap_present(struct pagemap *, uintptr_t from, uintptr_t to, struct page_range *out, size_t capacity,
                     uintptr_t *walk_end);

/* tracker_populated() for ranges that userfaultfd has not marked. */
long pagemap_populated(struct pagemap *, uintptr_t from, uintptr_t to, struct page_range *out, size_t capacity,
                       uintptr_t *walk_end);

#endif
