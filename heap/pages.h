/* A set of pages, kept as sorted, disjoint ranges that do not touch.
 *
 * Lives in the window and takes its memory from window_alloc(). An array that is outgrown is left behind; arrays
 * double, so that at most as much is lost as is in use. Not thread-safe.
 */
#ifndef KEN_HEAP_PAGES_H
#define KEN_HEAP_PAGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Page aligned; `end` is the first address behind it. */
struct page_range {
    uintptr_t start, end;
};

/* All zeros is the empty set. */
struct pages {
    struct page_range *at;
    size_t count, capacity;
};

/* Both return 0 or -ENOMEM (nothing was changed). Adding in ascending order costs O(1) each. */
int pages_add(struct pages *, uintptr_t start, uintptr_t end);
int pages_remove(struct pages *, uintptr_t start, uintptr_t end);

/* Adds what `from` has in [start, end). Returns 0 or -ENOMEM (a part may have been added). */
int pages_add_common(struct pages *to, const struct pages *from, uintptr_t start, uintptr_t end);

/* Adds what is in `all` and not in `without`. Returns as above. */
int pages_add_missing(struct pages *to, const struct pages *all, const struct pages *without);

/* The first range that ends above `address`, or `count`. */
size_t pages_find(const struct pages *, uintptr_t address);

/* Whether the page at `address` is in the set. */
static inline bool pages_hold(const struct pages *p, uintptr_t address)
{
    size_t at = p->count ? pages_find(p, address) : 0;
    return at < p->count && p->at[at].start <= address;
}

/* Copies what lies in [from, to) into `out`, as much as fits. Returns the number of ranges; everything below *walked
 * was copied (`to` when all was). */
size_t pages_copy(const struct pages *, uintptr_t from, uintptr_t to, struct page_range *out, size_t capacity,
                  uintptr_t *walked);

/* Forgets all, keeps the memory. */
static inline void pages_clear(struct pages *p)
{
    p->count = 0;
}

/* Appends to an array of `capacity`, joining with the last range where they touch; false when it is full.
 * The order must be ascending. */
static inline bool pages_put(struct page_range *out, size_t *count, size_t capacity, uintptr_t start, uintptr_t end)
{
    if (*count && out[*count - 1].end == start) {
        out[*count - 1].end = end;
        return true;
    }
    if (*count == capacity)
        return false;
    out[(*count)++] = (struct page_range){start, end};
    return true;
}

#endif
