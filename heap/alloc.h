/* The allocator: the malloc family over the region, made for incremental commits.
 *
 * Objects carry no header and free memory no links: what is free is told by bitmaps in a stretch of
 * their own, one 64-byte line a span, so that free() does not touch the object at all and double frees are
 * told exactly. Small objects (up to 32 KiB) lie in spans of one size, owned by one thread's heap. The
 * heap's bin of a size hands out what was freed last; an empty bin is filled with the lowest free objects
 * of the current span, so that what is allocated together lies together. Anything larger is a run of
 * pages of its own. Ideas from hardened_malloc (metadata apart), mimalloc (spans owned by threads, freed by
 * others through an atomic mailbox), jemalloc (bins, runs of pages that are dirty or clean).
 *
 * The files: alloc.c which way a request goes; alloc_fast.h the two inlined ways; alloc_heap.c threads'
 * heaps; alloc_runs.c runs of pages; alloc_large.c large blocks; alloc_span.h what they share.
 *
 * Thread-safe. NOT async-signal-safe: a signal handler may interrupt it at any point, but must not
 * call it on the same thread; so no handler of libken allocates or frees.
 * Locks: one (alloc_lock.h), taken for page runs and the list of heaps only. Nothing is called with
 * it held but the region's hooks, so there is no lock order to keep. fork: see below.
 * All state is ordinary memory (the region, libken's .data, a thread-local pointer): part of the
 * image.
 *
 * These functions do not touch errno; shim/stubs_malloc.c sets it. NULL always means "no memory"
 * (or a size beyond PTRDIFF_MAX), except where told otherwise.
 */
#ifndef KEN_HEAP_ALLOC_H
#define KEN_HEAP_ALLOC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* At least `bytes`, aligned to 16. alloc_malloc(0) is a unique pointer. */
void *alloc_malloc(size_t bytes);
void *alloc_calloc(size_t count, size_t bytes);

/* As C's realloc: on NULL the old block is unchanged; (p, 0) frees and returns NULL, as glibc does.
 */
void *alloc_realloc(void *, size_t bytes);

/* `alignment` is any power of two. */
void *alloc_aligned(size_t alignment, size_t bytes);

/* NULL is allowed. A pointer that malloc did not return, or that was freed, ends the program: one
 * line says which, then SIGABRT. */
void alloc_free(void *);

/* How many bytes of the block may be used; 0 for NULL. */
size_t alloc_usable(const void *);

/* To be called around fork. prepare waits until no other thread is within a slow path; the child
 * may then allocate and free as before. */
void alloc_fork_prepare(void);
void alloc_fork_parent(void);
void alloc_fork_child(void);

/* Walks every invariant. Returns 0, or the number of faults, having said what they are. No other
 * thread may be allocating. */
int alloc_check(void);

struct alloc_stats {
    size_t used_pages;  /* in spans and large blocks */
    size_t dirty_pages; /* free, and resident */
    size_t top_pages;   /* ever used, from the start of the objects */
    size_t spans;       /* span structures ever made */
    size_t heaps;       /* heaps ever made */
    size_t drops;       /* how often pages were given back */
};
void alloc_get_stats(struct alloc_stats *);

#endif
