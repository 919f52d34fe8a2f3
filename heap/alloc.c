/* The malloc family: which way a request goes. */
#include "heap/alloc.h"
#include "heap/alloc_fast.h"

#include <string.h>

static void *take_class(unsigned kind)
{
    struct heap *h = alloc_heap_mine();
    if (!h)
        return NULL;
    void *p = bin_pop(&h->bin[kind]);
    return likely(p) ? p : alloc_heap_fill(h, kind);
}

void *alloc_malloc(size_t bytes)
{
    if (bytes <= CLASS_LARGEST)
        return take_class(class_of(bytes));
    bool zero;
    return large_malloc(bytes, 1, &zero);
}

/* An object that was never freed was never handed out before: on pages that were zero it still is.
 */
static bool small_is_zero(void *p)
{
    struct span *s = span_of((uintptr_t)p);
    return s->content == CONTENT_ZERO && (uintptr_t)p - s->start >= (uintptr_t)s->freed * s->size;
}

void *alloc_calloc(size_t count, size_t bytes)
{
    size_t total;
    if (__builtin_mul_overflow(count, bytes, &total))
        return NULL;
    bool zero = false;
    void *p;
    if (total <= CLASS_LARGEST) {
        p = take_class(class_of(total));
        zero = p && small_is_zero(p);
    } else {
        p = large_malloc(total, 1, &zero);
    }
    if (p && !zero)
        memset(p, 0, total);
    return p;
}

/* Spans begin on pages, so objects are aligned to whatever power of two divides their size. */
void *alloc_aligned(size_t alignment, size_t bytes)
{
    if (alignment <= 16)
        return alloc_malloc(bytes);
    if (alignment <= PAGE_BYTES && bytes <= CLASS_LARGEST) {
        unsigned kind = class_of(bytes > alignment ? bytes : alignment);
        while (class_size(kind) % alignment)
            kind++; /* the largest one is a multiple of a page */
        return take_class(kind);
    }
    bool zero;
    return large_malloc(bytes, alignment, &zero);
}

void alloc_free(void *p)
{
    alloc_free_fast(p);
}

/* A free of one's own object that the fast way did not dare. */
static void free_own(struct heap *h, struct span *s, void *p)
{
    uintptr_t address = (uintptr_t)p;
    long i = span_index(s, address);
    if (i < 0)
        alloc_abort_pointer("free of a pointer into a block", address);
    if (span_is_free(s, i))
        alloc_abort_pointer("double free", address);
    if (i >= s->freed)
        s->freed = (uint32_t)i + 1;
    struct bin *b = &h->bin[s->kind];
    if (bin_ends_at(b->top))
        alloc_heap_flush(h, s->kind);
    span_mark_free(s, i);
    bin_push(b, b->top, address, span_place(s, (uint64_t)i));
}

void alloc_free_slowly(void *p, struct span *s)
{
    if (!p)
        return;
    uintptr_t address = (uintptr_t)p;
    if (!s)
        alloc_abort_pointer("free of a pointer that malloc did not return", address);
    else if (s->owner == alloc_heap)
        free_own(alloc_heap, s, p);
    else if (span_is_small(s))
        alloc_heap_free_remote(s, address);
    else
        large_free(s, address);
}

/* The span of a block in use; whatever else `p` is ends the program. */
static struct span *span_in_use(const void *p, const char *doing)
{
    uintptr_t address = (uintptr_t)p;
    struct span *s = span_of(address);
    if (s && s->state == SPAN_LARGE && s->start == address)
        return s;
    if (!s || !span_is_small(s))
        alloc_abort_pointer(doing, address);
    long i = span_index(s, address);
    if (i < 0 || span_is_free(s, i))
        alloc_abort_pointer(doing, address);
    return s;
}

size_t alloc_usable(const void *p)
{
    if (!p)
        return 0;
    struct span *s = span_in_use(p, "malloc_usable_size of no block in use");
    return span_is_small(s) ? s->size : span_rest(s)->used * PAGE_BYTES;
}

void *alloc_realloc(void *p, size_t bytes)
{
    if (!p)
        return alloc_malloc(bytes);
    struct span *s = span_in_use(p, "realloc of no block in use");
    if (!bytes) {
        alloc_free(p);
        return NULL;
    }
    if (!span_is_small(s))
        return large_realloc(s, p, bytes);
    size_t usable = s->size;
    if (bytes <= usable && bytes >= usable / 2)
        return p;
    void *moved = alloc_malloc(bytes);
    if (!moved)
        return bytes <= usable ? p : NULL;
    memcpy(moved, p, bytes < usable ? bytes : usable);
    alloc_free(p);
    return moved;
}

void alloc_fork_prepare(void)
{
    lock_take(&alloc_lock);
}

void alloc_fork_parent(void)
{
    lock_give(&alloc_lock);
}

void alloc_fork_child(void)
{
    alloc_lock.word = 0; /* whoever waited for it is gone */
    lock_take(&alloc_lock);
    alloc_heap_adopt_all();
    lock_give(&alloc_lock);
}

void alloc_get_stats(struct alloc_stats *stats)
{
    lock_take(&alloc_lock);
    runs_stats(stats);
    stats->heaps = alloc_heap_count();
    lock_give(&alloc_lock);
}

int alloc_check(void)
{
    lock_take(&alloc_lock);
    int faults = region.base ? runs_check() + alloc_heap_check() : 0;
    lock_give(&alloc_lock);
    return faults;
}
