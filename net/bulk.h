/* Blocks for frames that carry much: whole pages, which hold nothing else (heap/loose.h).
 *
 * What lies in them is written once, read until the peer has acknowledged it, and forgotten. So it goes into the log with the turn
 * that wrote it, and hardly ever into the image. Which block is whose is kept outside of them. A block that is given back is taken
 * again only when the turn that gave it back is durable: else a crash would bring back a frame without its bytes.
 * All of it lies in the image. Not thread-safe.
 */
#ifndef KEN_NET_BULK_H
#define KEN_NET_BULK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BULK_BLOCK 32768u

/* A block, not cleared, page aligned; NULL: there is none, a block of the pool has to do. */
void *bulk_take(void);

/* To be called before each write to [at, at + bytes) of a block. False: out of memory, nothing may be written. */
bool bulk_write(void *at, size_t bytes);

void bulk_give(void *block);
bool bulk_holds(const void *);

/* The pages at `at` are referred to by a socket until the peer reads them: they must not be written before that. It has, once the block
 * is given back because the peer acknowledged it; unless ... */
void bulk_lend(const void *at);

/* ... the acknowledgement came another way: what is lent now gets other pages when it is given back. */
void bulk_recall(void);

/* The turn is durable. */
void bulk_committed(void);

/* Where all blocks lie that were ever used; empty before the first. */
void bulk_span(uintptr_t *start, uintptr_t *end);

#endif
