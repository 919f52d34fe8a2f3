/* Heaps: what one thread allocates small objects from. For each class a current span, and a list of
 * others that have something free, the one freed into last in front.
 *
 * A thread gets its heap at its first malloc, a dead one if there is any. That a thread ends is
 * told by a pthread key's destructor: a table of thread ids would mean nothing after a restore. The
 * key is made when the second thread allocates, long after start-up; neither pthread_key_create nor
 * pthread_setspecific enters the kernel, and should the latter allocate, the heap is in place
 * already. A thread whose destructors allocate afterwards simply takes a heap anew, and gives it up
 * in the next of libc's rounds.
 */
#include "heap/alloc_fast.h"
#include "heap/say.h"

#include <pthread.h>

struct lock alloc_lock;
const struct span alloc_no_span = {.owner = HEAP_NONE};
__thread struct heap *alloc_heap;

#define AT(n)                                                                                      \
    (uint16_t)(offsetof(struct heap, bin) + CLASS_WITH((n)*16UL - ((n) != 0)) * sizeof(struct bin))
#define AT_8(n) AT(n), AT(n + 1), AT(n + 2), AT(n + 3), AT(n + 4), AT(n + 5), AT(n + 6), AT(n + 7)
#define AT_32(n) AT_8(n), AT_8(n + 8), AT_8(n + 16), AT_8(n + 24)
#define AT_128(n) AT_32(n), AT_32(n + 32), AT_32(n + 64), AT_32(n + 96)
#define AT_512(n) AT_128(n), AT_128(n + 128), AT_128(n + 256), AT_128(n + 384)
const uint16_t alloc_bin_at[] = {AT_512(0), AT_512(512), AT_512(1024), AT_512(1536), AT(2048)};

static size_t heaps;
static struct heap *dead;
static pthread_key_t key;
static enum { KEY_NONE, KEY_MADE, KEY_REFUSED } key_state;

static struct span *no_span(void)
{
    return (struct span *)&alloc_no_span; /* never written: nothing in it is free */
}

static struct heap *heap_at(size_t i)
{
    return (struct heap *)region.extent[REGION_HEAPS].start + i;
}

static void partial_link(struct heap *h, struct span *s)
{
    uint32_t id = span_id(s), *head = &h->partial[s->kind];
    struct rest *r = rest_at(id);
    r->prev = 0;
    r->next = *head;
    if (r->next)
        rest_at(r->next)->prev = id;
    *head = id;
    span_become(s, SPAN_PARTIAL);
}

static void partial_unlink(struct heap *h, struct span *s)
{
    struct rest *r = span_rest(s);
    if (r->prev)
        rest_at(r->prev)->next = r->next;
    else
        h->partial[s->kind] = r->next;
    if (r->next)
        rest_at(r->next)->prev = r->prev;
}

/* The slot that stays 0, below the first object. */
static struct slot *bin_bottom(struct bin *b, unsigned kind)
{
    return &b->slot[BIN_SLOTS - 1 - class_cached(kind)];
}

/* Whether everything is free, none of it in the bin, and nobody is on his way to push the span (see
 * alloc_span.h). */
static bool can_retire(struct heap *h, struct span *s)
{
    if (!span_is_empty(s) || span_rest(s)->balance)
        return false;
    struct bin *b = &h->bin[s->kind];
    for (struct slot *o = b->top; o->address; o--)
        if (span_of(o->address) == s)
            return false;
    return true;
}

static void retire(struct heap *h, struct span *s, bool locked)
{
    partial_unlink(h, s);
    if (!locked)
        lock_take(&alloc_lock);
    runs_give(span_id(s));
    if (!locked)
        lock_give(&alloc_lock);
}

/* Puts a span where it belongs after something in it has become free. */
static void settle(struct heap *h, struct span *s, bool locked)
{
    if (s->state == SPAN_FULL)
        partial_link(h, s);
    if (s->state == SPAN_PARTIAL && can_retire(h, s))
        retire(h, s, locked);
}

/* Lets the `leave` oldest entries go. They are out of the bin before the spans are looked at, and
 * all of one span at once: the first look may retire it. */
static void forget(struct heap *h, unsigned kind, unsigned leave, bool locked)
{
    struct bin *b = &h->bin[kind];
    struct span *left[CLASS_MOST_CACHED];
    struct slot *bottom = bin_bottom(b, kind);
    unsigned count = (unsigned)(b->top - bottom), spans = 0;
    for (unsigned i = 1; i <= leave; i++) {
        struct span *s = span_of(bottom[i].address);
        unsigned k = 0;
        while (k < spans && left[k] != s)
            k++;
        left[k] = s;
        spans += k == spans;
    }
    __atomic_store_n(&b->top, bottom, __ATOMIC_RELEASE); /* for a fork just now */
    for (unsigned i = leave + 1; i <= count; i++)
        bottom[i - leave] = bottom[i];
    __atomic_store_n(&b->top, bottom + count - leave, __ATOMIC_RELEASE);
    for (unsigned k = 0; k < spans; k++)
        settle(h, left[k], locked);
}

