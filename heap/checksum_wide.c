/* The whole file is for processors with AVX2: nothing else may come in here. */
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

uint64_t checksum_wide(const void *data, size_t bytes)
{
    return XXH3_64bits(data, bytes);
}

#ifdef __clang__
#pragma clang attribute pop
#endif
