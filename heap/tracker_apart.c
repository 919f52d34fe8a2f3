/* Pages that are tracked and yet not registered with userfaultfd, because something better is known of them:
 *
 *   sealed     cannot be written: text and constants. They cost a scan time and tell it nothing
 *   untouched  whole page tables' worth of anonymous memory that hold nothing yet, as most of a thread's stack. To find them clean
 *              userfaultfd would fill tables with markers, and each scan would read those; here one look, which ends at the
 *              missing table, finds that they still hold nothing
 *   hot        written turn after turn: reported without being asked for. Each would cost a fault, a protection, and a part
 *              of a flush of the other processors' TLBs; comparing it with its twin costs a tenth of that
 *   warm       the same, where the mapping must not be split: registered, but the scans go around it, and nobody protects it again
 *
 * The kernel splits mappings where registered pages end. Only mremap() minds, hence tracker_join() before it. A page that is
 * compared must be readable, and one that is sealed stay so: hence tracker_settle() before mprotect(). And nothing stands apart unless all of the program's calls are seen.
 */
#include "heap/fault.h"
#include "heap/sys.h"
#include "heap/tracker_backend.h"

#define TABLE_BYTES (2UL << 20) /* of memory behind one page table */
#define TABLES_LEAST 2          /* fewer are scanned about as fast as asked for */
#define UNTOUCHED_MAX 1024
#define HOT_AFTER 16   /* passes in a row that report the page */
#define HOT_GAP 8      /* passes that may be between two of them */
#define HOT_MAX 384    /* pages */
#define WARM_MAX 6     /* ranges; each costs a scan more */
#define HOT_PASSES 1024 /* then all are looked at anew */

static const struct scan_query HOLDS_ANYTHING = {.any = SCAN_PRESENT | SCAN_SWAPPED};

static uintptr_t table_up(uintptr_t address)
{
    return (address + TABLE_BYTES - 1) & ~(TABLE_BYTES - 1);
}

static uintptr_t table_down(uintptr_t address)
{
    return address & ~(TABLE_BYTES - 1);
}

/* Takes [start, end) apart if it is worth it. */
static bool leave_untouched(struct tracker *t, uintptr_t start, uintptr_t end)
{
    return start < end && (end - start) / TABLE_BYTES >= TABLES_LEAST && t->apart.untouched.count < UNTOUCHED_MAX &&
           pages_add(&t->apart.untouched, start, end) == 0;
}

int apart_add(struct tracker *t, uintptr_t start, uintptr_t end)
{
    struct scan_region found[32];
    uintptr_t begin = start, seen = start, at = start;
    if (table_down(end) < table_up(start) + TABLES_LEAST * TABLE_BYTES)
        return uffd_add(t, start, end);
    while (at < end) {
        long n = pagemap_scan(&t->pagemap, &HOLDS_ANYTHING, at, end, found, 32, &at);
        if (n < 0)
            return (int)n;
        for (long i = 0; i <= n; i++) {
            if (i == n && at < end)
                break;
            uintptr_t from = table_up(seen), to = table_down(i < n ? found[i].start : end);
            if (leave_untouched(t, from, to)) {
                int r = begin < from ? uffd_add(t, begin, from) : 0;
                if (r)
                    return r;
                begin = to;
            }
            seen = i < n ? found[i].end : end;
        }
    }
    return begin < end ? uffd_add(t, begin, end) : 0;
}

int apart_seal(struct tracker *t, uintptr_t start, uintptr_t end)
{
    return pages_add(&t->apart.sealed, start, end);
}

int apart_forget(struct tracker *t, uintptr_t start, uintptr_t end)
{
    struct apart *a = &t->apart;
    int r = pages_remove(&a->sealed, start, end);
    if (!r)
        r = pages_remove(&a->untouched, start, end);
    if (!r)
        r = pages_remove(&a->warm, start, end);
    return r ? r : pages_remove(&a->hot, start, end);
}

/* Registers what `set` has in [start, end): as clean, or so that it reads as written. */
static int settle(struct tracker *t, struct pages *set, uintptr_t start, uintptr_t end, bool clean)
{
    for (size_t i; (i = pages_find(set, start)) < set->count && set->at[i].start < end;) {
        struct page_range part = set->at[i];
        part.start = part.start > start ? part.start : start;
        part.end = part.end < end ? part.end : end;
        int r = clean ? uffd_add(t, part.start, part.end) : uffd_register(t, part.start, part.end);
        if (r == 0)
            r = pages_remove(set, part.start, part.end);
        if (r)
            return r;
    }
    return 0;
}

/* Other threads may be writing meanwhile: what was not protected yet is not taken for clean. */
int apart_settle(struct tracker *t, uintptr_t start, uintptr_t end)
{
    int r = settle(t, &t->apart.sealed, start, end, true);
    if (!r)
        r = pages_remove(&t->apart.warm, start, end); /* reads as written, or is clean, as the kernel has it */
    return r ? r : settle(t, &t->apart.hot, start, end, false);
}

int apart_join(struct tracker *t, uintptr_t start, uintptr_t end)
{
    int r = apart_settle(t, start, end);
    return r ? r : settle(t, &t->apart.untouched, start, end, false);
}

