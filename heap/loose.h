/* Loose pages: memory of libken's own for bytes that are soon forgotten, such as what peers have not acknowledged yet.
 *
 * Each commit has them in its record, whole, as they were written; but they reach the image file only if they are still needed when the
 * part of the log that holds them is to be used again. Most are not: so they are copied once less, and the image is not written
 * back because of them. Until then the image has an older content there, and recovery begins with the first record that it lacks
 * (struct record.owed).
 *
 *   loose_write()    these pages change in this turn: nobody else looks whether they did
 *   loose_take()     ... so they come into the record
 *   loose_applied()  that is durable: the image owes them
 *   loose_give_up()  their content is not needed, and a durable record says so: not owed any more
 *   loose_age()      the segment with their records is full: another one is used from now on
 *   loose_settle()   before the image is synced: what it still owes, to the records that the sync is for, is written
 *
 * Rule: what a durable record has of a page is not written over before another durable record has given it up: the image may have to
 * get it still. So what a page holds that is owed and not written in this turn is what the last durable record says.
 * The span lies in the image, the rest in the window. Not thread-safe.
 */
#ifndef KEN_HEAP_LOOSE_H
#define KEN_HEAP_LOOSE_H

#include "heap/pages.h"

#include <stdbool.h>

struct image;
struct log;

struct loose {
    struct image *image;
    struct pages written;  /* in this turn */
    struct pages recorded; /* in the turn whose record is on its way */
    struct pages owed;     /* the log's active segment has them, the image may not */
    struct pages older;    /* the same of the idle segment */
};

extern struct page_range loose_span __attribute__((visibility("hidden")));

/* Where such pages lie, once and for all; private memory that is nothing else's. */
void loose_claim(uintptr_t start, uintptr_t end);

static inline bool loose_holds(uintptr_t address)
{
    return address >= loose_span.start && address < loose_span.end;
}

/* To be called before the range is written; all of its pages count. False: no memory for that, do not write. */
bool loose_write(struct loose *, uintptr_t start, uintptr_t end);

void loose_give_up(struct loose *, uintptr_t start, uintptr_t end);

/* 0 or -errno; errors of the log are its own. */
int loose_take(struct loose *, struct log *);

/* These wait for room, and die when the disk fails. `all`: not only what is older. */
void loose_applied(struct loose *, struct log *);
void loose_age(struct loose *, struct log *);
void loose_settle(struct loose *, struct log *, bool all);

/* A child of fork: its first commit takes all that there is. */
void loose_inherit(struct loose *);

#endif
