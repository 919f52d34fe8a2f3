/* Letting held outputs go, after the turn that produced them is durable.
 *
 * What must be followed here:
 * - Entries leave in the order of the program's calls, except that a descriptor whose kernel buffer is full
 *   (non-blocking) keeps its own entries back and the others pass.
 * - A process killed here is gone on from where the kernel stopped taking (progress.h).
 * - An error drops the rest for that descriptor and is told at the program's next write.
 */
#define _GNU_SOURCE
#include "net/outbox.h"
#include "net/inbox.h"
#include "net/progress.h"
#include "heap/sys.h"

#include <fcntl.h>
#include <poll.h>

void outbox_left(struct output *o, uint32_t bytes)
{
    struct description *d = fd_peek(o->fd);
    if (d)
        d->held -= bytes < d->held ? bytes : d->held;
    o->done += bytes;
}

void outbox_settle(struct output *o)
{
    struct description *d = fd_peek(o->fd);
    uint32_t rest = o->length - o->done;
    if (d && !o->finished)
        d->held -= rest < d->held ? rest : d->held;
    o->finished = 1;
}

/* An error that the kernel had kept for the socket (an ICMP answer to an earlier datagram) is told once and stops
 * only this call: the datagram itself may still go. */
static long emit(const struct output *o)
{
    long r = progress_emit(o);
    if (o->kind == OUTPUT_DATAGRAM && (r == -ECONNREFUSED || r == -EHOSTUNREACH))
        r = progress_emit(o);
    return r;
}

static bool waits(const struct output *o)
{
    struct description *d = fd_peek(o->fd);
    return o->kind == OUTPUT_DATAGRAM || !d || !(d->flags & O_NONBLOCK);
}

static void wait_writable(int fd)
{
    struct pollfd p = {fd, POLLOUT, 0};
    sys(SYS_poll, &p, 1, -1);
}

static void fail(struct output *o, long error)
{
    struct description *d = fd_peek(o->fd);
    if (d && !d->error)
        d->error = (uint8_t)-error;
    outbox_settle(o);
    progress_note(o, 0);
}

/* Returns false when the descriptor's buffer is full and it does not block. */
static bool release_one(struct output *o, bool may_wait)
{
    while (!o->finished) {
        long r = emit(o);
        if (r == -EINTR)
            continue;
        if (r == -EAGAIN || r == -ENOBUFS) {
            if (!may_wait || !waits(o))
                return false;
            wait_writable(o->fd);
            continue;
        }
        if (r < 0) {
            fail(o, r);
            return true;
        }
        outbox_left(o, (uint32_t)r);
        if (o->done >= o->length || o->kind == OUTPUT_DATAGRAM)
            outbox_settle(o);
        progress_note(o, r);
    }
    return true;
}

/* True when an earlier entry of the same descriptor has not left: order is kept for each. */
static bool behind_tail(uint32_t index)
{
    for (uint32_t i = 0; i < index; i++)
        if (!outbox.entries[i].finished && outbox.entries[i].fd == outbox.entries[index].fd)
            return true;
    return false;
}

static bool dead_stream(const struct output *o)
{
    struct description *d = fd_peek(o->fd);
    return !d || (d->error && o->kind != OUTPUT_DATAGRAM);
}

static bool pass(bool may_wait)
{
    bool moved = false;
    uint32_t tails = 0;
    for (uint32_t i = 0; i < outbox.committed; i++) {
        struct output *o = &outbox.entries[i];
        uint32_t before = o->done;
        if (o->finished)
            continue;
        if (tails && behind_tail(i)) {
            tails++;
            continue;
        }
        if (dead_stream(o)) {
            outbox_settle(o);
            progress_note(o, 0);
        } else if (!release_one(o, may_wait)) {
            tails++;
        }
        moved |= o->finished || o->done != before;
    }
    outbox.tails = tails;
    return moved;
}

/* The next turn's outputs begin at the front again: the same lines of memory, turn after turn. */
static void rewind_if_empty(void)
{
    if (outbox.tails || outbox_held())
        return;
    outbox.count = outbox.committed = 0;
    outbox.small_used = 0;
    outbox.large_used = 0;
}

void outbox_release(void)
{
    outbox.committed = outbox.count;
    outbox.fresh_bytes = 0;
    outbox.first_ns = 0;
    inbox_committed();
    if (!outbox.count)
        return;
    progress_begin();
    pass(true);
    rewind_if_empty();
}

void outbox_drain(void)
{
    for (int fds[16], n; outbox.tails && (n = outbox_tails(fds, 16)) > 0; outbox_retry())
        for (int i = 0; i < n; i++)
            wait_writable(fds[i]);
}

bool outbox_retry(void)
{
    if (!outbox.tails)
        return false;
    bool moved = pass(false);
    rewind_if_empty();
    return moved;
}

int outbox_tails(int *fds, int most)
{
    int n = 0;
    for (uint32_t i = 0; i < outbox.committed && n < most; i++) {
        const struct output *o = &outbox.entries[i];
        bool known = o->finished;
        for (int k = 0; k < n && !known; k++)
            known = fds[k] == o->fd;
        if (!known)
            fds[n++] = o->fd;
    }
    return n;
}
