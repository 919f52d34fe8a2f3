/* What a backend of the tracker does; for tracker.c only. Contracts: heap/tracker.h. */
#ifndef KEN_HEAP_TRACKER_BACKEND_H
#define KEN_HEAP_TRACKER_BACKEND_H

#include "heap/tracker.h"

/* The open functions return 0 or -errno and leave nothing open on errors. The pagemap is open already. */
int uffd_open(struct tracker *);
int uffd_add(struct tracker *, uintptr_t start, uintptr_t end);
int uffd_register(struct tracker *, uintptr_t start, uintptr_t end); /* all of it reads as written */
int uffd_mark(struct tracker *, uintptr_t start, uintptr_t end);
void uffd_remove(struct tracker *, uintptr_t start, uintptr_t end);
long uffd_scan(struct tracker *, uintptr_t from, uintptr_t to, struct page_range *out, size_t capacity,
               uintptr_t *walk_end);
long uffd_populated(struct tracker *, uintptr_t from, uintptr_t to, struct page_range *out, size_t capacity,
                    uintptr_t *walk_end);

/* UFFD: tracked pages that are not registered (tracker_apart.c). Results are 0 or -errno. */
int apart_add(struct tracker *, uintptr_t start, uintptr_t end);
int apart_seal(struct tracker *, uintptr_t start, uintptr_t end);
int apart_forget(struct tracker *, uintptr_t start, uintptr_t end);
int apart_settle(struct tracker *, uintptr_t start, uintptr_t end); /* sealed and hot ones */
int apart_join(struct tracker *, uintptr_t start, uintptr_t end);   /* all */

/* Before a scan: registers what is to be scanned again, and returns how many ranges of the others it has put into `out`. */
long apart_begin(struct tracker *, uintptr_t from, uintptr_t to, struct page_range *out, size_t capacity);

/* The scan itself, of what is neither: as uffd_scan(). */
long apart_scan(struct tracker *, uintptr_t from, uintptr_t to, struct page_range *out, size_t capacity, uintptr_t *walk_end);

/* Behind it: what the kernel found. */
void apart_learn(struct tracker *, const struct page_range *found, size_t count);

/* Looks at all that is tracked: what was written goes to `pending`, what holds private memory to `held`, and all of
 * it counts as clean from then on. Returns 0 or -errno: then nothing of what was written is forgotten. */
int softdirty_open(struct tracker *);
int softdirty_look(struct tracker *);
int compare_look(struct tracker *);

#endif
