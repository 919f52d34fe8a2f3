/* Which 64-byte lines of a page differ from its committed twin.
 *
 * Pure functions: no state, no calls, thread-safe and async-signal-safe. SSE2 only, which every x86-64 has: a
 * choice made at load time (IFUNC) would be frozen in the image and be wrong on a lesser CPU.
 */
#ifndef KEN_HEAP_DIFF_H
#define KEN_HEAP_DIFF_H

#include <stdbool.h>
#include <stdint.h>

#define LINE_BYTES 64u
#define PAGE_LINES 64u

/* Bit i is set if and only if line i of the 4096-byte page `now` differs from `twin`; a twin of NULL counts as all
 * zeros. Both are 16-byte aligned. */
uint64_t diff_page(const void *now, const void *twin);

/* Whether the page looks written all over: eight of its lines, at odd distances, all differ. Reads no more than these, so that
 * a page of new contents costs no second look at it and hardly one at its twin. */
bool diff_throughout(const void *now, const void *twin);

/* A run of changed lines within one page. */
struct diff_run {
    unsigned first, lines;
};

/* Takes the lowest run out of *mask; false, and nothing is changed, when the mask is empty. */
static inline bool diff_next(uint64_t *mask, struct diff_run *run)
{
    if (!*mask)
        return false;
    run->first = (unsigned)__builtin_ctzl(*mask);
    uint64_t gap = ~(*mask >> run->first);
    run->lines = gap ? (unsigned)__builtin_ctzl(gap) : PAGE_LINES;
    /* Adding the lowest bit carries through the run; a run that reaches bit 63 carries out. */
    *mask &= *mask + (*mask & -*mask);
    return true;
}

#endif