void alloc_heap_flush(struct heap *h, unsigned kind)
{
    forget(h, kind, (class_cached(kind) + 1) / 2, false);
}

/* Takes over what other threads freed in a span. */
static void collect(struct span *s, struct rest *r, bool locked)
{
    uint32_t counted = __atomic_exchange_n(&r->remote_count, 0, __ATOMIC_ACQ_REL);
    uint32_t taken = 0;
    for (unsigned w = 0; w < CLASS_MOST_OBJECTS / 64; w++) {
        if (!__atomic_load_n(&r->remote[w], __ATOMIC_RELAXED))
            continue;
        uint64_t bits = __atomic_exchange_n(&r->remote[w], 0, __ATOMIC_ACQUIRE);
        unsigned last = 63U - (unsigned)__builtin_clzl(bits);
        if (bits & s->free[w]) { /* its owner had freed it as well */
            unsigned i = w * 64 + (unsigned)__builtin_ctzl(bits & s->free[w]);
            if (locked)
                lock_give(&alloc_lock);
            alloc_abort_pointer("double free", s->start + i * (uintptr_t)s->size);
        }
        __atomic_store_n(&s->free[w], s->free[w] | bits, __ATOMIC_RELAXED);
        taken += (uint32_t)__builtin_popcountl(bits);
        if (s->freed < w * 64 + last + 1)
            s->freed = w * 64 + last + 1;
    }
    r->balance += taken - counted;
}

static void drain(struct heap *h, bool locked)
{
    uint32_t id = __atomic_exchange_n(&h->pending, 0, __ATOMIC_SEQ_CST);
    while (id) {
        struct span *s = span_at(id);
        struct rest *r = rest_at(id);
        id = r->pending_next; /* before the count is taken: after that the span may be pushed again
                               */
        collect(s, r, locked);
        settle(h, s, locked);
    }
}

static void push_pending(struct heap *h, uint32_t id)
{
    uint32_t head = __atomic_load_n(&h->pending, __ATOMIC_RELAXED);
    do
        rest_at(id)->pending_next = head;
    while (!__atomic_compare_exchange_n(&h->pending, &head, id, true, __ATOMIC_SEQ_CST,
                                        __ATOMIC_RELAXED));
    if (__atomic_load_n(&h->state, __ATOMIC_SEQ_CST) != HEAP_DEAD)
        return;
    lock_take(&alloc_lock); /* nobody else will look, unless a thread has just adopted it */
    if (h->state == HEAP_DEAD)
        drain(h, true);
    lock_give(&alloc_lock);
}

void alloc_heap_free_remote(struct span *s, uintptr_t address)
{
    long i = span_index(s, address);
    if (i < 0)
        alloc_abort_pointer("free of a pointer into a block", address);
    struct heap *h = s->owner;
    uint32_t id = span_id(s);
    struct rest *r = rest_at(id);
    uint64_t bit = 1UL << (i % 64);
    if (span_is_free(s, i) || (__atomic_fetch_or(&r->remote[i / 64], bit, __ATOMIC_ACQ_REL) & bit))
        alloc_abort_pointer("double free", address);
    if (__atomic_fetch_add(&r->remote_count, 1, __ATOMIC_ACQ_REL) == 0)
        push_pending(h, id);
}

static struct span *span_make(struct heap *h, unsigned kind)
{
    lock_take(&alloc_lock);
    uint32_t id = runs_take(class_pages(kind), 1);
    struct span *s = NULL;
    if (id) {
        s = span_at(id);
        struct rest *r = rest_at(id);
        s->size = (uint16_t)class_size(kind);
        s->magic = (uint32_t)(((1UL << 32) + s->size - 1) / s->size);
        s->capacity = (uint16_t)class_objects(kind);
        s->freed = 0;
        s->kind = (uint8_t)kind;
        for (unsigned w = 0; w < CLASS_MOST_OBJECTS / 64; w++) {
            s->free[w] = span_all(s, w);
            r->remote[w] = 0;
        }
        r->remote_count = r->balance = 0;
        s->owner = h;
        span_become(s, SPAN_CURRENT);
        runs_map(id);
    }
    lock_give(&alloc_lock);
    return s;
}