/* Page tables that came to hold something are registered; all that they hold reads as written. */
static int look_at_untouched(struct tracker *t, uintptr_t from, uintptr_t to)
{
    struct pages *set = &t->apart.untouched;
    struct scan_region found[16];
    size_t i = MUTANT("tracker.untouched_forgotten", set->count, pages_find(set, from));
    while (i < set->count && set->at[i].start < to) {
        struct page_range range = set->at[i];
        uintptr_t walked;
        long n = pagemap_scan(&t->pagemap, &HOLDS_ANYTHING, range.start, range.end, found, 16, &walked);
        int r = n < 0 ? (int)n : 0;
        for (long k = 0; !r && k < n; k++)
            r = settle(t, set, table_down(found[k].start), table_up(found[k].end), false);
        if (r)
            return r;
        if (walked == range.end)
            i = pages_find(set, range.end);
    }
    return 0;
}

/* Never the first page of a range: a stack that grows would grow what is not registered. */
static bool may_split(const struct tracker *t, uintptr_t page)
{
    size_t i = pages_find(&t->tracked, page);
    bool within = i < t->tracked.count && t->tracked.at[i].start < page;
    return within && (page < t->apart.whole.start || page >= t->apart.whole.end);
}

static void keep_warm(struct apart *a, uintptr_t page)
{
    size_t next = pages_find(&a->warm, page);
    bool adjoins = (next < a->warm.count && a->warm.at[next].start == page + PAGE_BYTES) ||
                   (next > 0 && a->warm.at[next - 1].end == page);
    if (adjoins || a->warm.count < WARM_MAX)
        pages_add(&a->warm, page, page + PAGE_BYTES); /* when it fails it is asked for, as before */
}

/* The entry of the page, or the one of two that was reported longer ago. The stacks of threads lie at equal distances: the low
 * bits of their pages' numbers are the same. */
static struct heat *heat_of(struct apart *a, uintptr_t page)
{
    uint64_t hash = page / PAGE_BYTES * 0x9e3779b97f4a7c15UL;
    struct heat *both = &a->heat[(hash >> 32 & (APART_HEAT - 1)) & ~1UL];
    if (both[0].page == page || both[1].page == page)
        return &both[both[1].page == page];
    return &both[a->pass - both[1].pass > a->pass - both[0].pass];
}

static void note_written(struct tracker *t, uintptr_t page)
{
    struct apart *a = &t->apart;
    struct heat *h = heat_of(a, page);
    bool again = h->page == page && a->pass - h->pass <= HOT_GAP;
    *h = (struct heat){page, a->pass, again ? h->count + 1 : 1};
    if (h->count < HOT_AFTER || a->hot_pages >= HOT_MAX)
        return;
    if (!may_split(t, page)) {
        keep_warm(a, page);
        return;
    }
    uffd_remove(t, page, page + PAGE_BYTES);
    if (pages_add(&a->hot, page, page + PAGE_BYTES))
        uffd_register(t, page, page + PAGE_BYTES);
    else
        a->hot_pages++;
}

/* All are looked at anew. */
static int cool(struct tracker *t)
{
    t->apart.hot_pages = 0;
    pages_clear(&t->apart.warm);
    return settle(t, &t->apart.hot, 0, UINTPTR_MAX, false);
}

long apart_begin(struct tracker *t, uintptr_t from, uintptr_t to, struct page_range *out, size_t capacity)
{
    struct apart *a = &t->apart;
    uintptr_t walked;
    if (from < t->walked && ++a->pass % HOT_PASSES == 0) {
        int r = cool(t);
        if (r)
            return r;
    }
    int r = look_at_untouched(t, from, to);
    if (r)
        return r;
    if (a->hot.count + a->warm.count > capacity / 2)
        return cool(t);
    size_t n = pages_copy(&a->warm, from, to, out, capacity, &walked);
    n += MUTANT("tracker.hot_forgotten", 0, pages_copy(&a->hot, from, to, out + n, capacity - n, &walked));
    return (long)n;
}

long apart_scan(struct tracker *t, uintptr_t from, uintptr_t to, struct page_range *out, size_t capacity, uintptr_t *walk_end)
{
    const struct pages *warm = &t->apart.warm;
    size_t count = 0;
    for (size_t i = pages_find(warm, from);; i++) {
        uintptr_t until = i < warm->count && warm->at[i].start < to ? warm->at[i].start : to;
        long n = from < until ? uffd_scan(t, from, until, out + count, capacity - count, walk_end) : 0;
        if (n < 0)
            return n;
        count += (size_t)n;
        if (from < until && *walk_end < until)
            return (long)count;
        if (until == to)
            break;
        from = warm->at[i].end;
    }
    *walk_end = to;
    return (long)count;
}

void apart_learn(struct tracker *t, const struct page_range *out, size_t count)
{
    size_t pages = 0;
    for (size_t i = 0; i < count; i++)
        pages += (out[i].end - out[i].start) / PAGE_BYTES;
    if (pages > APART_HEAT / 2)
        return; /* no ordinary turn */
    for (size_t i = 0; i < count; i++)
        for (uintptr_t page = out[i].start; page < out[i].end; page += PAGE_BYTES)
            note_written(t, page);
}
