/* What the allocator's files share: spans, heaps, the map. Nobody else includes this (but region.c,
 * for the sizes).
 *
 * A span is a run of pages: one large block, or equal small objects, or free. Its state says which
 * fields count. Spans are named by their index (0 is "none"); map[page] tells the span of a page,
 * as index * 64 + size class (so free() knows the bin before it has read the span's line): small
 * spans     on every page large, free run on the first and the last page; 0 between above the top 0
 *
 * Who writes what:
 *   bins: the heap's thread only
 *   free[], freed, state of a small span: the owner only (a dead heap's: whoever holds the lock)
 *   rest.remote, remote_count, pending_next: any thread, atomically
 *   everything else: under the lock, or by the owner in its slow path (prev/next of its partial
 * lists)
 * A thread that frees another's object sets its bit in `remote`, then raises remote_count;
 * who raised it from 0 pushes the span onto the owner's `pending` stack. The owner takes the count
 * first, then the bits. `balance` is bits taken less counts taken: while it is not 0 somebody is
 * between the two steps and will still push the span, so that it must not be retired.
 */
#ifndef KEN_HEAP_ALLOC_SPAN_H
#define KEN_HEAP_ALLOC_SPAN_H

#include "heap/alloc.h"
#include "heap/alloc_class.h"
#include "heap/alloc_lock.h"
#include "heap/region.h"
#include "heap/sys.h"

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

#define HEAPS 65536UL         /* live threads that allocate */
#define SPANS_MOST (1U << 23) /* what a place can name */

enum span_state {
    SPAN_UNUSED,  /* the structure is on the list of unused ones, or being changed under the lock */
    SPAN_RUN,     /* a free run of pages, in a bin */
    SPAN_LARGE,   /* one block */
    SPAN_FULL,    /* small objects, none free when last looked at; in no list */
    SPAN_PARTIAL, /* small objects; in its heap's partial list */
    SPAN_CURRENT, /* small objects; its heap's current one of the class */
};

enum span_content {
    CONTENT_DIRTY,   /* resident, anything */
    CONTENT_DROPPED, /* given back, may read as anything */
    CONTENT_ZERO,    /* given back or never used: reads as zero */
};

/* The hot line: all that malloc and free of a small object read and write. */
struct span {
    uintptr_t start;
    uint64_t free[CLASS_MOST_OBJECTS / 64]; /* 1: free */
    struct heap *owner;                     /* HEAP_NONE unless small */
    uint32_t magic;                         /* 2^32 / size, rounded up */
    uint32_t freed;                         /* no object from here on was ever freed */
    uint16_t size;                          /* of an object */
    uint16_t capacity;                      /* objects */
    uint8_t kind;
    uint8_t state;
    uint8_t content; /* of the pages when the span was made */
};

struct rest {
    uint64_t remote[CLASS_MOST_OBJECTS / 64];
    uint32_t remote_count;
    uint32_t pending_next;
    uint32_t prev, next;   /* partial list, bin, or list of unused structures */
    uint32_t older, newer; /* dirty runs by age */
    uint32_t pages;
    union {
        uint32_t balance; /* small */
        uint32_t used;    /* large: pages asked for; the others are room to grow */
    };
};

enum heap_state { HEAP_LIVE, HEAP_DEAD /* its thread ended, or was left behind by fork */ };

/* An object in a bin. Its place is that of its bit, counted from the first bit of region.spans: who
 * takes it out need not look for its span. Packed: more of them in a line, fewer lines dirtied. */
struct slot {
    uintptr_t address;
    uint32_t place;
} __attribute__((packed, aligned(4)));

/* What the thread freed last, of one class: *top is the next to be handed out. The stack ends
 * with the bin, so that alignment tells when it is full, and begins above a slot that stays 0,
 * which tells when it is empty. Objects in a bin are free in their spans' bitmaps like any others;
 * a bin is filled only when it is empty, so that what is free in the class's spans then is not in
 * it. */
