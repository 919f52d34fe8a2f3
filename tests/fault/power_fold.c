#include "tests/fault/power_fold.h"
#include "heap/layout.h"
#include "heap/layout_meta.h"

#include <unistd.h>

#define SLOTS_KEPT_AT (LOW_BYTES + BLOCK_BYTES)

uint64_t fold(uint64_t offset)
{
    if (offset < META_BYTES)
        return offset;
    return offset < layout_slot(0) ? LOW_BYTES + (offset - META_BYTES) : SLOTS_KEPT_AT + (offset - layout_slot(0));
}

static uint64_t unfold(uint64_t kept)
{
    if (kept < LOW_BYTES)
        return kept;
    return kept < SLOTS_KEPT_AT ? META_BYTES + (kept - LOW_BYTES) : layout_slot(0) + (kept - SLOTS_KEPT_AT);
}

uint64_t fold_size(uint64_t bytes)
{
    return bytes ? fold(bytes - 1) + 1 : 0;
}

uint64_t unfold_size(uint64_t kept)
{
    return kept ? unfold(kept - 1) + 1 : 0;
}

/* The end of the part that this lies in. */
static uint64_t border(uint64_t kept)
{
    return kept < LOW_BYTES ? LOW_BYTES : kept < SLOTS_KEPT_AT ? SLOTS_KEPT_AT : UINT64_MAX;
}

bool fold_holds(uint64_t offset, uint64_t bytes)
{
    uint64_t kept = fold(offset);
    return unfold(kept) == offset && kept + bytes <= border(kept);
}

bool fold_read(int fd, uint8_t *kept, uint64_t bytes)
{
    for (uint64_t at = 0, stop; at < bytes; at = stop) {
        stop = border(at) < bytes ? border(at) : bytes;
        if (pread(fd, kept + at, stop - at, (off_t)unfold(at)) != (ssize_t)(stop - at))
            return false;
    }
    return true;
}

bool fold_write(int fd, const uint8_t *kept, uint64_t bytes)
{
    for (uint64_t at = 0, stop; at < bytes; at = stop) {
        stop = border(at) < bytes ? border(at) : bytes;
        if (pwrite(fd, kept + at, stop - at, (off_t)unfold(at)) != (ssize_t)(stop - at))
            return false;
    }
    return true;
}
