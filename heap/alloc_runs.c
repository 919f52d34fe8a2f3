/* Runs of pages. Free runs lie in bins by size (exact up to 64 pages, then four for each doubling);
 * a run merges with neighbours of the same content. Dirty ones are kept for reuse up to a limit,
 * beyond which the oldest are given back: so a turn that allocates and frees the same block over
 * and over does not call the kernel each time. Above the top nothing was ever used.
 */
#include "heap/alloc_span.h"
#include "heap/say.h"

#define BINS 160
#define BINS_EXACT 64
#define BIN_SCAN 16        /* how many of a bin with mixed sizes are looked at */
#define DIRTY_LEAST 2048UL /* pages kept at least */
#define SPLIT_SPANS 2      /* structures that one runs_take may need besides its own */

static struct {
    uint32_t bin[BINS];
    uint64_t filled[(BINS + 63) / 64];
    uint32_t newest, oldest; /* dirty runs */
    uint32_t unused;         /* structures; `stock` of them */
    uint32_t stock;
    uint32_t spans; /* structures ever made; 0 is reserved */
    size_t top, used, dirty, drops;
} pages;

static unsigned bin_of(size_t count)
{
    if (count <= BINS_EXACT)
        return (unsigned)count - 1;
    unsigned power = 63U - (unsigned)__builtin_clzl(count - 1);
    return BINS_EXACT + (power - 6) * 4 + (((count - 1) >> (power - 2)) & 3);
}

static size_t first_page(uint32_t id)
{
    return page_of(span_at(id)->start);
}

static uintptr_t page_address(size_t page)
{
    return region.extent[REGION_OBJECTS].start + page * PAGE_BYTES;
}

static void map_ends(uint32_t id, uint32_t value)
{
    size_t first = first_page(id);
    *map_entry(first) = value;
    *map_entry(first + rest_at(id)->pages - 1) = value;
}

static void map_all(uint32_t id, uint32_t value)
{
    size_t first = first_page(id);
    for (uint32_t i = 0; i < rest_at(id)->pages; i++)
        *map_entry(first + i) = value;
}

void runs_map(uint32_t id)
{
    if (span_is_small(span_at(id)))
        map_all(id, map_value(id, span_at(id)->kind));
    else
        map_ends(id, map_value(id, 0));
}

/* The span that a page's entry names. */
static uint32_t map_id(size_t page)
{
    return *map_entry(page) / sizeof(struct span);
}

/* --- structures --- */

static void structure_put(uint32_t id)
{
    span_at(id)->state = SPAN_UNUSED;
    rest_at(id)->next = pages.unused;
    pages.unused = id;
    pages.stock++;
}

/* Sees to it that `count` structures are at hand, so that no step below can fail half-way. */
static bool structures_stock(uint32_t count)
{
    while (pages.stock < count) {
        uint32_t id = pages.spans;
        if (id == SPANS_MOST || region_grow(REGION_SPANS, (id + 1UL) * sizeof(struct span)) ||
            region_grow(REGION_RESTS, (id + 1UL) * sizeof(struct rest)))
            return false;
        pages.spans++;
        span_at(id)->owner = HEAP_NONE;
        structure_put(id);
    }
    return true;
}

static uint32_t structure_take(size_t page, size_t count, enum span_content content)
{
    uint32_t id = pages.unused;
    pages.unused = rest_at(id)->next;
    pages.stock--;
    span_at(id)->start = page_address(page);
    span_at(id)->owner = HEAP_NONE;
    span_at(id)->content = content;
    rest_at(id)->pages = (uint32_t)count;
    return id;
}

int runs_open(void)
{
    if (pages.spans)
        return 0;
    int error = region_open();
    if (!error && (region_grow(REGION_SPANS, 1) || region_grow(REGION_RESTS, 1) ||
                   region_grow(REGION_MAP, 1)))
        error = -ENOMEM;
    if (error)
        return error;
    span_at(0)->owner = HEAP_NONE;
    pages.spans = 1;
    return 0;
}

