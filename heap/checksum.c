#define XXH_INLINE_ALL
#include "heap/checksum.h"

#include <cpuid.h>
#include <xxhash.h>

#include "heap/checksum_parts.h"

enum { NOT_ASKED, PLAIN, WIDE };

uint64_t checksum_plain(const void *data, size_t bytes)
{
    return XXH3_64bits(data, bytes);
}

uint64_t checksum_plain_parts(const struct iovec *v, unsigned count, size_t skip)
{
    return checksum_parts(v, count, skip);
}

int checksum_wide_runs(void)
{
    const uint32_t saves = bit_OSXSAVE | bit_AVX, registers = 6; /* the kernel keeps xmm and ymm */
    uint32_t a, b, c, d, kept, high;
    if (!__get_cpuid(1, &a, &b, &c, &d) || (c & saves) != saves)
        return 0;
    __asm__ volatile("xgetbv" : "=a"(kept), "=d"(high) : "c"(0));
    return (kept & registers) == registers && __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b & bit_AVX2);
}

static int way_here(void)
{
    static int way; /* asking costs microseconds in a virtual machine */
    if (way == NOT_ASKED)
        way = checksum_wide_runs() ? WIDE : PLAIN;
    return way;
}

uint64_t checksum_of(const void *data, size_t bytes)
{
    return way_here() == WIDE ? checksum_wide(data, bytes) : checksum_plain(data, bytes);
}

uint64_t checksum_of_parts(const struct iovec *v, unsigned count, size_t skip)
{
    if (count == 1) /* in half the time, where it is short */
        return checksum_of((const char *)v->iov_base + skip, v->iov_len - skip);
    return way_here() == WIDE ? checksum_wide_parts(v, count, skip) : checksum_plain_parts(v, count, skip);
}
