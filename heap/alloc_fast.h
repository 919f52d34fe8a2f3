/* The two fast ways, inlined into the exported stubs: a malloc of what was freed lately, a free of one's own
 * object. They write the bin, nothing else.
 */
#ifndef KEN_HEAP_ALLOC_FAST_H
#define KEN_HEAP_ALLOC_FAST_H

#include "heap/alloc_span.h"

#include <emmintrin.h>

static inline uint16_t object_tag(uintptr_t address)
{
    return (uint16_t)(address >> 4);
}

/* Whether the bin may hold the object: one of its tags is equal. */
static inline bool bin_may_hold(const struct bin *b, uintptr_t address, unsigned count)
{
    const __m128i *tags = (const __m128i *)b->tag;
    __m128i tag = _mm_set1_epi16((short)object_tag(address));
    __m128i equal = _mm_packs_epi16(_mm_cmpeq_epi16(_mm_load_si128(tags), tag),
                                    _mm_cmpeq_epi16(_mm_load_si128(tags + 1), tag));
    return (unsigned)_mm_movemask_epi8(equal) & ((1U << count) - 1);
}

/* NULL: go the slow way, alloc_malloc(). */
static inline void *alloc_fast(size_t bytes)
{
    struct heap *h = alloc_heap;
    if (unlikely(bytes > CLASS_LARGEST || !h))
        return NULL;
    struct bin *b = &h->bin[class_of(bytes)];
    unsigned count = b->count;
    if (unlikely(!count))
        return NULL;
    b->count = (uint16_t)(count - 1);
    return b->object[count - 1];
}

/* alloc.c: whatever the inlined part does not do. */
void alloc_free_slowly(void *, struct span *);

/* Both ways to be free already: in the span's bitmap, in the bin. */
static inline void alloc_free_fast(void *p)
{
    uintptr_t address = (uintptr_t)p;
    struct heap *h = alloc_heap;
    struct span *s = span_of(address);
    if (unlikely(!s || s->owner != h)) {
        alloc_free_slowly(p, s);
        return;
    }
    struct bin *b = &h->bin[s->kind];
    unsigned count = b->count;
    long i = span_index(s, address);
    if (unlikely(i < 0 || span_is_free(s, i) || bin_may_hold(b, address, count) ||
                 i >= s->freed || count == b->most)) {
        alloc_free_slowly(p, s);
        return;
    }
    b->tag[count] = object_tag(address);
    b->object[count] = p;
    b->count = (uint16_t)(count + 1);
}

#endif
