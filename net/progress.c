#define _GNU_SOURCE
#include "net/progress.h"
#include "heap/fault.h"
#include "net/host.h"
#include "heap/room.h"
#include "heap/sys.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <linux/falloc.h>
#include <string.h>
#include <sys/mman.h>

#define NOT_SENT 0xffffffffu
#define GIVE_BACK (1L << 20)        /* the source's pages are given back in strides of this many bytes */
#define PIPE_ROOM (1 << 20)         /* bytes; sendfile takes a page of a pipe for each piece */

/* Stores to the shared page must not be moved or left out; the processor keeps their order. */
#define ORDER() __atomic_signal_fence(__ATOMIC_SEQ_CST)

/* The memory file that sendfile takes pieces from. A pipe holds its pages, not copies: no offset is ever used again. */
static int source = -1;
static int64_t source_end, source_given;

static struct release_progress *page(void)
{
    return (struct release_progress *)session_progress();
}

bool progress_owns(int fd)
{
    return source >= 0 && fd == source;
}

void progress_reopen(void)
{
    source = -1;
    source_end = source_given = 0;
}

/* What the kernel had taken of the piece that was with it when the process died. */
static void settle_current(struct release_progress *p)
{
    if (!p->current || p->current > p->entries)
        return;
    const struct output *o = &outbox.entries[p->current - 1];
    uint32_t done = p->before;
    if (o->kind == OUTPUT_WRITE)
        done += (uint32_t)(p->offset - p->base);
    else if (p->message.msg_len != NOT_SENT)
        done = o->kind == OUTPUT_DATAGRAM ? o->length : done + p->message.msg_len;
    bool sent = o->kind == OUTPUT_DATAGRAM ? p->message.msg_len != NOT_SENT : done >= o->length;
    p->done[p->current - 1] = done | (sent ? PROGRESS_FINISHED : 0);
    ORDER();
    p->current = 0;
}

/* A pipe of the program's own was made again as it was at the commit: all that was held for it is still to be put in. */
static bool was_remade(const struct output *o)
{
    struct description *d = fd_peek(o->fd);
    return d && (d->bits & FD_INTERNAL) && d->pair >= 0;
}

static void take_over(struct release_progress *p)
{
    FAULT("progress.take_over");
    settle_current(p);
    for (uint32_t i = 0; i < outbox.committed; i++) {
        struct output *o = &outbox.entries[i];
        uint32_t done = p->done[i] & ~PROGRESS_FINISHED;
        if (was_remade(o))
            continue;
        if (done > o->length)
            done = o->length;
        if (done > o->done)
            outbox_left(o, done - o->done);
        if (p->done[i] & PROGRESS_FINISHED)
            outbox_settle(o);
    }
}

void progress_begin(void)
{
    struct release_progress *p = page();
    if (!p)
        return;
    uint64_t turn = turn_number();
    if (MUTANT("release.progress_ignored", false, p->turn == turn && p->entries == outbox.committed)) {
        take_over(p);
        return;
    }
    p->turn = 0;
    ORDER();
    FAULT("progress.begin");
    p->current = 0;
    for (uint32_t i = 0; i < outbox.committed; i++)
        p->done[i] = outbox.entries[i].done;
    p->entries = outbox.committed;
    p->bytes = 0;
    ORDER();
    p->turn = turn;
}

void progress_note(const struct output *o, long bytes)
{
    struct release_progress *p = page();
    if (!p)
        return;
    p->done[o - outbox.entries] = o->done | (o->finished ? PROGRESS_FINISHED : 0);
    p->bytes += (uint64_t)bytes;
    ORDER();
    p->current = 0;
}

static void announce(struct release_progress *p, const struct output *o)
{
    p->before = o->done;
    ORDER();
    p->current = (uint32_t)(o - outbox.entries) + 1;
    ORDER();
    FAULT("progress.announced");
}

static long emit_message(struct release_progress *p, const struct output *o, struct iovec *v, int flags)
{
    p->message = (struct mmsghdr){.msg_hdr = {.msg_iov = v, .msg_iovlen = 1}, .msg_len = NOT_SENT};
    if (o->address_length) {
        p->message.msg_hdr.msg_name = o->data;
        p->message.msg_hdr.msg_namelen = o->address_length;
    }
    announce(p, o);
    long r = sys(SYS_sendmmsg, o->fd, &p->message, 1, flags);
    return r == 1 ? (long)p->message.msg_len : r;
}

