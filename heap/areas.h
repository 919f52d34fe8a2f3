/* The areas: which mappings make up the program, kept in step with the kernel's list.
 *
 * The kernel's list is the truth; it is read again before a commit when a call changed the layout.
 * A private mapping that was not known before is given to the tracker, and those of its pages that hold
 * memory of their own count as written. Which address ranges the tracker knows is kept here, in the
 * window: after a restore it is empty, and so the pages written since are found by the same rule.
 */
#ifndef KEN_HEAP_AREAS_H
#define KEN_HEAP_AREAS_H

#include "heap/image.h"
#include "heap/store.h"
#include "heap/tracker.h"

/* Room for 65,530 mappings of up to 256 characters. */
#define AREAS_TEXT_BYTES (16UL << 20)

struct span {
    uintptr_t start, end;
};

struct areas {
    bool stale;          /* a call changed the layout since the last refresh */
    struct span *known;  /* sorted, disjoint: tracked */
    size_t known_count;
    struct span *sparse; /* too large and empty to be tracked: compared page by page */
    size_t sparse_count;
    struct span *shared; /* shared memory without a file: no tracker sees a child's writes, so it is compared */
    size_t shared_count;
    struct pages closed; /* private memory that the program has made unreadable, and may open again */
    struct span stack;   /* the main stack */
    char *text;          /* buffer for /proc/self/maps */
    uint64_t image_device, image_inode; /* as the kernel's list shows them */
};

struct session;

/* Allocates in the window. Returns 0 or -ENOMEM. */
int areas_open(struct areas *);

/* Behind the restorer: learns how the kernel's list shows the image file, since restored memory is mapped from it, and
 * tracks what is there. Before the program goes on: where userfaultfd tracks, the kernel maps no pages but those that are
 * touched, each of which has to be verified. */
void areas_resume(struct session *);

/* The range was unmapped or replaced: its pages are gone, from the image as well. */
void areas_forget(struct session *, uintptr_t start, uintptr_t end);

/* In a child of fork: nothing is tracked, and all is new. */
void areas_inherit(struct session *);

/* Pins the files that are mapped, as the next refresh would: while the process may still write to the store. */
void areas_pin(struct session *);

/* Reads the layout again; calls take(session, from, to) for the pages that are new. Returns 0 or -errno. */
int areas_refresh(struct session *, int (*take)(struct session *, uintptr_t, uintptr_t));

#endif
