/* One body for each way to compute sums: included behind <xxhash.h>, whose functions are inline there. */
#ifndef KEN_HEAP_CHECKSUM_PARTS_H
#define KEN_HEAP_CHECKSUM_PARTS_H

#include "heap/checksum.h"

static inline uint64_t checksum_parts(const struct iovec *v, unsigned count, size_t skip)
{
    XXH3_state_t state;
    XXH3_64bits_reset(&state);
    for (unsigned i = 0; i < count; i++, skip = 0)
        XXH3_64bits_update(&state, (const char *)v[i].iov_base + skip, v[i].iov_len - skip);
    return XXH3_64bits_digest(&state);
}

#endif
