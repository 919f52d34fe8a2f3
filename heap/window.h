/* The window: the one stretch of address space that is *not* part of the image.
 *
 * Everything that only means something to this incarnation of the process lives here: handles to
 * the kernel, the log's buffers, the mapping of the committed image, the restorer. It is made anew
 * at each start, at the same address (recorded in the store), so that pointers into it that the
 * image holds stay good. Whatever lies outside of it belongs to the program and is rolled back.
 *
 *   base                                                     base + WINDOW_BYTES
 *   | bump pointer (one page) | bump allocations ...        | image twin mapping ... |
 */
#ifndef KEN_HEAP_WINDOW_H
#define KEN_HEAP_WINDOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WINDOW_BYTES (1UL << 40)       /* 1 TiB of addresses, PROT_NONE until allocated */
#define WINDOW_TWIN_OFFSET (1UL << 36) /* the image file is mapped from here to the end */

/* Reserves the window at `base`, or at a random free place when base is 0. Returns the base or -errno. */
long window_open(uintptr_t base);

/* The window's base; 0 before window_open(). */
uintptr_t window_base(void);
bool window_holds(uintptr_t address);

/* Allocates `bytes` (rounded up to pages) of zeroed read-write memory, page aligned; NULL when out of
 * memory. It is never given back, except by the end of the process. Not thread-safe. */
void *window_alloc(size_t bytes);

/* Where the image file is mapped, and how long that mapping may become. */
static inline void *window_twin(uintptr_t base)
{
    return (void *)(base + WINDOW_TWIN_OFFSET);
}
#define WINDOW_TWIN_BYTES (WINDOW_BYTES - WINDOW_TWIN_OFFSET)

#endif
