/* Letting held outputs go, after the turn that produced them is durable.
 *
 * What must be followed here:
 * - Entries leave in the order of the program's calls, except that those of others pass a non-blocking descriptor
 *   whose kernel buffer is full.
 * - Nothing here waits: with libken's lock held and signals off, what would free the buffer could not happen.
 * - A process killed here is gone on from where the kernel stopped taking (progress.h).
 * - An error drops the rest for that descriptor and is told at the program's next write.
 */
#define _GNU_SOURCE
#include "net/outbox.h"
#include "heap/fault.h"
#include "net/host.h"
#include "net/inbox.h"
#include "net/nameless.h"
#include "net/progress.h"
#include "heap/room.h"
#include "heap/sys.h"

#include <fcntl.h>
#include <poll.h>

#define DRAIN_MS 5000

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

static bool blocks(const struct output *o)
{
    struct description *d = fd_peek(o->fd);
    return !o->orphan && d && !(d->flags & O_NONBLOCK);
}

static void fail(struct output *o, long error)
{
    struct description *d = fd_peek(o->fd);
    if (d && !d->error)
        d->error = (uint8_t)-error;
    outbox_settle(o);
    progress_note(o, 0);
}

/* Returns false when the kernel's buffer is full. */
static bool release_one(struct output *o)
{
    while (!o->finished) {
        FAULT("release.output");
        long r = emit(o);
        if (r == -EINTR)
            continue;
        if (r == -EAGAIN || r == -ENOMEM || r == -ENOBUFS) /* the kernel took nothing: later again */
            return false;
        if (r < 0) {
            fail(o, r);
            return true;
        }
        FAULT("release.emitted");
        session_output_left();
        outbox_left(o, (uint32_t)r);
        if (o->done >= o->length || o->kind == OUTPUT_DATAGRAM)
            outbox_settle(o);
        progress_note(o, r);
        FAULT("release.noted");
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
    return o->orphan ? false : !d || (d->error && o->kind != OUTPUT_DATAGRAM);
}

static void close_orphan(struct output *o)
{
    if (!o->orphan || !o->finished)
        return;
    o->orphan = 0;
    for (uint32_t i = 0; i < outbox.count; i++)
        if (outbox.entries[i].orphan && outbox.entries[i].fd == o->fd)
            return;
    sys(SYS_close, o->fd);
}

static bool pass(void)
{
    bool moved = false, stop = false;
    uint32_t tails = 0;
    for (uint32_t i = 0; i < outbox.committed; i++) {
        struct output *o = &outbox.entries[i];
        uint32_t before = o->done;
        o->stuck = 0;
        if (o->finished)
            continue;
        if (stop || (tails && behind_tail(i))) {
            tails++;
            continue;
        }
        if (dead_stream(o)) {
            outbox_settle(o);
            progress_note(o, 0);
        } else if (!release_one(o)) {
            tails++;
            o->stuck = 1;
            stop = blocks(o);
        }
        close_orphan(o);
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
    FAULT("release.begin");
    outbox.committed = outbox.count;
    outbox.fresh_bytes = 0;
    outbox.first_ns = 0;
    inbox_committed();
    nameless_committed();
    FAULT("release.inboxes");
    if (!outbox.count)
        return;
    progress_begin();
    FAULT("release.progress");
    pass();
    rewind_if_empty();
}

void outbox_drain(void)
{
    struct pollfd p[16];
    int fds[16], n;
    for (int waited = 0; outbox.tails && (n = outbox_tails(fds, 16)) > 0;) {
        bool patient = false;
        for (int i = 0; i < n; i++) {
            struct description *d = fd_peek(fds[i]);
            p[i] = (struct pollfd){fds[i], POLLOUT, 0};
            patient |= d && !(d->flags & O_NONBLOCK);
        }
        sys(SYS_poll, p, n, 100);
        waited = outbox_retry() ? 0 : waited + 100;
        if (waited >= DRAIN_MS && !patient)
            return;
    }
}

void outbox_orphan(int fd)
{
    long duplicate = sys_fd(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 512);
    if (duplicate < 0)
        return;
    for (uint32_t i = 0; i < outbox.count; i++) {
        struct output *o = &outbox.entries[i];
        if (o->fd == fd && !o->finished && !o->orphan) {
            o->fd = (int32_t)duplicate;
            o->orphan = 1;
        }
    }
}

void outbox_forked(void)
{
    for (uint32_t i = 0; i < outbox.count; i++) {
        outbox_settle(&outbox.entries[i]);
        close_orphan(&outbox.entries[i]);
    }
    outbox.count = outbox.committed = outbox.tails = outbox.small_used = 0;
    outbox.large_used = outbox.fresh_bytes = 0;
    outbox.first_ns = 0;
}

void outbox_reopen(void)
{
    for (uint32_t i = 0; i < outbox.count; i++)
        if (outbox.entries[i].orphan) {
            outbox.entries[i].finished = 1;
            outbox.entries[i].orphan = 0;
        }
}

bool outbox_owns(int fd)
{
    for (uint32_t i = 0; outbox.tails && i < outbox.count; i++)
        if (outbox.entries[i].orphan && outbox.entries[i].fd == fd)
            return true;
    return false;
}

bool outbox_retry(void)
{
    if (!outbox.tails)
        return false;
    bool moved = pass();
    rewind_if_empty();
    return moved;
}

int outbox_tails(int *fds, int most)
{
    int n = 0;
    for (uint32_t i = 0; i < outbox.committed && n < most; i++) {
        const struct output *o = &outbox.entries[i];
        bool known = !o->stuck || o->finished;
        for (int k = 0; k < n && !known; k++)
            known = fds[k] == o->fd;
        if (!known)
            fds[n++] = o->fd;
    }
    return n;
}
