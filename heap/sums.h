/* The sums of the image's pages: 32 bits of XXH3-64 each, in a table of the image file (layout_meta.h).
 *
 * Pure functions: thread-safe, async-signal-safe.
 */
#ifndef KEN_HEAP_SUMS_H
#define KEN_HEAP_SUMS_H

#include "heap/layout_meta.h"

#include <stdbool.h>
#include <stdint.h>

/* The sum of 4096 bytes. Never 0: that stands for a page that was never written. */
uint32_t sums_page(const void *page);

/* Whether a page has the sum that the table tells: 0 is right for a page of zeros. */
bool sums_hold(const void *page, uint32_t sum);

/* Where the sum of the page at `offset` of the image lies in it. The pages behind have theirs behind it, up to the end of
 * the metadata or of a group of slots. */
static inline uint64_t sums_at(uint64_t offset)
{
    uint64_t base = SUMS_AT, within = offset;
    if (offset >= META_BYTES) {
        base = offset - (offset - META_BYTES) % GROUP_BYTES;
        within = offset - base - GROUP_SUM_BYTES;
    }
    return base + within / 4096 * sizeof(uint32_t);
}

/* Whether [offset, offset + bytes) holds nothing but pages that have a sum, within one table. */
bool sums_cover(uint64_t offset, uint64_t bytes);

#endif
