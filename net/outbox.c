#include "net/outbox.h"
#include "net/gather.h"
#include "net/host.h"
#include "net/pool.h"
#include "heap/sys.h"

#include <fcntl.h>
#include <limits.h>
#include <string.h>

#define LARGE_BYTES (24UL << 20) /* tails of up to OUTBOX_BYTES, the turn's own, room to spare */
#define LARGE_STEP (1UL << 20)

struct outbox outbox __attribute__((aligned(4096)));

size_t outbox_bytes(void)
{
    return outbox.fresh_bytes + (outbox.count - outbox.committed);
}

size_t outbox_room(void)
{
    if (outbox.count == OUTBOX_ENTRIES || outbox.fresh_bytes >= OUTBOX_BYTES)
        return 0;
    return OUTBOX_BYTES - outbox.fresh_bytes;
}

bool outbox_holds(int fd)
{
    for (uint32_t i = 0; i < outbox.count; i++)
        if (outbox.entries[i].fd == fd && !outbox.entries[i].finished)
            return true;
    return false;
}

static bool large_fits(size_t bytes)
{
    if (!outbox.large && !(outbox.large = pool_reserve(LARGE_BYTES)))
        return false;
    while (outbox.large_used + bytes > outbox.large_ready) {
        if (outbox.large_ready + LARGE_STEP > LARGE_BYTES ||
            pool_open(outbox.large + outbox.large_ready, LARGE_STEP) < 0)
            return false;
        outbox.large_ready += LARGE_STEP;
    }
    return true;
}

static char *take_data(size_t bytes)
{
    if (outbox.small_used + bytes <= OUTBOX_SMALL) {
        char *at = outbox.small + outbox.small_used;
        outbox.small_used += (uint32_t)bytes;
        return at;
    }
    if (!large_fits(bytes))
        return NULL;
    outbox.large_used += bytes;
    return outbox.large + outbox.large_used - bytes;
}

/* The last entry takes the bytes as well if it is of the same stream and its data end where free data begin. A pipe
 * keeps writes of up to PIPE_BUF bytes in one piece; joined ones stay below that. */
static char *join(int fd, const struct description *d, enum output_kind kind, size_t length)
{
    struct output *last = &outbox.entries[outbox.count - 1];
    if (outbox.count == outbox.committed || last->fd != fd || last->kind != kind || kind == OUTPUT_DATAGRAM)
        return NULL;
    if (d->flags & O_DIRECT) /* a pipe of packets */
        return NULL;
    if (last->length + length > (kind == OUTPUT_WRITE ? PIPE_BUF : 1UL << 16))
        return NULL;
    char *end = last->data + last->length;
    if (end == outbox.small + outbox.small_used && outbox.small_used + length <= OUTBOX_SMALL)
        outbox.small_used += (uint32_t)length;
    else if (outbox.large && end == outbox.large + outbox.large_used && large_fits(length))
        outbox.large_used += length;
    else
        return NULL;
    last->length += (uint32_t)length;
    return end;
}

int outbox_hold(int fd, struct description *d, enum output_kind kind, int flags,
                const void *address, size_t address_length, const struct iovec *v, int count,
                size_t skip, size_t length)
{
    char *at = outbox.count ? join(fd, d, kind, length) : NULL;
    if (!at) {
        if (outbox.count == OUTBOX_ENTRIES || !(at = take_data(address_length + length)))
            return -ENOBUFS;
        outbox.entries[outbox.count++] = (struct output){
            .data = at,
            .fd = fd,
            .length = (uint32_t)length,
            .flags = flags,
            .kind = (uint8_t)kind,
            .address_length = (uint16_t)address_length,
        };
        if (address_length)
            memcpy(at, address, address_length);
        at += address_length;
    }
    gather(at, v, count, skip, length);
    outbox.fresh_bytes += length;
    d->held += (uint32_t)length;
    return 0;
}

static char *move_down(char *base, size_t *used, const struct output *o, size_t bytes)
{
    char *to = base + *used;
    memmove(to, o->data, bytes);
    *used += bytes;
    return to;
}

/* Data lie in the order of the entries in both stretches, so that moving down never overwrites. */
void outbox_compact(void)
{
    uint32_t kept = 0;
    size_t small_used = 0, large_used = 0;
    if (!outbox.committed)
        return;
    for (uint32_t i = 0; i < outbox.count; i++) {
        struct output o = outbox.entries[i];
        if (o.finished)
            continue;
        if (o.kind != OUTPUT_DATAGRAM) {
            o.data += o.done;
            o.length -= o.done;
            o.done = 0;
        }
        size_t bytes = o.address_length + o.length;
        bool in_small = o.data >= outbox.small && o.data <= outbox.small + OUTBOX_SMALL &&
                        !(outbox.large && o.data >= outbox.large && o.data < outbox.large + LARGE_BYTES);
        o.data = in_small ? move_down(outbox.small, &small_used, &o, bytes)
                          : move_down(outbox.large, &large_used, &o, bytes);
        outbox.entries[kept++] = o;
    }
    outbox.count = kept;
    outbox.committed = 0;
    outbox.tails = 0;
    outbox.small_used = (uint32_t)small_used;
    outbox.large_used = large_used;
}
