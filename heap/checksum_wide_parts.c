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

#include "heap/checksum_parts.h"

uint64_t checksum_wide_parts(const struct iovec *v, unsigned count, size_t skip)
{
    return checksum_parts(v, count, skip);
}

#ifdef __clang__
#pragma clang attribute pop
#endif
