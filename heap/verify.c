#include "heap/verify.h"
#include "heap/disk.h"
#include "heap/fault.h"
#include "heap/image.h"
#include "heap/say.h"
#include "heap/sums.h"
#include "heap/sys.h"
#include "heap/window.h"

#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define WORD_PAGES 64u /* verified at once, at most */
#define WORD_BYTES (WORD_PAGES * PAGE_BYTES)
#define SLICE_US 1000
#define SLICE_MOST_US 4000

struct piece {
    uint32_t slot;
    unsigned word;
    uint64_t pages; /* a bit each */
};

static uint64_t clock_us(void)
{
    return (uint64_t)sys_clock_ns(CLOCK_MONOTONIC) / 1000;
}

int verify_open(struct image *i, const char *store)
{
    struct unverified *u = &i->unverified;
    memset(u, 0, sizeof *u);
    u->store = store;
    u->left = window_alloc(CHUNK_MAX * sizeof *u->left);
    u->buffer = window_alloc(WORD_BYTES);
    return u->left && u->buffer ? 0 : -ENOMEM;
}

static void finish(struct image *i)
{
    struct unverified *u = &i->unverified;
    pages_clear(&u->spans);
    sys(SYS_madvise, u->left, PAGE_UP(i->restored * sizeof *u->left), MADV_DONTNEED);
    sys(SYS_madvise, u->buffer, WORD_BYTES, MADV_DONTNEED);
}

#define CUT_SHORT 1 /* in place of an error */

static const char *reason(long error)
{
    return error < 0 ? say_error(error) : error ? "the file is cut short" : "the page does not agree with its checksum";
}

/* One page is wrong, or cannot be read. On the way of what the process does that ends it; else it is told once, and the page stays unverified:
 * the process ends when it comes to it. */
static void complain(struct image *i, uint64_t offset, long error, bool fatal)
{
    struct unverified *u = &i->unverified;
    unsigned page;
    uint32_t slot = image_slot(offset, &page);
    uint64_t address = (i->chunks[slot].number << CHUNK_SHIFT) + page * PAGE_BYTES;
    static const char text[] = "%s/image %s at offset %lu, which is the program's page at 0x%lx: %s; %s";
    const char *fault = error < 0 ? "cannot be read" : "is damaged";
    if (fatal)
        say_die_of(error < 0 ? error : 0, text, u->store, fault, offset, address, reason(error),
                   error < 0 ? "what was committed is as it was, start the same command again"
                             : "it was left as it is, --fresh starts over");
    if (!u->told)
        say(text, u->store, fault, offset, address, reason(error),
            "the program goes on until it comes there (kenctl check tells all)");
    u->told = true;
}

/* Read, not looked at through the twin: a bad sector is an error then, not a signal, and the process does not seem to
 * hold all of its image. 0 or what is wrong. */
static long read_all(const struct image *i, void *to, uint64_t bytes, uint64_t at)
{
    long n = disk_read(i->fd, to, bytes, at);
    return n == (long)bytes ? 0 : n < 0 ? n : CUT_SHORT;
}

static uint64_t check_apart(struct image *i, const struct piece *piece, uint64_t pages, bool fatal);

/* Returns which of the pages are good. */
static uint64_t check_together(struct image *i, const struct piece *piece, uint64_t pages, bool fatal)
{
    uint32_t sums[WORD_PAGES];
    unsigned first = (unsigned)__builtin_ctzl(pages), count = WORD_PAGES - first - (unsigned)__builtin_clzl(pages);
    uint64_t offset = layout_slot(piece->slot) + (piece->word * WORD_PAGES + first) * PAGE_BYTES, good = 0;
    uint8_t *buffer = i->unverified.buffer;
    long error = read_all(i, buffer, count * PAGE_BYTES, offset);
    if (!error)
        error = read_all(i, sums, count * sizeof *sums, sums_at(offset));
    if (error && count > 1)
        return check_apart(i, piece, pages, fatal);
    for (unsigned k = 0; k < count; k++) {
        if (!(pages >> (first + k) & 1))
            continue;
        if (!error && MUTANT("verify.left_out", true, sums_hold(buffer + k * PAGE_BYTES, sums[k])))
            good |= 1UL << (first + k);
        else
            complain(i, offset + k * PAGE_BYTES, error, fatal);
    }
    return good;
}

/* Where one page cannot be read the others may be good. */
static uint64_t check_apart(struct image *i, const struct piece *piece, uint64_t pages, bool fatal)
{
    uint64_t good = 0;
    for (; pages; pages &= pages - 1)
        good |= check_together(i, piece, pages & -pages, fatal);
    return good;
}

/* Verifies those of the pages that are left. False, if it is not fatal: some are wrong. */
static bool check(struct image *i, const struct piece *piece, bool fatal)
{
    struct unverified *u = &i->unverified;
    uint64_t pages = u->left[piece->slot][piece->word] & piece->pages;
    uint64_t good = pages ? check_together(i, piece, pages, fatal) : 0;
    u->left[piece->slot][piece->word] &= ~good;
    u->count -= (unsigned)__builtin_popcountl(good);
    if (good && !u->count)
        finish(i);
    return good == pages;
}

