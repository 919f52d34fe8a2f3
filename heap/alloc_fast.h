/* The two fast ways, inlined into the exported stubs: a malloc of what was freed lately, a free of
 * one's own object. They write the bin and the object's bit in its span's line, nothing else. The
 * bitmap's words are stored by relaxed atomics: another thread that frees an object may look at
 * them.
 *
 * A pop gets its address from the bin and not from the bitmap, which would make each malloc wait
 * for the whole of the free before it (10 ns against 4 for a malloc and a free of one object).
 * Telling double frees by tags in the bin instead of the bitmap was tried: the vector load over
 * them waits for the narrow store of the last free, and another thread cannot read them cheaply.
 */
#ifndef KEN_HEAP_ALLOC_FAST_H
#define KEN_HEAP_ALLOC_FAST_H

#include "heap/alloc_span.h"

/* Whether a bin is full whose last slot in use is this one. */
static inline bool bin_ends_at(const uintptr_t *top)
{
    return ((uintptr_t)(top + 1) & (sizeof(struct bin) - 1)) == 0;
}

/* The last one freed, or NULL. */
static inline void *bin_pop(struct bin *b)
{
    uintptr_t *top = b->top, address = *top;
    if (unlikely(!address))
        return NULL;
    struct span *s = map_span(*map_entry(page_of(address)));
    b->top = top - 1;
    uint64_t i = span_quotient(s, address), *word = &s->free[i / 64];
    uint64_t bits = __atomic_load_n(word, __ATOMIC_RELAXED);
    __atomic_store_n(word, bits & ~(1UL << (i % 64)), __ATOMIC_RELAXED);
    return (void *)address;
}

static inline void bin_push(struct bin *b, uintptr_t *top, uintptr_t address)
{
    top[1] = address;
    __atomic_store_n(&b->top, top + 1, __ATOMIC_RELEASE);
}

/* NULL: go the slow way, alloc_malloc(). */
static inline void *alloc_fast(size_t bytes)
{
    struct heap *h = alloc_heap;
    if (unlikely(bytes > CLASS_LARGEST || !h))
        return NULL;
    return bin_pop(&h->bin[class_of(bytes)]);
}

/* alloc.c: whatever the inlined part does not do. */
void alloc_free_slowly(void *, struct span *);

static inline void alloc_free_fast(void *p)
{
    uintptr_t address = (uintptr_t)p;
    struct heap *h = alloc_heap;
    if (unlikely(address - region.objects >= region.objects_bytes)) {
        alloc_free_slowly(p, NULL);
        return;
    }
    uint32_t value = *map_entry(page_of(address));
    struct span *s = map_span(value);
    if (unlikely(s->owner != h)) {
        alloc_free_slowly(p, s);
        return;
    }
    struct bin *b = &h->bin[map_kind(value)];
    uintptr_t *top = b->top;
    uint64_t i = span_quotient(s, address), *word = &s->free[i / 64];
    /* What lies beyond the last object lies beyond the last one freed as well. */
    if (unlikely(i >= s->freed || i * s->size != address - s->start || (*word >> (i % 64) & 1) ||
                 bin_ends_at(top))) {
        alloc_free_slowly(p, s);
        return;
    }
    __atomic_store_n(word, *word | 1UL << (i % 64), __ATOMIC_RELAXED);
    bin_push(b, top, address);
}

#endif
