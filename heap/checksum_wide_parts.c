/* As checksum_wide.c, which the compiler makes slower when this is in it. */
#ifdef __clang__
#include <immintrin.h>
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC target("avx2")
#endif
#define XXH_INLINE_ALL
#define XXH_VECTOR XXH_AVX2
#include "heap/checksum.h"

#include <xxhash.h>

uint64_t checksum_wide_parts(const struct iovec *v, unsigned count, size_t skip)
{
    XXH3_state_t state;
    XXH3_64bits_reset(&state);
    for (unsigned i = 0; i < count; i++, skip = 0)
        XXH3_64bits_update(&state, (const char *)v[i].iov_base + skip, v[i].iov_len - skip);
    return XXH3_64bits_digest(&state);
}

#ifdef __clang__
#pragma clang attribute pop
#endif
