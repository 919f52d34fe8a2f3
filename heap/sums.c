#include "heap/sums.h"
#include "heap/checksum.h"
#include "heap/diff.h"
#include "heap/sys.h"

uint32_t sums_page(const void *page)
{
    uint32_t sum = (uint32_t)checksum_of(page, PAGE_BYTES);
    return sum ? sum : 1;
}

bool sums_hold(const void *page, uint32_t sum)
{
    return sum ? sum == sums_page(page) : !diff_page(page, NULL);
}

bool sums_cover(uint64_t offset, uint64_t bytes)
{
    uint64_t end = offset + bytes;
    if (end < offset)
        return false;
    if (offset < META_BYTES)
        return end <= META_BYTES && (end <= SUMS_AT || offset >= SUMS_AT + SUMS_BYTES);
    uint64_t within = (offset - META_BYTES) % GROUP_BYTES;
    return within >= GROUP_SUM_BYTES && bytes <= GROUP_BYTES - within;
}
