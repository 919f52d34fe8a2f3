/* userfaultfd in WP_ASYNC mode: the kernel takes the write protection off by itself at the first write to a page,
 * its own writes included, and PAGEMAP_SCAN finds such pages and puts it back, in one call.
 *
 * The kernel keeps all the state, with the mappings. A page that is absent is clean if a marker stands in its page
 * table entry. A page of anonymous memory that was dropped (MADV_DONTNEED) has none and reads as written; in a file
 * mapping dropping a clean page leaves a marker behind, although the page is the file's again and may be
 * another one: hence tracker_mark().
 */
#include "heap/disk.h"
#include "heap/room.h"
#include "heap/sys.h"
#include "heap/tracker_backend.h"

#include <fcntl.h>
#include <linux/ioctl.h>
#include <linux/userfaultfd.h>

/* Newer than Debian 12's headers. */
#ifndef UFFD_FEATURE_WP_UNPOPULATED
#define UFFD_FEATURE_WP_UNPOPULATED (1 << 13)
#endif
#ifndef UFFD_FEATURE_WP_ASYNC
#define UFFD_FEATURE_WP_ASYNC (1 << 15)
#endif

/* Nothing but this one category: with others the kernels before 6.9 show dropped pages as clean, and it is
 * 25 times faster. */
static const struct scan_query WRITTEN = {
    .all = SCAN_WRITTEN, .wanted = SCAN_WRITTEN, .protect = true};

int uffd_open(struct tracker *t)
{
    if (!t->pagemap.scans)
        return -EOPNOTSUPP;
    int fd = (int)disk_high_fd(sys_fd(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY));
    if (fd < 0)
        return fd;
    struct uffdio_api api = {.api = UFFD_API,
                             .features = UFFD_FEATURE_PAGEFAULT_FLAG_WP |
                                         UFFD_FEATURE_WP_UNPOPULATED | UFFD_FEATURE_WP_ASYNC};
    long r = sys(SYS_ioctl, fd, UFFDIO_API, &api);
    if (r < 0) {
        sys(SYS_close, fd);
        return (int)r;
    }
    t->uffd = fd;
    return 0;
}

/* Marks all pages of the range, absent ones too, as clean; or, with `on` false, takes that away. */
static long protect(struct tracker *t, uintptr_t start, uintptr_t end, bool on)
{
    struct uffdio_writeprotect wp = {.range = {.start = start, .len = end - start},
                                     .mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0};
    long r;
    do
        r = sys(SYS_ioctl, t->uffd, UFFDIO_WRITEPROTECT, &wp);
    while (r == -EAGAIN || r == -EINTR);
    return r;
}

int uffd_register(struct tracker *t, uintptr_t start, uintptr_t end)
{
    struct uffdio_register reg = {.range = {.start = start, .len = end - start},
                                  .mode = UFFDIO_REGISTER_MODE_WP};
    return (int)sys(SYS_ioctl, t->uffd, UFFDIO_REGISTER, &reg);
}

int uffd_add(struct tracker *t, uintptr_t start, uintptr_t end)
{
    int r = uffd_register(t, start, end);
    return r < 0 ? r : (int)protect(t, start, end, true);
}

int uffd_mark(struct tracker *t, uintptr_t start, uintptr_t end)
{
    return (int)protect(t, start, end, false);
}

void uffd_remove(struct tracker *t, uintptr_t start, uintptr_t end)
{
    struct uffdio_range range = {.start = start, .len = end - start};
    sys(SYS_ioctl, t->uffd, UFFDIO_UNREGISTER,
        &range); /* fails where nothing is mapped any more: fine */
}

long uffd_scan(struct tracker *t, uintptr_t from, uintptr_t to, struct page_range *out,
               size_t capacity, uintptr_t *walk_end)
{
    struct scan_region *regions = (struct scan_region *)t->pagemap.entries;
    size_t most = PAGEMAP_ENTRIES * sizeof *t->pagemap.entries / sizeof *regions, count = 0;
    while (from < to && count < capacity) {
        size_t room = capacity - count;
        long n = pagemap_scan(&t->pagemap, &WRITTEN, from, to, regions, room < most ? room : most,
                              &from);
        if (n < 0)
            return n;
        for (long i = 0; i < n; i++)
            pages_put(out, &count, capacity, regions[i].start, regions[i].end);
    }
    *walk_end = from;
    return (long)count;
}

/* The kernel shows an absent page with a marker as swapped, protected against writing: just what a clean page
 * on the swap device, or one that is being migrated, looks like. To tell them apart the protection is taken off,
 * which makes markers vanish, and put on again. All of the region was clean, so it is the same afterwards.
 * Returns false when `out` is full; *walk_end then tells where. */
static bool settle(struct tracker *t, const struct scan_region *region, struct page_range *out,
                   size_t *count, size_t capacity, uintptr_t *walk_end)
{
    /* A moved mapping of Linux < 6.14 may keep markers without being tracked: what cannot be told counts. */
    if (protect(t, region->start, region->end, false) < 0)
        return pages_put(out, count, capacity, region->start, region->end);
    struct scan_region found[32];
    uintptr_t at = region->start;
    bool fits = true;
    while (fits && at < region->end) {
        long n = pagemap_scan(&t->pagemap, &SCAN_POPULATED, at, region->end, found, 32, &at);
        if (n < 0) {
            fits = pages_put(out, count, capacity, at, region->end);
            *walk_end = at;
            break;
        }
        for (long i = 0; fits && i < n; i++) {
            fits = pages_put(out, count, capacity, found[i].start, found[i].end);
            *walk_end = found[i].start;
        }
    }
    protect(t, region->start, region->end, true);
    return fits;
}

long uffd_populated(struct tracker *t, uintptr_t from, uintptr_t to, struct page_range *out,
                    size_t capacity, uintptr_t *walk_end)
{
    struct scan_query query = SCAN_POPULATED;
    struct scan_region regions[64];
    size_t count = 0;
    query.wanted = SCAN_SWAPPED | SCAN_WRITTEN;
    while (from < to) {
        uintptr_t walked;
        long n = pagemap_scan(&t->pagemap, &query, from, to, regions, 64, &walked);
        if (n < 0)
            return n;
        for (long i = 0; i < n; i++) {
            bool unclear = (regions[i].categories & (SCAN_SWAPPED | SCAN_WRITTEN)) == SCAN_SWAPPED;
            *walk_end = regions[i].start;
            if (unclear ? !settle(t, &regions[i], out, &count, capacity, walk_end)
                        : !pages_put(out, &count, capacity, regions[i].start, regions[i].end))
                return (long)count;
        }
        from = walked;
    }
    *walk_end = to;
    return (long)count;
}
