/* Blocks of memory for net/'s own state, in the image.
 *
 * Not the program's malloc: a handler may interrupt it. Classes up to 1 MiB, four to each doubling, in one
 * reserved stretch of addresses that is made usable up to a high-water mark; a freed block is kept for the
 * next of its class. Not thread-safe.
 */
#ifndef KEN_NET_POOL_H
#define KEN_NET_POOL_H

#include <stddef.h>
#include <stdint.h>

#define POOL_COST 16UL /* bytes of each block that are the pool's */
#define POOL_BLOCK_MAX ((1UL << 20) - POOL_COST) /* the longest block */

/* Returns `bytes` of memory, not cleared, 16-byte aligned; NULL when too long or out of memory. */
void *pool_take(size_t bytes);

/* The same with a copy of `from` in it. */
void *pool_copy(const void *from, size_t bytes);

/* Gives a block back; NULL is nothing. */
void pool_give(void *block);

/* How many bytes may be carved at least, as far as addresses go: freed blocks are not counted. */
size_t pool_room(void);

/* Where all blocks lie; empty before the first. */
void pool_span(uintptr_t *start, uintptr_t *end);

/* Reserves `bytes` of addresses, PROT_NONE; NULL when the kernel refuses. */
void *pool_reserve(size_t bytes);

/* Makes the reserved range [at, at + bytes) readable and writable. Returns 0 or -errno. */
int pool_open(void *at, size_t bytes);

#endif
