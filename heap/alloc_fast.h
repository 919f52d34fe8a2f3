/* The two fast ways, inlined into the exported stubs: a small malloc from the current span, a free
 * of one's own object. Both store one word, in the span's hot line (bitmap words by relaxed
 * atomics: another thread that frees an object may look at them).
 */
#ifndef KEN_HEAP_ALLOC_FAST_H
#define KEN_HEAP_ALLOC_FAST_H

#include "heap/alloc_span.h"

/* The lowest free object of a span, or NULL. */
static inline void *span_take(struct span *s)
{
    for (unsigned w = 0; w < CLASS_MOST_OBJECTS / 64; w++) {
        uint64_t bits = s->free[w];
        if (bits) {
            uint32_t i = w * 64 + (uint32_t)__builtin_ctzl(bits);
            __atomic_store_n(&s->free[w], bits & (bits - 1), __ATOMIC_RELAXED);
            return (void *)(s->start + i * s->size);
        }
    }
    return NULL;
}

/* NULL: go the slow way, alloc_malloc(). */
static inline void *alloc_fast(size_t bytes)
{
    struct heap *h = alloc_heap;
    if (unlikely(bytes > CLASS_LARGEST || !h))
        return NULL;
    return span_take(h->current[class_of(bytes)]);
}

/* alloc.c: whatever the inlined part does not do. */
void alloc_free_slowly(void *, struct span *);

static inline void alloc_free_fast(void *p)
{
    uintptr_t address = (uintptr_t)p;
    struct span *s = span_of(address);
    if (unlikely(!s || s->owner != alloc_heap)) {
        alloc_free_slowly(p, s);
        return;
    }
    uintptr_t offset = address - s->start;
    uint32_t i = (uint32_t)((offset * s->magic) >> 32);
    uint64_t *word = &s->free[i / 64], bit = 1UL << (i % 64);
    /* The reciprocal is exact for multiples of the size; nothing else comes out equal. */
    if (unlikely(i >= s->capacity || i * (uintptr_t)s->size != offset))
        alloc_abort_pointer("free of a pointer into a block", address);
    if (unlikely(*word & bit))
        alloc_abort_pointer("double free", address);
    __atomic_store_n(word, *word | bit, __ATOMIC_RELAXED);
    if (unlikely(i >= s->freed))
        s->freed = (uint16_t)(i + 1);
    if (s->state != SPAN_CURRENT)
        alloc_heap_settle(s->owner, s);
}

#endif