#define BIN_SLOTS 31
#define BIN_ALIGN 128
struct bin {
    struct slot *top;
    uint32_t unused;
    struct slot slot[BIN_SLOTS];
} __attribute__((aligned(BIN_ALIGN)));

/* What slow paths write lies before the bins of the smallest classes, on their page. */
struct heap {
    struct span *current[CLASSES];
    uint32_t partial[CLASSES];
    struct heap *next; /* of the dead ones */
    uint32_t state;
    struct bin bin[CLASSES];
    uint32_t pending __attribute__((aligned(BIN_ALIGN)));
};

#define HEAP_NONE ((struct heap *)1) /* differs from every thread's heap, and from having none */

_Static_assert(sizeof(struct span) == 64 && sizeof(struct rest) == 64, "one line each");
_Static_assert(sizeof(struct heap) % 64 == 0, "heaps share no line");
_Static_assert(CLASSES <= 64, "a size class has its place in the map");
_Static_assert(sizeof(struct bin) % BIN_ALIGN == 0, "alignment tells when it is full");
_Static_assert(offsetof(struct bin, slot[BIN_SLOTS]) == sizeof(struct bin),
               "the last slot ends so");
_Static_assert(sizeof(struct slot) == 12 && BIN_SLOTS < BIN_ALIGN / 4, "and no other one");
_Static_assert(sizeof(struct heap) <= UINT16_MAX, "alloc_bin_at[] tells where a bin is");
_Static_assert(SPANS_MOST * sizeof(struct span) * 8 - 1 <= UINT32_MAX, "a place fits");
_Static_assert(CLASS_MOST_CACHED + 1 <= BIN_SLOTS, "and the 0 below them");

extern struct lock alloc_lock;
extern const struct span alloc_no_span; /* has nothing free */
/* Where in a heap the bin for that many bytes is, of (bytes + 15) / 16. */
extern const uint16_t alloc_bin_at[CLASS_LARGEST / 16 + 1] __attribute__((visibility("hidden")));
extern __thread struct heap *alloc_heap __attribute__((tls_model("initial-exec")));

static inline struct span *span_at(uint32_t id)
{
    return (struct span *)region.spans + id;
}

static inline struct rest *rest_at(uint32_t id)
{
    return (struct rest *)region.extent[REGION_RESTS].start + id;
}

static inline uint32_t span_id(const struct span *s)
{
    return (uint32_t)(s - (struct span *)region.spans);
}

static inline struct rest *span_rest(const struct span *s)
{
    return rest_at(span_id(s));
}

static inline uint32_t *map_entry(size_t page)
{
    return region.map + page;
}

static inline size_t page_of(uintptr_t address)
{
    return (address - region.objects) / PAGE_BYTES;
}

/* What the map says of a span. */
static inline uint32_t map_value(uint32_t id, unsigned kind)
{
    return id * (uint32_t)sizeof(struct span) | kind;
}

static inline struct span *map_span(uint32_t value)
{
    return (struct span *)((char *)region.spans + (value & ~63U));
}

static inline unsigned map_kind(uint32_t value)
{
    return value & 63U;
}

/* The span at an address, or span 0 (whose state is SPAN_UNUSED), or NULL outside the region. */
static inline struct span *span_of(uintptr_t address)
{
    if (unlikely(address - region.objects >= region_objects_bytes()))
        return NULL;
    return map_span(*map_entry(page_of(address)));
}

/* A small span's owner moves it between full, partial and current without a lock, while others ask whether it is a small
 * one (they hold a block of it, so it stays one) or a free run next to theirs (which it is not). */
static inline enum span_state span_state(const struct span *s)
{
    return (enum span_state)__atomic_load_n(&s->state, __ATOMIC_RELAXED);
}

static inline void span_become(struct span *s, enum span_state state)
{
    __atomic_store_n(&s->state, (uint8_t)state, __ATOMIC_RELAXED);
}

static inline bool span_is_small(const struct span *s)
{
    return span_state(s) >= SPAN_FULL;
}

/* The bits that word w of the bitmap has when everything is free. */
static inline uint64_t span_all(const struct span *s, unsigned w)
{
    unsigned objects = s->capacity > w * 64 ? s->capacity - w * 64U : 0;
    return objects >= 64 ? ~0UL : (1UL << objects) - 1;
}