/* The bits of pages [from, to) of 64. */
static uint64_t bits(unsigned from, unsigned to)
{
    return (to - from == WORD_PAGES ? ~0UL : (1UL << (to - from)) - 1) << from;
}

/* The part of [*start, end) that lies in one word, *start moved behind it; false when no slot has it. */
static bool next_piece(struct image *i, uintptr_t *start, uintptr_t end, struct piece *piece)
{
    uint64_t offset = image_find(i, *start);
    uintptr_t stop = (*start & ~(offset ? WORD_BYTES - 1 : CHUNK_BYTES - 1)) + (offset ? WORD_BYTES : CHUNK_BYTES);
    if (stop > end)
        stop = end;
    if (offset) {
        unsigned page;
        piece->slot = image_slot(offset, &page);
        piece->word = page / WORD_PAGES;
        page %= WORD_PAGES;
        piece->pages = bits(page, page + (unsigned)((stop - *start) / PAGE_BYTES));
    }
    *start = stop;
    return offset;
}

static void mark(struct image *i, uintptr_t start, uintptr_t end)
{
    struct unverified *u = &i->unverified;
    struct piece piece;
    while (start < end) {
        if (!next_piece(i, &start, end, &piece))
            continue;
        uint64_t *left = &u->left[piece.slot][piece.word], before = *left;
        *left |= i->chunks[piece.slot].present[piece.word] & piece.pages;
        u->count += (unsigned)__builtin_popcountl(*left & ~before);
    }
}

int verify_later(struct image *i, uintptr_t start, uintptr_t end)
{
    mark(i, start, end);
    return pages_add(&i->unverified.spans, start, end);
}

void verify_now(struct image *i, uintptr_t start, uintptr_t end)
{
    mark(i, start, end);
    verify_range(i, start, end);
}

void verify_at(struct image *i, uint64_t offset)
{
    unsigned page;
    uint32_t slot = image_slot(offset, &page);
    verify_pages(i, slot, page, page + 1);
}

void verify_pages(struct image *i, uint32_t slot, unsigned from, unsigned to)
{
    while (from < to && i->unverified.count) {
        unsigned word = from / WORD_PAGES, stop = (word + 1) * WORD_PAGES;
        if (stop > to)
            stop = to;
        struct piece piece = {slot, word, bits(from % WORD_PAGES, stop - word * WORD_PAGES)};
        check(i, &piece, true);
        from = stop;
    }
}

void verify_range(struct image *i, uintptr_t start, uintptr_t end)
{
    struct piece piece;
    while (start < end && i->unverified.count)
        if (next_piece(i, &start, end, &piece))
            check(i, &piece, true);
}

static int touched_in(struct image *i, struct pagemap *pagemap, uintptr_t from, uintptr_t to)
{
    struct page_range found[32];
    while (from < to && i->unverified.count) {
        long n = pagemap_present(pagemap, from, to, found, sizeof found / sizeof *found, &from);
        if (n < 0)
            return (int)n;
        for (long k = 0; k < n; k++)
            verify_range(i, found[k].start, found[k].end);
    }
    return 0;
}

int verify_touched(struct image *i, struct pagemap *pagemap)
{
    struct unverified *u = &i->unverified;
    if (!u->count)
        return 0;
    uint64_t start = clock_us();
    int r = 0;
    for (size_t k = 0; !r && k < u->spans.count; k++)
        r = touched_in(i, pagemap, u->spans.at[k].start, u->spans.at[k].end);
    u->scan_us = clock_us() - start;
    return r;
}

/* From `start` on to the end of a word or of the span. */
static void verify_next(struct image *i, uintptr_t start, uintptr_t end)
{
    struct unverified *u = &i->unverified;
    struct piece piece;
    u->next = start;
    if (!next_piece(i, &u->next, end, &piece) || check(i, &piece, false))
        pages_remove(&u->spans, start, u->next);
}

void verify_some(struct image *i)
{
    struct unverified *u = &i->unverified;
    size_t at = u->count ? pages_find(&u->spans, u->next) : 0;
    if (at >= u->spans.count)
        return; /* nothing is left, or only what is wrong */
    uint64_t slice = u->scan_us < SLICE_US ? SLICE_US : u->scan_us > SLICE_MOST_US ? SLICE_MOST_US : u->scan_us;
    uint64_t until = clock_us() + slice;
    while ((at = pages_find(&u->spans, u->next)) < u->spans.count && clock_us() < until) {
        const struct page_range *span = &u->spans.at[at];
        verify_next(i, span->start > u->next ? span->start : u->next, span->end);
    }
}

void verify_all(struct image *i)
{
    for (uint32_t slot = 0; slot < i->restored && i->unverified.count; slot++)
        verify_pages(i, slot, 0, CHUNK_PAGES);
}