static bool open_source(void)
{
    if (source >= 0)
        return true;
    long fd = sys_fd(SYS_memfd_create, "ken-outbox", MFD_CLOEXEC);
    if (fd < 0)
        return false;
    source = (int)fd_move_high((int)fd);
    return true;
}

/* Each piece lies within one page: a pipe takes it wholly or not at all. */
static long put_in_source(const char *data, size_t bytes)
{
    if ((source_end & (PIPE_BUF - 1)) + (int64_t)bytes > PIPE_BUF)
        source_end = (source_end + PIPE_BUF - 1) & -(int64_t)PIPE_BUF;
    long r = sys(SYS_pwrite64, source, data, bytes, source_end);
    if (r != (long)bytes)
        return -EIO;
    if (source_end - source_given > GIVE_BACK) {
        int64_t to = source_end & -(int64_t)PIPE_BUF;
        sys(SYS_fallocate, source, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, source_given, to - source_given);
        source_given = to;
    }
    return 0;
}

static void widen_pipe(const struct output *o)
{
    struct description *d = fd_peek(o->fd);
    if (!d || d->kind != FD_FIFO || (d->bits & FD_WIDENED))
        return;
    d->bits |= FD_WIDENED;
    if (sys(SYS_fcntl, o->fd, F_GETPIPE_SZ, 0) < PIPE_ROOM)
        sys(SYS_fcntl, o->fd, F_SETPIPE_SZ, PIPE_ROOM);
}

static long emit_piece(struct release_progress *p, const struct output *o, const char *data, size_t bytes)
{
    if (!open_source() || put_in_source(data, bytes) < 0)
        return -EINVAL;
    widen_pipe(o);
    p->base = p->offset = source_end;
    announce(p, o);
    long r = sys(SYS_sendfile, o->fd, source, &p->offset, bytes);
    source_end += (int64_t)bytes;
    return r;
}

/* What survives the process on the other side of the descriptor needs exactness. */
static bool outlives(const struct output *o)
{
    struct description *d = fd_peek(o->fd);
    return d && (d->kind == FD_FIFO || d->kind == FD_TTY || (d->bits & FD_INHERITED));
}

/* A write(2) to a descriptor that blocks is made only when there is room for a piece. */
static bool would_block(const struct output *o)
{
    struct description *d = fd_peek(o->fd);
    struct pollfd p = {o->fd, POLLOUT, 0};
    return d && !(d->flags & O_NONBLOCK) && sys(SYS_poll, &p, 1, 0) <= 0;
}

/* Whether a local receiver's queue has room cannot be polled for: these wait. */
static bool is_local_datagram(const struct output *o)
{
    struct description *d = fd_peek(o->fd);
    return o->kind == OUTPUT_DATAGRAM && d && d->kind == FD_SOCKET && d->socket && d->socket->domain == AF_UNIX &&
           !(d->flags & O_NONBLOCK);
}

long progress_emit(const struct output *o)
{
    struct release_progress *p = page();
    char *data = o->data + o->address_length + o->done;
    size_t bytes = o->length - o->done;
    struct iovec v = {data, bytes};
    int flags = o->flags | MSG_NOSIGNAL | (is_local_datagram(o) ? 0 : MSG_DONTWAIT);
    if (o->kind == OUTPUT_WRITE) {
        if (bytes > PIPE_BUF)
            bytes = PIPE_BUF;
        if (would_block(o))
            return -EAGAIN;
        long r = p && outlives(o) ? emit_piece(p, o, data, bytes) : -EINVAL;
        if (r != -EINVAL && r != -ENOSYS)
            return r;
        if (p)
            p->current = 0;
        return sys(SYS_write, o->fd, data, bytes);
    }
    if (p && (o->kind == OUTPUT_DATAGRAM || outlives(o)))
        return emit_message(p, o, &v, flags);
    return sys(SYS_sendto, o->fd, data, bytes, flags, o->address_length ? o->data : NULL, o->address_length);
}