static struct span *refill(struct heap *h, unsigned kind)
{
    if (h->current[kind] != &alloc_no_span)
        span_become(h->current[kind], SPAN_FULL);
    h->current[kind] = no_span();
    if (__atomic_load_n(&h->pending, __ATOMIC_RELAXED))
        drain(h, false);
    struct span *s;
    while (h->partial[kind]) {
        s = span_at(h->partial[kind]);
        partial_unlink(h, s);
        span_become(s, SPAN_FULL);
        if (span_has_free(s)) {
            span_become(s, SPAN_CURRENT);
            return h->current[kind] = s;
        }
    }
    s = span_make(h, kind);
    if (s)
        h->current[kind] = s;
    return s;
}

void *alloc_heap_fill(struct heap *h, unsigned kind)
{
    struct bin *b = &h->bin[kind];
    struct span *s = h->current[kind];
    if (!span_has_free(s) && !(s = refill(h, kind)))
        return NULL;
    unsigned w = 0, want = (class_cached(kind) + 3) / 4;
    while (!s->free[w])
        w++;
    uint64_t bits = s->free[w];
    unsigned free = (unsigned)__builtin_popcountl(bits);
    if (want > free)
        want = free;
    struct slot *bottom = bin_bottom(b, kind);
    for (unsigned k = want; k > 0; k--, bits &= bits - 1) {
        unsigned i = w * 64 + (unsigned)__builtin_ctzl(bits);
        bottom[k] = (struct slot){s->start + i * (uintptr_t)s->size, (uint32_t)span_place(s, i)};
    }
    __atomic_store_n(&b->top, bottom + want, __ATOMIC_RELEASE);
    return bin_pop(b);
}

/* --- a heap's life --- */

/* Puts the current spans into the lists, or back to the pages. Lock held. */
static void put_away(struct heap *h)
{
    drain(h, true);
    for (unsigned kind = 0; kind < CLASSES; kind++) {
        struct bin *b = &h->bin[kind];
        forget(h, kind, (unsigned)(b->top - bin_bottom(b, kind)), true);
        struct span *s = h->current[kind];
        h->current[kind] = no_span();
        if (s == &alloc_no_span)
            continue;
        span_become(s, SPAN_FULL);
        settle(h, s, true);
    }
}

static void heap_leave(void *heap)
{
    struct heap *h = heap;
    alloc_heap = NULL;
    lock_take(&alloc_lock);
    __atomic_store_n(&h->state, HEAP_DEAD, __ATOMIC_SEQ_CST);
    put_away(h);
    h->next = dead;
    dead = h;
    lock_give(&alloc_lock);
}

static void arrange_leaving(struct heap *h)
{
    lock_take(&alloc_lock);
    if (key_state == KEY_NONE)
        key_state = pthread_key_create(&key, heap_leave) ? KEY_REFUSED : KEY_MADE;
    lock_give(&alloc_lock);
    if (key_state == KEY_MADE)
        pthread_setspecific(key, h);
}

static struct heap *heap_make(void)
{
    if (heaps == HEAPS || region_grow(REGION_HEAPS, (heaps + 1) * sizeof(struct heap)))
        return NULL;
    struct heap *h = heap_at(heaps++);
    for (unsigned kind = 0; kind < CLASSES; kind++) {
        h->current[kind] = no_span();
        h->bin[kind].top = bin_bottom(&h->bin[kind], kind);
    }
    return h;
}

struct heap *alloc_heap_mine(void)
{
    if (alloc_heap)
        return alloc_heap;
    lock_take(&alloc_lock);
    struct heap *h = NULL;
    if (runs_open() == 0) {
        h = dead;
        if (h) {
            dead = h->next;
            __atomic_store_n(&h->state, HEAP_LIVE, __ATOMIC_SEQ_CST);
        } else {
            h = heap_make();
        }
    }
    lock_give(&alloc_lock);
    alloc_heap = h;
    if (h && sys(SYS_gettid) != sys(SYS_getpid)) /* the main thread ends with the program */
        arrange_leaving(h);
    return h;
}

/* Forgets a heap's lists and files it as dead. */
static void heap_reset(struct heap *h)
{
    for (unsigned kind = 0; kind < CLASSES; kind++) {
        h->bin[kind].top = bin_bottom(&h->bin[kind], kind);
        h->current[kind] = no_span();
        h->partial[kind] = 0;
    }
    h->pending = 0;
    h->state = HEAP_DEAD;
    h->next = dead;
    dead = h;
}

/* A thread that fork left behind may have been within its slow path, its lists half changed; but
 * each bitmap word is written by one store and spans are made under the lock, so the lists can be
 * built anew from the spans. What such a thread held in its registers is lost. */
