/* The region: the one stretch of address space that holds the program's heap and all that the
 * allocator knows about it.
 *
 * It is reserved once (PROT_NONE, a random place, 1 TiB or what RLIMIT_AS leaves), at the first
 * malloc, by raw system calls: before any constructor and inside dlsym alike. It is ordinary
 * private memory, so it is committed and rolled back with the program; nothing in it is a kernel
 * handle.
 *
 *   base
 *   | heaps | map | spans | rests | objects ...                                             |
 *     \______ metadata, each stretch growing upwards on its own ______/  \__ what malloc returns
 *
 * Each stretch is readable and writable up to its `end` and PROT_NONE from there on.
 */
#ifndef KEN_HEAP_REGION_H
#define KEN_HEAP_REGION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum region_stretch {
    REGION_HEAPS,   /* struct heap: what each thread allocates from */
    REGION_MAP,     /* uint32_t for each page of the objects: the span that lies there */
    REGION_SPANS,   /* struct span: the hot line of each span */
    REGION_RESTS,   /* struct rest: its cold line */
    REGION_OBJECTS, /* the program's memory */
    REGION_STRETCHES
};

struct region_extent {
    uintptr_t start, end, limit; /* read-write: [start, end); reserved: [start, limit) */
};

struct region {
    uintptr_t objects;    /* what each free looks at, in one line */
    size_t objects_bytes; /* read-write */
    uint32_t *map;
    void *spans;
    uintptr_t base;
    size_t bytes;
    bool file_backed; /* see region_set_file_backed() */
    struct region_extent extent[REGION_STRETCHES];
};

/* Written under the allocator's lock. Reading `extent[].end` without it gives an older, lower
 * value. */
extern struct region region __attribute__((visibility("hidden")));

/* Without the lock: an older, lower value, but not than what the caller was given a block in. */
static inline size_t region_objects_bytes(void)
{
    return __atomic_load_n(&region.objects_bytes, __ATOMIC_RELAXED);
}

/* Reserves the region if there is none yet. Returns 0 or -errno. Allocator's lock held. */
int region_open(void);

/* Makes the first `bytes` of a stretch read-write (rounded up in steps that grow with it). New
 * pages read as zero. Returns 0 or -ENOMEM: nothing was changed. Allocator's lock held. */
int region_grow(enum region_stretch, size_t bytes);

/* Gives whole pages of the objects back to the kernel; calls region_dropped(). Returns true when
 * they read as zero from now on, false when they may hold what a restored image has there.
 * Allocator's lock held. */
bool region_drop(uintptr_t start, size_t bytes);

/* The end of the read-write part of the objects (the last stretch): tracking up to here is enough.
 * 0 before the first malloc. */
uintptr_t region_high_water(void);

/* Whether `address` lies in the region, metadata included. */
bool region_holds(uintptr_t address);

/* To be called by the restore: from now on pages of the region are private mappings of the image
 * file, so that MADV_DONTNEED brings back the file's page, not zeros. It stays so for ever. */
void region_set_file_backed(void);

/* Hooks, for the tracker. They run with the allocator's lock held and therefore must not allocate,
 * free, or wait for a thread that might; errno must be kept. NULL takes a hook away. on_drop: the
 * contents of these pages are gone (logged as a punch, not as data). on_grow: these pages have just
 * become read-write, and have no tracking yet. */
void region_on_drop(void (*hook)(uintptr_t start, size_t bytes));
void region_on_grow(void (*hook)(uintptr_t start, size_t bytes));

/* Tells the hook; region_drop() calls it. */
void region_dropped(uintptr_t start, size_t bytes);

#endif
