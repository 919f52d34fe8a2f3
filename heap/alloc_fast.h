/* The two fast ways, inlined into the exported stubs: a malloc of what was freed lately, a free of
 * one's own object. They write the bin and the object's bit in its span's line, nothing else. The
 * bitmap's words are stored by relaxed atomics: another thread that frees an object may look at
 * them.
 *
 * What counts is less the number of instructions than how soon the address of each store is known:
 * a load that has ever met a store to the same place (the top of a bin, a word of a bitmap) waits
 * for the addresses of all stores before it. So a bin holds the place of an object's bit beside its
 * address: going by way of the map and the span for it made churn 1.2 ns slower.
 *
 * A pop gets its address from the bin and not from the bitmap, which would make each malloc wait
 * for the whole of the free before it (10 ns against 4 for a malloc and a free of one object).
 * Telling double frees by tags in the bin instead of the bitmap was tried: the vector load over
 * them waits for the narrow store of the last free, and another thread cannot read them cheaply.
 * A byte for each object, its slot in the bin, would leave malloc nothing to do but pop (another
 * ns less), but takes eight times the memory of the bits, on more pages for a turn to dirty.
 */
#ifndef KEN_HEAP_ALLOC_FAST_H
#define KEN_HEAP_ALLOC_FAST_H

#include "heap/alloc_span.h"

/* Whether a bin is full whose last slot in use is this one. */
static inline bool bin_ends_at(const struct slot *top)
{
    return ((uintptr_t)(top + 1) & (BIN_ALIGN - 1)) == 0;
}

/* The last one freed, or NULL. */
static inline void *bin_pop(struct bin *b)
{
    struct slot *top = b->top;
    uintptr_t address = top->address;
    if (unlikely(!address))
        return NULL;
    uint64_t place = top->place;
    b->top = top - 1;
    uint64_t *word = place_word(place), bits = __atomic_load_n(word, __ATOMIC_RELAXED);
    __atomic_store_n(word, bits & ~(1UL << (place % 64)), __ATOMIC_RELAXED);
    return (void *)address;
}

static inline void bin_push(struct bin *b, struct slot *top, uintptr_t address, uint64_t place)
{
    top[1] = (struct slot){address, (uint32_t)place};
    __atomic_store_n(&b->top, top + 1, __ATOMIC_RELEASE);
}

/* NULL: go the slow way, alloc_malloc(). */
static inline void *alloc_fast(size_t bytes)
{
    struct heap *h = alloc_heap;
    if (unlikely(bytes > CLASS_LARGEST || !h))
        return NULL;
    return bin_pop((struct bin *)((char *)h + alloc_bin_at[(bytes + 15) / 16]));
}

/* alloc.c: whatever the inlined part does not do. */
void alloc_free_slowly(void *, struct span *);

static inline void alloc_free_fast(void *p)
{
    uintptr_t address = (uintptr_t)p;
    struct heap *h = alloc_heap;
    if (unlikely(address - region.objects >= region_objects_bytes())) {
        alloc_free_slowly(p, NULL);
        return;
    }
    uint32_t value = *map_entry(page_of(address));
    struct span *s = map_span(value);
    if (unlikely(s->owner != h)) {
        alloc_free_slowly(p, s);
        return;
    }
    uint64_t quotient = span_quotient(s, address);
    uint32_t i = (uint32_t)(quotient >> 32);
    /* What lies beyond the last object lies beyond the last one freed as well. */
    if (unlikely(i >= s->freed || !span_is_start(s, quotient))) {
        alloc_free_slowly(p, s);
        return;
    }
    uint64_t place = map_place(value, i);
    uint64_t *word = place_word(place), bits = __atomic_load_n(word, __ATOMIC_RELAXED);
    struct bin *b = &h->bin[map_kind(value)];
    struct slot *top = b->top;
    bool was_free; /* the compiler would test and set in two steps, and save a register for it */
    __asm__("bts %2, %1" : "=@ccc"(was_free), "+r"(bits) : "r"(place));
    if (unlikely(was_free || bin_ends_at(top))) {
        alloc_free_slowly(p, s);
        return;
    }
    __atomic_store_n(word, bits, __ATOMIC_RELAXED);
    bin_push(b, top, address, place);
}

#endif
