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
#include "heap/alloc_span.h"
#include "heap/say.h"

#include <pthread.h>

struct lock alloc_lock;
const struct span alloc_no_span = {.owner = HEAP_NONE};
__thread struct heap *alloc_heap;

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
    uint32_t id = span_id(s), *head = &h->partial[s->class];
    struct rest *r = rest_at(id);
    r->prev = 0;
    r->next = *head;
    if (r->next)
        rest_at(r->next)->prev = id;
    *head = id;
    s->state = SPAN_PARTIAL;
}

static void partial_unlink(struct heap *h, struct span *s)
{
    struct rest *r = span_rest(s);
    if (r->prev)
        rest_at(r->prev)->next = r->next;
    else
        h->partial[s->class] = r->next;
    if (r->next)
        rest_at(r->next)->prev = r->prev;
}

/* Whether everything is free and nobody is on his way to push the span; see alloc_span.h. */
static bool can_retire(struct span *s)
{
    return span_is_empty(s) && span_rest(s)->balance == 0;
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

void alloc_heap_settle(struct heap *h, struct span *s)
{
    if (s->state == SPAN_FULL)
        partial_link(h, s);
    if (can_retire(s))
        retire(h, s, false);
}

/* Takes over what other threads freed in a span. */
static void collect(struct span *s, struct rest *r)
{
    uint32_t counted = __atomic_exchange_n(&r->remote_count, 0, __ATOMIC_ACQ_REL);
    uint32_t taken = 0;
    for (unsigned w = 0; w < CLASS_MOST_OBJECTS / 64; w++) {
        if (!__atomic_load_n(&r->remote[w], __ATOMIC_RELAXED))
            continue;
        uint64_t bits = __atomic_exchange_n(&r->remote[w], 0, __ATOMIC_ACQUIRE);
        unsigned last = 63U - (unsigned)__builtin_clzl(bits);
        s->free[w] |= bits;
        taken += (uint32_t)__builtin_popcountl(bits);
        if (s->freed < w * 64 + last + 1)
            s->freed = (uint16_t)(w * 64 + last + 1);
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
        collect(s, r);
        if (s->state == SPAN_FULL)
            partial_link(h, s);
        if (s->state == SPAN_PARTIAL && can_retire(s))
            retire(h, s, locked);
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
    uintptr_t offset = address - s->start;
    uint32_t i = (uint32_t)((offset * s->magic) >> 32);
    if (i >= s->capacity || i * (uintptr_t)s->size != offset)
        alloc_abort_pointer("free of a pointer into a block", address);
    struct heap *h = s->owner;
    uint32_t id = span_id(s);
    struct rest *r = rest_at(id);
    uint64_t bit = 1UL << (i % 64);
    if ((__atomic_load_n(&s->free[i / 64], __ATOMIC_RELAXED) & bit) ||
        (__atomic_fetch_or(&r->remote[i / 64], bit, __ATOMIC_ACQ_REL) & bit))
        alloc_abort_pointer("double free", address);
    if (__atomic_fetch_add(&r->remote_count, 1, __ATOMIC_ACQ_REL) == 0)
        push_pending(h, id);
}

static struct span *span_make(struct heap *h, unsigned class)
{
    lock_take(&alloc_lock);
    uint32_t id = runs_take(class_pages(class), 1);
    struct span *s = NULL;
    if (id) {
        s = span_at(id);
        struct rest *r = rest_at(id);
        s->size = class_size(class);
        s->magic = (uint32_t)(((1UL << 32) + s->size - 1) / s->size);
        s->capacity = (uint16_t)class_objects(class);
        s->freed = 0;
        s->class = (uint8_t) class;
        for (unsigned w = 0; w < CLASS_MOST_OBJECTS / 64; w++) {
            s->free[w] = span_all(s, w);
            r->remote[w] = 0;
        }
        r->remote_count = r->balance = 0;
        s->owner = h;
        s->state = SPAN_CURRENT;
        runs_map(id);
    }
    lock_give(&alloc_lock);
    return s;
}

struct span *alloc_heap_refill(struct heap *h, unsigned class)
{
    if (h->current[class] != &alloc_no_span)
        h->current[class]->state = SPAN_FULL;
    h->current[class] = no_span();
    if (__atomic_load_n(&h->pending, __ATOMIC_RELAXED))
        drain(h, false);
    struct span *s;
    while (h->partial[class]) {
        s = span_at(h->partial[class]);
        partial_unlink(h, s);
        s->state = SPAN_FULL;
        if (span_has_free(s)) {
            s->state = SPAN_CURRENT;
            return h->current[class] = s;
        }
    }
    s = span_make(h, class);
    if (s)
        h->current[class] = s;
    return s;
}

/* --- a heap's life --- */

/* Puts the current spans into the lists, or back to the pages. Lock held. */
static void put_away(struct heap *h)
{
    drain(h, true);
    for (unsigned class = 0; class < CLASSES; class ++) {
        struct span *s = h->current[class];
        h->current[class] = no_span();
        if (s == &alloc_no_span)
            continue;
        partial_link(h, s);
        if (can_retire(s))
            retire(h, s, true);
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
    for (unsigned class = 0; class < CLASSES; class ++)
        h->current[class] = no_span();
    return h;
}

struct heap *alloc_heap_mine(void)
{
    if (alloc_heap)
        return alloc_heap;
    lock_take(&alloc_lock);
    struct heap *h = NULL;
    bool first = heaps == 0;
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
    if (h && !first) /* the first thread is the program itself: it has no need to leave */
        arrange_leaving(h);
    return h;
}

/* Forgets a heap's lists and files it as dead. */
static void heap_reset(struct heap *h)
{
    for (unsigned class = 0; class < CLASSES; class ++) {
        h->current[class] = no_span();
        h->partial[class] = 0;
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
        collect(s, rest_at(id));
        rest_at(id)->balance = 0;
        partial_link(s->owner, s); /* full ones too: a refill passes over them */
        if (can_retire(s))
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

static int check_heap(struct heap *h, size_t *listed)
{
    for (unsigned class = 0; class < CLASSES; class ++) {
        struct span *s = h->current[class];
        if (s != &alloc_no_span && (s->owner != h || s->class != class || s->state != SPAN_CURRENT))
            return fault("a heap's current span is another's", span_id(s));
        *listed += s != &alloc_no_span;
        uint32_t prev = 0;
        for (uint32_t id = h->partial[class]; id; prev = id, id = rest_at(id)->next, ++*listed) {
            s = span_at(id);
            if (s->owner != h || s->class != class || s->state != SPAN_PARTIAL ||
                rest_at(id)->prev != prev || *listed > runs_spans())
                return fault("a heap's list is broken", id);
        }
    }
    return 0;
}

static int check_small(struct span *s, uint32_t id)
{
    struct rest *r = rest_at(id);
    if (s->size != class_size(s->class) || r->pages != class_pages(s->class) ||
        s->capacity != class_objects(s->class) || s->freed > s->capacity)
        return fault("a span does not fit its class", id);
    unsigned remote = 0;
    for (unsigned w = 0; w < CLASS_MOST_OBJECTS / 64; w++) {
        if ((s->free[w] | r->remote[w]) & ~span_all(s, w))
            return fault("objects beyond the last one are free", id);
        if (s->free[w] & r->remote[w])
            return fault("an object is free twice", id);
        remote += (unsigned)__builtin_popcountl(r->remote[w]);
    }
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