uint32_t runs_spans(void)
{
    return pages.spans;
}

/* --- free runs --- */

static void age_link(uint32_t id)
{
    struct rest *r = rest_at(id);
    r->older = pages.newest;
    r->newer = 0;
    if (r->older)
        rest_at(r->older)->newer = id;
    else
        pages.oldest = id;
    pages.newest = id;
    pages.dirty += r->pages;
}

static void age_unlink(uint32_t id)
{
    struct rest *r = rest_at(id);
    if (r->newer)
        rest_at(r->newer)->older = r->older;
    else
        pages.newest = r->older;
    if (r->older)
        rest_at(r->older)->newer = r->newer;
    else
        pages.oldest = r->newer;
    pages.dirty -= r->pages;
}

static void run_link(uint32_t id)
{
    struct rest *r = rest_at(id);
    unsigned bin = bin_of(r->pages);
    r->prev = 0;
    r->next = pages.bin[bin];
    if (r->next)
        rest_at(r->next)->prev = id;
    pages.bin[bin] = id;
    pages.filled[bin / 64] |= 1UL << (bin % 64);
    span_at(id)->state = SPAN_RUN;
    map_ends(id, map_value(id, 0));
    if (span_at(id)->content == CONTENT_DIRTY)
        age_link(id);
}

static void run_unlink(uint32_t id)
{
    struct rest *r = rest_at(id);
    unsigned bin = bin_of(r->pages);
    if (r->prev)
        rest_at(r->prev)->next = r->next;
    else
        pages.bin[bin] = r->next;
    if (r->next)
        rest_at(r->next)->prev = r->prev;
    if (!pages.bin[bin])
        pages.filled[bin / 64] &= ~(1UL << (bin % 64));
    map_ends(id, 0);
    if (span_at(id)->content == CONTENT_DIRTY)
        age_unlink(id);
    span_at(id)->state = SPAN_UNUSED;
}

/* The free run with the same content that ends before, or starts at, a page; 0 if there is none. */
static uint32_t neighbour(size_t page, enum span_content content)
{
    uint32_t id = map_id(page);
    struct span *s = span_at(id);
    return id && span_state(s) == SPAN_RUN && s->content == content ? id : 0;
}

/* Files a run (in no list, unmapped), merged with its neighbours. */
static void run_release(uint32_t id)
{
    struct span *s = span_at(id);
    struct rest *r = rest_at(id);
    size_t first = first_page(id);
    uint32_t other = first ? neighbour(first - 1, s->content) : 0;
    if (other) {
        run_unlink(other);
        s->start = span_at(other)->start;
        r->pages += rest_at(other)->pages;
        structure_put(other);
        first = first_page(id);
    }
    other = first + r->pages < pages.top ? neighbour(first + r->pages, s->content) : 0;
    if (other) {
        run_unlink(other);
        r->pages += rest_at(other)->pages;
        structure_put(other);
    }
    if (s->content == CONTENT_ZERO && first + r->pages == pages.top) {
        pages.top = first;
        structure_put(id);
        return;
    }
    run_link(id);
}

/* Gives the oldest dirty runs back until at most `keep` pages are dirty. */
static void purge(size_t keep)
{
    while (pages.dirty > keep) {
        uint32_t id = pages.oldest;
        struct span *s = span_at(id);
        run_unlink(id);
        bool zero = region_drop(s->start, rest_at(id)->pages * PAGE_BYTES);
        s->content = zero ? CONTENT_ZERO : CONTENT_DROPPED;
        pages.drops++;
        run_release(id);
    }
}

static void purge_excess(void)
{
    size_t limit = pages.used / 4 > DIRTY_LEAST ? pages.used / 4 : DIRTY_LEAST;
    if (pages.dirty > limit)
        purge(limit / 4 * 3);
}

