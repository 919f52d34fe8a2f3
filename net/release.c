/* Letting held outputs go, after the turn that produced them is durable.
 *
 * What must be followed here:
 * - Entries leave in the order of the program's calls, except that a descriptor whose kernel buffer is full
 *   (non-blocking) keeps its own entries back and the others pass.
 * - After each system call that moved bytes the page of progress is updated: a process killed here goes on behind
 *   that. A kill between the system call and the store repeats that one piece, with the same content.
 * - An error drops the rest for that descriptor and is told at the program's next write.
 * - The page says something about the entries of one commit only; its `turn` is written last.
 */
#define _GNU_SOURCE
#include "net/outbox.h"
#include "net/host.h"
#include "net/inbox.h"
#include "heap/sys.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <string.h>

#define FINISHED 0x80000000u

/* Laid over the store's page of progress. done[i]: bytes of entry i that left, with FINISHED when it is settled. */
struct release_progress {
    uint64_t turn;
    uint64_t entries; /* done[0, entries) mean something */
    uint64_t bytes;   /* all together, for whoever looks from outside */
    uint32_t done[OUTBOX_ENTRIES];
};
_Static_assert(sizeof(struct release_progress) <= PAGE_BYTES, "one page");

#define ORDER() __atomic_signal_fence(__ATOMIC_SEQ_CST)

static void settle(struct output *o)
{
    struct description *d = fd_peek(o->fd);
    if (d && d->held >= o->length - o->done)
        d->held -= o->length - o->done;
    o->finished = 1;
}

/* Begins the commit's progress, or takes over what the last incarnation achieved of it. */
static void begin(void)
{
    struct release_progress *p = (struct release_progress *)session_progress();
    if (!p)
        return;
    uint64_t turn = turn_number();
    if (p->turn == turn && p->entries == outbox.committed) {
        for (uint32_t i = 0; i < outbox.committed; i++) {
            struct output *o = &outbox.entries[i];
            uint32_t done = p->done[i] & ~FINISHED;
            struct description *d = fd_peek(o->fd);
            if (d && done > o->done)
                d->held -= done - o->done < d->held ? done - o->done : d->held;
            o->done = done <= o->length ? done : o->length;
            if (p->done[i] & FINISHED)
                settle(o);
        }
        return;
    }
    p->turn = 0;
    ORDER();
    for (uint32_t i = 0; i < outbox.committed; i++)
        p->done[i] = 0;
    p->entries = outbox.committed;
    p->bytes = 0;
    ORDER();
    p->turn = turn;
}

static void note(const struct output *o, long bytes)
{
    struct release_progress *p = (struct release_progress *)session_progress();
    if (!p)
        return;
    p->done[o - outbox.entries] = o->done | (o->finished ? FINISHED : 0);
    p->bytes += (uint64_t)bytes;
}

/* Pipes take up to PIPE_BUF bytes wholly or not at all: a kill never leaves a piece half counted. */
static long emit(const struct output *o)
{
    const char *data = o->data + o->address_length + o->done;
    size_t bytes = o->length - o->done;
    switch (o->kind) {
    case OUTPUT_WRITE:
        return sys(SYS_write, o->fd, data, bytes < PIPE_BUF ? bytes : PIPE_BUF);
    case OUTPUT_STREAM:
        return sys(SYS_sendto, o->fd, data, bytes, o->flags | MSG_NOSIGNAL | MSG_DONTWAIT, NULL, 0);
    default:
        return sys(SYS_sendto, o->fd, data, bytes, o->flags | MSG_NOSIGNAL | MSG_DONTWAIT,
                   o->address_length ? o->data : NULL, o->address_length);
    }
}

/* An error that the kernel had kept for the socket (an ICMP answer to an earlier datagram) is told once and stops
 * only this call: the datagram itself may still go. */
static long emit_again(const struct output *o)
{
    long r = emit(o);
    if (o->kind == OUTPUT_DATAGRAM && (r == -ECONNREFUSED || r == -EHOSTUNREACH))
        r = emit(o);
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
    if (d && !(d->error))
        d->error = (uint8_t)-error;
    settle(o);
    note(o, 0);
}

/* Returns false when the descriptor's buffer is full and it does not block. */
static bool release_one(struct output *o, bool may_wait)
{
    while (!o->finished) {
        long r = emit_again(o);
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
        struct description *d = fd_peek(o->fd);
        if (d)
            d->held -= (uint32_t)r < d->held ? (uint32_t)r : d->held;
        o->done += (uint32_t)r;
        if (o->done >= o->length || o->kind == OUTPUT_DATAGRAM) {
            o->done = o->length;
            o->finished = 1;
        }
        note(o, r);
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
            settle(o);
            note(o, 0);
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
    begin();
    pass(true);
    rewind_if_empty();
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