void alloc_heap_adopt_all(void)
{
    bool lost = false;
    for (size_t i = 0; i < heaps; i++)
        lost |= heap_at(i) != alloc_heap && heap_at(i)->state == HEAP_LIVE;
    if (!lost)
        return;
    dead = NULL;
    for (size_t i = 0; i < heaps; i++)
        if (heap_at(i) != alloc_heap)
            heap_reset(heap_at(i));
    for (uint32_t id = 1; id < runs_spans(); id++) {
        struct span *s = span_at(id);
        if (!span_is_small(s) || s->owner == alloc_heap)
            continue;
        collect(s, rest_at(id), true);
        rest_at(id)->balance = 0;
        partial_link(s->owner, s); /* full ones too: a refill passes over them */
        if (can_retire(s->owner, s))
            retire(s->owner, s, true);
    }
}

size_t alloc_heap_count(void)
{
    return heaps;
}

/* --- invariants --- */

static int fault(const char *what, uint32_t id)
{
    say("heap: %s (span %u)", what, id);
    return 1;
}

static int check_bin(struct heap *h, unsigned kind)
{
    struct bin *b = &h->bin[kind];
    struct slot *bottom = bin_bottom(b, kind);
    if (b->top < bottom || b->top - bottom > class_cached(kind) || bottom->address)
        return fault("a bin holds more than it may", kind);
    for (struct slot *o = b->top; o > bottom; o--) {
        struct span *s = span_of(o->address);
        long i = s && s->owner == h && s->kind == kind ? span_index(s, o->address) : -1;
        if (i < 0)
            return fault("a bin holds what is not the heap's", kind);
        if (o->place != span_place(s, (uint64_t)i))
            return fault("a bin's object has its bit elsewhere", span_id(s));
        if (!span_is_free(s, i))
            return fault("a bin's object is in use", span_id(s));
        for (struct slot *other = bottom + 1; other < o; other++)
            if (other->address == o->address)
                return fault("an object is in a bin twice", span_id(s));
    }
    return 0;
}

/* What is free in a span that no list leads to is in the bin: else nobody would find it again. */
static bool is_found(struct span *s)
{
    struct bin *b = &s->owner->bin[s->kind];
    int free = 0;
    for (unsigned w = 0; w < CLASS_MOST_OBJECTS / 64; w++)
        free += __builtin_popcountl(s->free[w]);
    for (struct slot *o = b->top; o->address; o--)
        free -= span_of(o->address) == s;
    return free == 0;
}

static int check_heap(struct heap *h, size_t *listed)
{
    for (unsigned kind = 0; kind < CLASSES; kind++) {
        struct span *s = h->current[kind];
        if (s != &alloc_no_span && (s->owner != h || s->kind != kind || s->state != SPAN_CURRENT))
            return fault("a heap's current span is another's", span_id(s));
        *listed += s != &alloc_no_span;
        if (check_bin(h, kind))
            return 1;
        uint32_t prev = 0;
        for (uint32_t id = h->partial[kind]; id; prev = id, id = rest_at(id)->next, ++*listed) {
            s = span_at(id);
            if (s->owner != h || s->kind != kind || s->state != SPAN_PARTIAL ||
                rest_at(id)->prev != prev || *listed > runs_spans())
                return fault("a heap's list is broken", id);
        }
    }
    return 0;
}

static int check_small(struct span *s, uint32_t id)
{
    struct rest *r = rest_at(id);
    if (s->size != class_size(s->kind) || r->pages != class_pages(s->kind) ||
        s->capacity != class_objects(s->kind) || s->freed > s->capacity)
        return fault("a span does not fit its class", id);
    unsigned remote = 0;
    for (unsigned w = 0; w < CLASS_MOST_OBJECTS / 64; w++) {
        if ((s->free[w] | r->remote[w]) & ~span_all(s, w))
            return fault("objects beyond the last one are free", id);
        if (s->free[w] & r->remote[w])
            return fault("an object is free twice", id);
        remote += (unsigned)__builtin_popcountl(r->remote[w]);
    }
    if (s->state == SPAN_FULL && !is_found(s))
        return fault("free objects of a full span were forgotten", id);
    if (remote + r->balance != r->remote_count)
        return fault("the objects freed by other threads do not add up", id);
    return 0;
}

int alloc_heap_check(void)
{
    size_t listed = 0, must = 0;
    for (size_t i = 0; i < heaps; i++)
        if (check_heap(heap_at(i), &listed))
            return 1;
    for (uint32_t id = 1; id < runs_spans(); id++) {
        struct span *s = span_at(id);
        if (!span_is_small(s))
            continue;
        if (check_small(s, id))
            return 1;
        must += s->state != SPAN_FULL;
    }
    return listed == must ? 0 : fault("a span is in no list", 0);
}