static inline bool span_is_empty(const struct span *s)
{
    for (unsigned w = 0; w < CLASS_MOST_OBJECTS / 64; w++)
        if (s->free[w] != span_all(s, w))
            return false;
    return true;
}

/* The number of the object at an address, and 32 bits of fraction. Where an object begins the
 * fraction is less than the reciprocal, and nowhere else (Lemire, Kaser, Kurz: "Faster remainder by
 * direct computation", 2019; a unit test tries every address of every class). */
static inline uint64_t span_quotient(const struct span *s, uintptr_t address)
{
    return (address - s->start) * s->magic;
}

static inline bool span_is_start(const struct span *s, uint64_t quotient)
{
    return (uint32_t)quotient < s->magic;
}

/* The number of the object at an address, or -1 where none begins. */
static inline long span_index(const struct span *s, uintptr_t address)
{
    uint64_t quotient = span_quotient(s, address);
    if (unlikely(quotient >> 32 >= s->capacity || !span_is_start(s, quotient)))
        return -1;
    return (long)(quotient >> 32);
}

/* Where the bit of an object is: see struct slot. */
static inline uint64_t map_place(uint32_t value, uint64_t i)
{
    return (uint64_t)(value & ~63U) * 8 + offsetof(struct span, free) * 8 + i;
}

static inline uint64_t span_place(const struct span *s, uint64_t i)
{
    return map_place(map_value(span_id(s), 0), i);
}

static inline uint64_t *place_word(uint64_t place)
{
    return (uint64_t *)region.spans + place / 64;
}

static inline bool span_is_free(const struct span *s, long i)
{
    return __atomic_load_n(&s->free[i / 64], __ATOMIC_RELAXED) >> (i % 64) & 1;
}

/* Owner only. */
static inline void span_mark_free(struct span *s, long i)
{
    uint64_t *word = &s->free[i / 64];
    __atomic_store_n(word, *word | 1UL << (i % 64), __ATOMIC_RELAXED);
}

static inline bool span_has_free(const struct span *s)
{
    uint64_t any = 0;
    for (unsigned w = 0; w < CLASS_MOST_OBJECTS / 64; w++)
        any |= s->free[w];
    return any != 0;
}

/* alloc_runs.c: runs of pages; the lock is held. runs_take returns a span in state SPAN_UNUSED (0:
 * no memory), which the caller fills in and maps; runs_give unmaps it and takes it back. */
int runs_open(void); /* the region and span 0; 0 or -errno */
uint32_t runs_take(size_t pages, size_t align_pages);
void runs_give(uint32_t id);
bool runs_extend(uint32_t id, size_t pages); /* grows a large one in place */
void runs_shrink(uint32_t id, size_t pages); /* cuts a large one */
void runs_map(uint32_t id); /* enters a span's pages into the map, as its state demands */
uint32_t runs_spans(void);  /* span structures made so far, span 0 included */
void runs_stats(struct alloc_stats *);
int runs_check(void);

/* alloc_heap.c */
struct heap *alloc_heap_mine(void);                  /* makes or adopts one; NULL: no memory */
void *alloc_heap_fill(struct heap *, unsigned kind); /* an object, and some more into the bin */
void alloc_heap_flush(struct heap *, unsigned kind); /* forgets the older half of a bin */
void alloc_heap_free_remote(struct span *, uintptr_t);
void alloc_heap_adopt_all(void); /* in a fork child: the other threads are gone; lock held */
size_t alloc_heap_count(void);
int alloc_heap_check(void);

/* alloc_large.c */
void *large_malloc(size_t bytes, size_t alignment, bool *zero);
void large_free(struct span *, uintptr_t);
void *large_realloc(struct span *, void *, size_t bytes);

/* alloc_abort.c: one line, then SIGABRT. The lock must not be held: the program may have a handler.
 */
_Noreturn void alloc_abort_pointer(const char *doing, uintptr_t);

#endif