static uint32_t run_find(size_t count)
{
    unsigned bin = bin_of(count);
    uint32_t id = pages.bin[bin];
    for (int i = 0; id && i < BIN_SCAN; i++, id = rest_at(id)->next)
        if (rest_at(id)->pages >= count)
            return id;
    bin++;
    for (unsigned w = bin / 64; w < BINS / 64 + 1; w++) {
        uint64_t bits = pages.filled[w];
        if (w == bin / 64)
            bits &= ~0UL << (bin % 64);
        if (bits)
            return pages.bin[w * 64 + (unsigned)__builtin_ctzl(bits)];
    }
    return 0;
}

/* Cuts the first `count` pages off a span that is in no list; what remains behind is filed as free.
 */
static void cut_tail(uint32_t id, size_t count, enum span_content content)
{
    struct rest *r = rest_at(id);
    if (r->pages == count)
        return;
    uint32_t tail = structure_take(first_page(id) + count, r->pages - count, content);
    r->pages = (uint32_t)count;
    run_release(tail);
}

static bool top_raise(size_t top)
{
    size_t limit = (region.extent[REGION_OBJECTS].limit - region.extent[REGION_OBJECTS].start);
    if (top > limit / PAGE_BYTES || region_grow(REGION_OBJECTS, top * PAGE_BYTES))
        return false;
    /* The map covers whatever is read-write, so that a look-up needs no second check. */
    size_t end = region_high_water() - region.extent[REGION_OBJECTS].start;
    if (region_grow(REGION_MAP, end / PAGE_BYTES * sizeof(uint32_t)))
        return false;
    pages.top = top;
    return true;
}

/* From the top; the gap before an aligned start is filed as free. */
static uint32_t take_top(size_t count, size_t align)
{
    size_t first = pages.top;
    size_t gap = -(page_address(first) / PAGE_BYTES) & (align - 1);
    if (!top_raise(first + gap + count))
        return 0;
    if (gap)
        run_release(structure_take(first, gap, CONTENT_ZERO));
    return structure_take(first + gap, count, CONTENT_ZERO);
}

static uint32_t take_run(size_t count, size_t align)
{
    uint32_t id = run_find(count + align - 1);
    if (!id)
        return 0;
    run_unlink(id);
    struct span *s = span_at(id);
    size_t gap = -(s->start / PAGE_BYTES) & (align - 1);
    if (gap) {
        uint32_t head = structure_take(first_page(id), gap, s->content);
        s->start += gap * PAGE_BYTES;
        rest_at(id)->pages -= (uint32_t)gap;
        run_release(head);
    }
    cut_tail(id, count, s->content);
    return id;
}

uint32_t runs_take(size_t count, size_t align)
{
    size_t limit = (region.extent[REGION_OBJECTS].limit - region.extent[REGION_OBJECTS].start);
    if (count > limit / PAGE_BYTES || align > limit / PAGE_BYTES ||
        !structures_stock(1 + SPLIT_SPANS))
        return 0;
    uint32_t id = take_run(count, align);
    if (!id)
        id = take_top(count, align);
    if (!id && pages.dirty) { /* runs that differ in content do not merge: make them equal */
        purge(0);
        id = take_run(count, align);
        if (!id && structures_stock(1 + SPLIT_SPANS))
            id = take_top(count, align);
    }
    if (id)
        pages.used += count;
    return id;
}

void runs_give(uint32_t id)
{
    struct span *s = span_at(id);
    if (span_is_small(s))
        map_all(id, 0);
    else
        map_ends(id, 0);
    s->owner = HEAP_NONE;
    s->state = SPAN_UNUSED;
    s->content = CONTENT_DIRTY;
    pages.used -= rest_at(id)->pages;
    run_release(id);
    purge_excess();
}

bool runs_extend(uint32_t id, size_t count)
{
    struct rest *r = rest_at(id);
    size_t end = first_page(id) + r->pages, more = count - r->pages;
    if (!structures_stock(SPLIT_SPANS))
        return false;
    if (end == pages.top) {
        if (!top_raise(end + more))
            return false;
    } else {
        uint32_t next = map_id(end);
        if (!next || span_state(span_at(next)) != SPAN_RUN || rest_at(next)->pages < more)
            return false;
        run_unlink(next);
        cut_tail(next, more, span_at(next)->content);
        structure_put(next);
    }
    map_ends(id, 0);
    r->pages = (uint32_t)count;
    map_ends(id, map_value(id, 0));
    pages.used += more;
    return true;
}

