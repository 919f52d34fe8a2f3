/* Verifying the pages of a restored image against their sums (sums.h), as late as is right.
 *
 * Restored memory is mapped lazily from the image file, so that restarting takes no longer for a large heap; it would if
 * all pages were read for their sums. So they are verified when the process has come to them: all that it has in memory
 * at a commit, before the record is made durable and anything leaves. What it wrote to, and what it dropped, is verified
 * when that is accounted for, in commit.c and image.c. A page that does not agree with its sum, or cannot be read, ends
 * the process then with a line: the store is as it was.
 * The rest follows a slice at each commit, behind the outputs. What is wrong there is told, and the process goes on: the
 * page is still unverified, and ends it when it comes there.
 *
 * One thing escapes: a page that was read, and that the kernel took back for want of memory before the commit.
 * It is verified when it is touched again, or when its turn comes.
 *
 * Which pages are left is kept in the window: a new incarnation begins anew. Not thread-safe; nothing allocates.
 */
#ifndef KEN_HEAP_VERIFY_H
#define KEN_HEAP_VERIFY_H

#include "heap/layout_meta.h"
#include "heap/pagemap.h"
#include "heap/pages.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct image;

struct unverified {
    uint64_t (*left)[CHUNK_PAGES / 64]; /* for each slot, a bit for each page */
    uint64_t count;                     /* of those bits */
    struct pages spans;                 /* the addresses that they lie at, and others */
    uint8_t *buffer;
    uint64_t scan_us;  /* how long the last verify_touched() took */
    uintptr_t next;    /* where the slices go on; below it `spans` has only what is wrong */
    bool told;         /* that something is */
    const char *store; /* its path, for the message */
};

/* Nothing is left at first. 0 or -ENOMEM. */
int verify_open(struct image *, const char *store);

/* The pages of the image in [start, end) are mapped from it: to be verified before something is made of them. The ranges
 * come in ascending order. 0 or -ENOMEM. */
int verify_later(struct image *, uintptr_t start, uintptr_t end);

/* The same, to be verified now. Both addresses are page aligned. */
void verify_now(struct image *, uintptr_t start, uintptr_t end);

/* Verifies, of what is left: the page at an offset of the file; pages [from, to) of a slot; all in [start, end). */
void verify_at(struct image *, uint64_t offset);
void verify_pages(struct image *, uint32_t slot, unsigned from, unsigned to);
void verify_range(struct image *, uintptr_t start, uintptr_t end);

/* Verifies, of what is left, all that the process has in memory. 0 or -errno. */
int verify_touched(struct image *, struct pagemap *);

/* A slice of what is left: for a millisecond, or as long as the last verify_touched() took, up to four. */
void verify_some(struct image *);

/* All that is left. */
void verify_all(struct image *);

#endif
