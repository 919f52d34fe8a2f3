/* Soft-dirty bits: writing 4 to clear_refs clears them for the whole process and write-protects it; a page's entry
 * in pagemap has the bit again after the first write to it.
 *
 * As clearing knows no ranges, everything tracked is read before; what was found is kept in `pending`.
 * A page that was dropped has no bit: it is found by having been `held` when the last pass began. If it was read
 * again since, the kernel's zero page (or the file's page) stands there. A file's page is found; the zero page
 * cannot be told from a page that was only read, hence tracker_mark().
 * Too much is reported, once, when a mapping grows or is merged with a new neighbour (the kernel marks all of it), and for
 * huge pages, which have one bit.
 */
#include "heap/disk.h"
#include "heap/proc.h"
#include "heap/sys.h"
#include "heap/tracker_backend.h"

#include <fcntl.h>

int softdirty_open(struct tracker *t)
{
    int fd =
        (int)disk_high_fd(proc_open("self/clear_refs", O_WRONLY));
    if (fd < 0)
        return fd;
    t->clear_refs = fd;
    return 0;
}

static int look_at(struct tracker *t, uintptr_t from, uintptr_t to)
{
    while (from < to) {
        long n = pagemap_read(&t->pagemap, from, to);
        if (n <= 0)
            return n ? (int)n : -EIO;
        for (long i = 0; i < n; i++, from += PAGE_BYTES) {
            uint64_t e = t->pagemap.entries[i];
            int r = 0;
            if (e & (PAGEMAP_PRESENT | PAGEMAP_SWAPPED) && !(e & PAGEMAP_FILE))
                r = pages_add(&t->fresh, from, from + PAGE_BYTES);
            if (!r && e & PAGEMAP_SOFT_DIRTY)
                r = pages_add(&t->pending, from, from + PAGE_BYTES);
            if (r)
                return r;
        }
    }
    return 0;
}

int softdirty_look(struct tracker *t)
{
    int r = 0;
    pages_clear(&t->fresh);
    for (size_t i = 0; !r && i < t->tracked.count; i++)
        r = look_at(t, t->tracked.at[i].start, t->tracked.at[i].end);
    if (!r)
        r = pages_add_missing(&t->pending, &t->held, &t->fresh);
    if (r)
        return r;
    long n = sys(SYS_write, t->clear_refs, "4", 1);
    if (n != 1)
        return n < 0 ? (int)n : -EIO;
    struct pages held = t->held;
    t->held = t->fresh;
    t->fresh = held;
    return 0;
}