void runs_shrink(uint32_t id, size_t count)
{
    if (!structures_stock(1))
        return;
    map_ends(id, 0);
    pages.used -= rest_at(id)->pages - count;
    cut_tail(id, count, CONTENT_DIRTY);
    map_ends(id, map_value(id, 0));
    purge_excess();
}

void runs_stats(struct alloc_stats *stats)
{
    stats->used_pages = pages.used;
    stats->dirty_pages = pages.dirty;
    stats->top_pages = pages.top;
    stats->spans = pages.spans;
    stats->drops = pages.drops;
}

/* --- invariants --- */

static int fault(const char *what, uint32_t id)
{
    say("heap: %s (span %u)", what, id);
    return 1;
}

static int check_map(uint32_t id)
{
    size_t first = first_page(id), last = first + rest_at(id)->pages - 1;
    bool small = span_is_small(span_at(id));
    uint32_t value = map_value(id, small ? span_at(id)->kind : 0);
    for (size_t page = first; page <= last; page++) {
        uint32_t want = small || page == first || page == last ? value : 0;
        if (*map_entry(page) != want)
            return fault("the map is wrong within a span", id);
    }
    return 0;
}

static int check_bins(size_t runs)
{
    size_t seen = 0;
    for (unsigned bin = 0; bin < BINS; bin++) {
        if (!pages.bin[bin] != !(pages.filled[bin / 64] >> (bin % 64) & 1))
            return fault("a bin's bit does not say what is in it", bin);
        uint32_t prev = 0;
        for (uint32_t id = pages.bin[bin]; id; prev = id, id = rest_at(id)->next, seen++)
            if (span_at(id)->state != SPAN_RUN || bin_of(rest_at(id)->pages) != bin ||
                rest_at(id)->prev != prev || seen > runs)
                return fault("a bin holds what does not belong there", id);
    }
    return seen == runs ? 0 : fault("a free run is in no bin", 0);
}

static int check_ages(size_t dirty)
{
    size_t seen = 0;
    uint32_t newer = 0;
    for (uint32_t id = pages.newest; id; newer = id, id = rest_at(id)->older) {
        seen += rest_at(id)->pages;
        if (rest_at(id)->newer != newer || seen > dirty)
            return fault("the list of dirty runs is broken", id);
    }
    return seen == dirty && dirty == pages.dirty && newer == pages.oldest
               ? 0
               : fault("the dirty runs do not add up", 0);
}

int runs_check(void)
{
    size_t page = 0, runs = 0, dirty = 0, used = 0, structures = 0;
    uint32_t before = 0;
    for (uint32_t id; page < pages.top; page += rest_at(id)->pages, before = id, structures++) {
        id = map_id(page);
        if (!id || id >= pages.spans || first_page(id) != page || !rest_at(id)->pages)
            return fault("no span where one must begin", id);
        struct span *s = span_at(id);
        if (s->state == SPAN_UNUSED || check_map(id))
            return fault("an unused span is mapped", id);
        if ((s->owner == HEAP_NONE) == span_is_small(s))
            return fault("the owner does not fit the state", id);
        if (s->state != SPAN_RUN) {
            used += rest_at(id)->pages;
            continue;
        }
        runs++;
        dirty += s->content == CONTENT_DIRTY ? rest_at(id)->pages : 0;
        if (before && span_at(before)->state == SPAN_RUN && span_at(before)->content == s->content)
            return fault("two free runs were not merged", id);
    }
    if (page != pages.top || used != pages.used)
        return fault("the pages do not add up", 0);
    if (pages.spans && structures + pages.stock + 1 != pages.spans)
        return fault("a span structure was lost", 0);
    return check_bins(runs) || check_ages(dirty);
}
