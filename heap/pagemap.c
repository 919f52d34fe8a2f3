#include "heap/pagemap.h"
#include "heap/disk.h"
#include "heap/proc.h"
#include "heap/sys.h"
#include "heap/window.h"

#include <fcntl.h>
#include <linux/ioctl.h>

struct scan_argument {
    uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
    uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
#define PAGEMAP_SCAN _IOWR('f', 16, struct scan_argument)
#define SCAN_PROTECT 1UL /* PM_SCAN_WP_MATCHING */

const struct scan_query SCAN_POPULATED = {
    .inverted = SCAN_FILE | SCAN_ZERO_PAGE,
    .all = SCAN_FILE | SCAN_ZERO_PAGE,
    .any = SCAN_PRESENT | SCAN_SWAPPED,
};

int pagemap_open_on(struct pagemap *pm, int fd)
{
    pm->fd = fd;
    pm->scans = false;
    pm->entries = window_alloc(PAGEMAP_ENTRIES * sizeof *pm->entries);
    return pm->entries ? 0 : -ENOMEM;
}

int pagemap_open(struct pagemap *pm)
{
    int fd =
        (int)disk_high_fd(proc_open("self/pagemap", O_RDONLY));
    if (fd < 0)
        return fd;
    int r = pagemap_open_on(pm, fd);
    if (r) {
        sys(SYS_close, fd);
        return r;
    }
    struct scan_region region;
    uintptr_t walked, here = PAGE_DOWN((uintptr_t)pm->entries);
    *(volatile uint64_t *)pm->entries = 0; /* a page that is populated for certain */
    pm->scans =
        pagemap_scan(pm, &SCAN_POPULATED, here, here + PAGE_BYTES, &region, 1, &walked) == 1;
    return 0;
}

void pagemap_close(struct pagemap *pm)
{
    sys(SYS_close, pm->fd);
    pm->fd = -1;
}

long pagemap_read(struct pagemap *pm, uintptr_t from, uintptr_t to)
{
    size_t wanted = (to - from) / PAGE_BYTES;
    if (wanted > PAGEMAP_ENTRIES)
        wanted = PAGEMAP_ENTRIES;
    long n;
    do
        n = sys(SYS_pread64, pm->fd, pm->entries, wanted * sizeof *pm->entries,
                from / PAGE_BYTES * sizeof *pm->entries);
    while (n == -EINTR);
    return n < 0 ? n : n / (long)sizeof *pm->entries;
}

long pagemap_scan(struct pagemap *pm, const struct scan_query *query, uintptr_t from, uintptr_t to,
                  struct scan_region *regions, size_t capacity, uintptr_t *walk_end)
{
    size_t count = 0;
    while (from < to && count < capacity) {
        struct scan_argument scan = {
            .size = sizeof scan,
            .flags = query->protect ? SCAN_PROTECT : 0,
            .start = from,
            .end = to,
            .vec = (uintptr_t)(regions + count),
            .vec_len = capacity - count,
            .category_inverted = query->inverted,
            .category_mask = query->all,
            .category_anyof_mask = query->any,
            .return_mask = query->wanted,
        };
        long n = sys(SYS_ioctl, pm->fd, PAGEMAP_SCAN, &scan);
        if (n == -EINTR)
            continue;
        if (n < 0)
            return n;
        count += (size_t)n;
        from = scan.walk_end;
    }
    *walk_end = from;
    return (long)count;
}

/* What is looked for, in a scan and in entries. */
struct search {
    const struct scan_query *query;
    uint64_t any, none; /* bits of an entry */
};

/* For kernels before 6.7: entry by entry. */
static long find_entries(struct pagemap *pm, const struct search *search, uintptr_t from, uintptr_t to,
                         struct page_range *out, size_t capacity, uintptr_t *walk_end)
{
    size_t count = 0;
    while (from < to) {
        long n = pagemap_read(pm, from, to);
        if (n < 0)
            return n;
        if (n == 0)
            break;
        for (long i = 0; i < n; i++, from += PAGE_BYTES) {
            uint64_t e = pm->entries[i];
            if (!(e & search->any) || e & search->none)
                continue;
            if (!pages_put(out, &count, capacity, from, from + PAGE_BYTES)) {
                *walk_end = from;
                return (long)count;
            }
        }
    }
    *walk_end = to;
    return (long)count;
}

static long find(struct pagemap *pm, const struct search *search, uintptr_t from, uintptr_t to,
                 struct page_range *out, size_t capacity, uintptr_t *walk_end)
{
    if (!pm->scans)
        return find_entries(pm, search, from, to, out, capacity, walk_end);
    struct scan_region regions[64];
    size_t count = 0;
    while (from < to && count < capacity) {
        size_t room = capacity - count;
        uintptr_t walked;
        long n = pagemap_scan(pm, search->query, from, to, regions, room < 64 ? room : 64, &walked);
        if (n < 0)
            return n;
        for (long i = 0; i < n; i++)
            pages_put(out, &count, capacity, regions[i].start, regions[i].end);
        from = walked;
    }
    *walk_end = from;
    return (long)count;
}

long pagemap_populated(struct pagemap *pm, uintptr_t from, uintptr_t to, struct page_range *out,
                       size_t capacity, uintptr_t *walk_end)
{
    const struct search search = {&SCAN_POPULATED, PAGEMAP_PRESENT | PAGEMAP_SWAPPED, PAGEMAP_FILE};
    return find(pm, &search, from, to, out, capacity, walk_end);
}

long pagemap_present(struct pagemap *pm, uintptr_t from, uintptr_t to, struct page_range *out, size_t capacity,
                     uintptr_t *walk_end)
{
    static const struct scan_query present = {.all = SCAN_PRESENT};
    const struct search search = {&present, PAGEMAP_PRESENT, 0};
    return find(pm, &search, from, to, out, capacity, walk_end);
}
