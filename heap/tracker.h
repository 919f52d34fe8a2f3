/* The tracker finds the pages that were written since it last looked.
 *
 *   TRACKER_UFFD       userfaultfd in WP_ASYNC mode and PAGEMAP_SCAN, Linux >= 6.7. A scan finds and re-arms at once.
 *   TRACKER_SOFTDIRTY  soft-dirty bits, where the kernel was built with CONFIG_MEM_SOFT_DIRTY.
 *   TRACKER_COMPARE    takes every populated page for written: always right, and the reference for the others.
 *
 * A tracker may report too much (a page that was written with what it held, or that often is; the empty neighbours of the
 * first page that is written in 2 MiB), never too little. What each reports
 * after the layout changed:
 *
 *                       UFFD                          SOFTDIRTY                      COMPARE
 *   munmap, MAP_FIXED   forgets by itself             tracker_remove()               tracker_remove()
 *   mremap: moved       both ends lost: remove the old range and add the new one, on all of them
 *   mremap: grown       in place: the new part is     add the new part               add the new part
 *                       tracked and reported
 *   brk, new mappings   add them                      add them                       add them
 *   stack growth        tracked and reported          add the new part               add the new part
 *   mprotect            nothing; stays tracked        nothing                        nothing
 *   MADV_DONTNEED       call tracker_mark() for the range, on all of them. Without it these would be found, once:
 *                       anonymous pages               pages that held memory        pages that held memory
 *                                                     and were not read since
 *   fork                parent: nothing, stays tracked. Child: nothing is tracked, and the descriptors look at the
 *                       parent: it must not use the tracker
 *
 * None of the kernel's ways sees a write through a pin that was taken before the last scan (a direct I/O read or
 * an io_uring fixed buffer in flight while it happened).
 *
 * Lives in the window and takes its memory there. Single-threaded; the program must stand still during
 * tracker_add(), tracker_scan() and tracker_populated(): with SOFTDIRTY a write during them may be lost.
 * Source: the kernel's Documentation/admin-guide/mm/{pagemap,userfaultfd,soft-dirty}.rst.
 */
#ifndef KEN_HEAP_TRACKER_H
#define KEN_HEAP_TRACKER_H

#include "heap/pagemap.h"
#include "heap/pages.h"

enum tracker_kind { TRACKER_BEST, TRACKER_UFFD, TRACKER_SOFTDIRTY, TRACKER_COMPARE };

#define APART_HEAT 4096u

/* UFFD: tracked pages that are not registered or not scanned, and the search for more of them (tracker_apart.c). */
struct apart {
    bool allowed;
    struct pages sealed, untouched, hot, warm;
    struct page_range whole; /* is not to be split: the main stack, which the kernel names as a whole */
    unsigned hot_pages;
    uint32_t pass;
    struct heat {
        uintptr_t page;
        uint32_t pass, count; /* reported last, and how many passes in a row */
    } heat[APART_HEAT];
};

struct tracker {
    enum tracker_kind kind;
    int uffd;               /* UFFD, else -1 */
    int clear_refs;         /* SOFTDIRTY, else -1 */
    struct pagemap pagemap; /* all */
    struct pages tracked;   /* what was added; all */
    /* SOFTDIRTY and COMPARE only: */
    struct pages held;    /* which of it held private memory when the last pass began */
    struct pages fresh;   /* scratch: the next `held` */
    struct pages pending; /* written, not handed out yet */
    uintptr_t walked;     /* where the pass stands */
    struct apart apart;
};

/* Sets up the tracker that is wanted, or the best there is, after trying out whether it really reports a write and a
 * dropped page. Returns the kind, or -errno: -EOPNOTSUPP when the wanted one is not to be had here. */
int tracker_open(struct tracker *, enum tracker_kind wanted);

/* The same without a trial, over files that stand in for /proc/self/pagemap and clear_refs; SOFTDIRTY or COMPARE. */
int tracker_open_on(struct tracker *, enum tracker_kind, int pagemap_fd, int clear_refs_fd);

/* Closes the descriptors; what was tracked is no more. */
void tracker_close(struct tracker *);

/* "uffd", "softdirty", "compare"; "best". Static. */
const char *tracker_name(enum tracker_kind);

/* The kind of that name, or -EINVAL. */
int tracker_named(const char *name);

/* Tracks [start, end), mapped without holes and privately, from now on: its pages count as clean until they are
 * written (COMPARE: until the next pass). May cover what is tracked already. UFFD installs a marker for each absent
 * page (8 bytes of page table, ~6 ms for each GiB): not for sparse giants. Returns 0 or -errno. */
int tracker_add(struct tracker *, uintptr_t start, uintptr_t end);

/* The same for anonymous memory of which much may never be used. */
int tracker_add_sparse(struct tracker *, uintptr_t start, uintptr_t end);

/* The same for a range that cannot be written before tracker_settle(): it costs the scans nothing. */
int tracker_add_sealed(struct tracker *, uintptr_t start, uintptr_t end);

/* To be called before the protection of tracked pages changes; other threads may run. Returns 0 or -errno. */
int tracker_settle(struct tracker *, uintptr_t start, uintptr_t end);

/* To be called before mremap(), which wants its pages in one mapping: what was never touched there may be reported as written.
 * Returns 0 or -errno. */
int tracker_join(struct tracker *, uintptr_t start, uintptr_t end);

/* Whether every call of the program that maps, unmaps, moves or protects memory is seen, so that UFFD may know of pages without
 * being told by the kernel; for what is added from now on. Returns 0 or -errno. */
int tracker_allow_apart(struct tracker *, bool);

/* The range was unmapped or replaced, or is of no interest any more. Returns 0 or -ENOMEM. */
int tracker_remove(struct tracker *, uintptr_t start, uintptr_t end);

/* The tracked pages in [start, end) count as written: the next pass reports them. To be called, before or after, for
 * what the program drops by madvise() (MADV_DONTNEED, MADV_FREE, MADV_REMOVE, ...); any range will do.
 * Returns 0 or -errno. */
int tracker_mark(struct tracker *, uintptr_t start, uintptr_t end);

/* All of [start, end), page aligned, is about to be written. A hint: UFFD takes the protection off at once, for a small part of what
 * a fault for each page costs; the next pass reports the pages, as it would have. */
void tracker_expect(struct tracker *, uintptr_t start, uintptr_t end);

/* Puts the tracked pages in [from, to) that were written since the last scan of them into `out` and takes them for
 * clean. Returns the number of ranges or -errno. Everything below *walk_end was looked at; when that is below `to`,
 * `out` was full: call again from there.
 * A pass goes upwards: a call from below where the last one ended begins a new pass. SOFTDIRTY and COMPARE look at the
 * memory when a pass begins; what is written later in a pass is reported by the next. The span may cover
 * mappings of every kind and none; one wide span is far cheaper than many small ones. */
long tracker_scan(struct tracker *, uintptr_t from, uintptr_t to, struct page_range *out, size_t capacity,
                  uintptr_t *walk_end);

/* Puts the pages in [from, to) that hold private memory now, present or swapped, into `out`; for a private file
 * mapping those that were written. Tracked or not; what is clean stays clean. Returns as tracker_scan() does.
 * UFFD: cheaper before tracker_add() than after it. Without PAGEMAP_SCAN pages that were only read (the kernel's zero
 * page) are included. */
long tracker_populated(struct tracker *, uintptr_t from, uintptr_t to, struct page_range *out, size_t capacity,
                       uintptr_t *walk_end);

#endif
