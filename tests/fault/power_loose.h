/* A program's loose pages (heap/loose.h) in a history of losses of power: it fills blocks, holds them for some turns, and gives
 * them up by the rule. */
#ifndef KEN_TESTS_POWER_LOOSE_H
#define KEN_TESTS_POWER_LOOSE_H

#include "heap/layout_meta.h"
#include "heap/log.h"

#define HELD_BLOCKS 5u
#define HELD_BLOCK_BYTES (2u * BLOCK_BYTES)
#define HELD_BYTES (HELD_BLOCKS * HELD_BLOCK_BYTES)
#define HELD_AT layout_slot(0) /* in the image */

/* All that a record says of them. */
struct held {
    enum { HELD_FREE, HELD_LEAVING, HELD_NEEDED } is[HELD_BLOCKS];
    struct chunk chunk; /* which pages the image has */
    uint8_t bytes[HELD_BYTES];
};

/* Goes on where a record left it; NULL: a fresh run. The log has been recovered. */
void held_resume(const struct held *, struct log *);

/* Gives up some blocks, and fills some that are free. */
void held_write(uint64_t *random);

/* Adds to the record what it says of them; the same for the model. */
int held_take(struct log *);
void held_save(struct held *);

/* The record is durable. */
void held_committed(void);

/* Whether the image has what is still needed, and whether each page agrees with its sum. */
bool held_is_there(int image_fd, const struct held *);
bool held_sums_agree(int image_fd);

#endif
