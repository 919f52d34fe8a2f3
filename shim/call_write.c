/* Writes: to the outside they are held (call_send.c), to the program's own objects and to files they pass. */
#define _GNU_SOURCE
#include "heap/fault.h"
#include "net/inbox.h"
#include "shim/call_net.h"
#include "shim/call_stream.h"
#include "shim/call_wait.h"
#include "shim/threads.h"
#include "shim/turn.h"

#include <fcntl.h>
#include <limits.h>

/* What follows the first `done` bytes, at most PIPE_BUF of it: that much never blocks where there is room. */
static int next_piece(const struct iovec *v, int count, size_t done, struct iovec *piece, int most)
{
    size_t room = PIPE_BUF;
    int n = 0;
    for (int i = 0; i < count && n < most && room; i++) {
        if (done >= v[i].iov_len) {
            done -= v[i].iov_len;
            continue;
        }
        size_t bytes = v[i].iov_len - done < room ? v[i].iov_len - done : room;
        piece[n++] = (struct iovec){(char *)v[i].iov_base + done, bytes};
        room -= bytes;
        done = 0;
    }
    return n;
}

/* With several threads: whoever reads the other end needs libken's lock, so nothing may block that holds it; and a write
 * without the lock would change the pipe behind a commit's back. So the room is waited for, and filled with the lock. */
static long write_pieces(int fd, const struct iovec *v, int count, long nr)
{
    struct deadline never = wait_until(-1);
    struct iovec piece[64];
    size_t done = 0;
    for (int n; (n = next_piece(v, count, done, piece, 64)) > 0;) {
        bool room = wait_peek(fd, POLLOUT) > 0;
        long r = room ? sys(SYS_writev, fd, piece, n) : wait_ready(fd, POLLOUT, &never, nr);
        if (room && r == -EINTR)
            continue; /* it did not wait: that is no answer for the program */
        if (r < 0 && r != WAIT_AGAIN)
            return done ? (long)done : r;
        done += room ? (size_t)wait_accounted(fd, r) : 0;
    }
    return (long)done;
}

/* There is never room at a pipe's other end; the kernel says so. */
static bool never_takes(const struct description *d)
{
    return (d->flags & O_ACCMODE) == O_RDONLY;
}

/* An object of the program's own: a full pipe or counter blocks until another descriptor of the same program is read, or
 * a signal comes. */
static long write_inside(struct call *c, struct description *d, const struct iovec *v, int count)
{
    if (!(d->bits & FD_TOUCHED))
        fd_touch(d);
    if (d->kind != FD_PIPE && d->kind != FD_SOCKET && d->kind != FD_EVENT)
        return call_raw(c);
    if ((d->flags & O_NONBLOCK) || never_takes(d))
        return call_raw(c);
    bool room = wait_peek((int)c->arg[0], POLLOUT) > 0;
    if (room && count == 1 && v->iov_len <= PIPE_BUF)
        return call_raw(c);
    if (outbox_held())
        turn_end(TURN_WAIT);
    if (threads_many && fd_is_stream(d) && count > 0)
        return write_pieces((int)c->arg[0], v, count, c->nr);
    return wait_accounted((int)c->arg[0], wait_kernel(c));
}

/* A file that was handed down may be written by others, so a restart leaves its offset alone until the program has written to it
 * itself. That it did is durable before the first byte: else a turn that is done again, or the very first one, would write behind
 * what it wrote. A new incarnation may have been given something else than a file. */
static void claim(struct description *d)
{
    uint32_t handed = d->bits & (FD_INHERITED | FD_USED | FD_EXEMPT);
    if (d->kind != FD_FILE || handed != FD_INHERITED || (d->flags & O_APPEND))
        return;
    d->bits |= FD_USED;
    fd_touch(d);
    MUTANT("write.unclaimed", (void)0, turn_end(TURN_FLUSH));
}

long call_write(struct call *c)
{
    int fd = (int)c->arg[0];
    struct description *d = fd_find(fd);
    if (!d)
        return call_raw(c);
    claim(d);
    struct iovec v = {(void *)c->arg[1], (size_t)c->arg[2]};
    if (!fd_is_external(d))
        return write_inside(c, d, &v, 1);
    return send_held(c, fd, d, &v, 1, 0, NULL, 0);
}

long call_writev(struct call *c)
{
    int fd = (int)c->arg[0];
    struct description *d = fd_find(fd);
    if (!d)
        return call_raw(c);
    if ((unsigned long)c->arg[1] < PAGE_BYTES)
        return call_raw(c);
    claim(d);
    if (!fd_is_external(d))
        return write_inside(c, d, (const struct iovec *)c->arg[1], (int)c->arg[2]);
    return send_held(c, fd, d, (const struct iovec *)c->arg[1], (int)c->arg[2], 0, NULL, 0);
}

/* At offset -1 it is writev. */
long call_pwritev2(struct call *c)
{
    if (c->arg[3] != -1)
        return call_write_at(c);
    struct call plain = {.nr = SYS_writev, .arg = {c->arg[0], c->arg[1], c->arg[2]}, .frame = c->frame};
    return call_writev(&plain);
}

/* A memfd's content is kept, wherever it is changed. */
long call_write_at(struct call *c)
{
    struct description *d = fd_find((int)c->arg[0]);
    if (d && d->kind == FD_MEMFD)
        fd_touch(d);
    return call_raw(c);
}

static bool external(int fd)
{
    struct description *d = fd_find(fd);
    if (d)
        fd_touch(d);
    return d && fd_is_external(d);
}

static bool external_output(int fd)
{
    struct description *d = fd_find(fd);
    if (d)
        claim(d);
    return external(fd);
}

static bool waits(int fd)
{
    const struct description *d = fd_peek(fd);
    return d && !(d->flags & O_NONBLOCK);
}

/* What is copied in the kernel from `from` (-1: memory) to `to`, in a wait without the lock, would change both behind a
 * commit's back. So, as in write_pieces(), both are waited for, and the copying is done with the lock. */
static long copy_ready(struct call *c, int from, int to, int flags, bool leaves)
{
    struct deadline never = wait_until(-1);
    struct call attempt = *c;
    bool may_wait = !(c->arg[flags] & SPLICE_F_NONBLOCK) && (from < 0 || waits(from)) && (to < 0 || waits(to));
    attempt.arg[flags] |= SPLICE_F_NONBLOCK;
    for (;;) {
        if (leaves && outbox_held())
            turn_end(TURN_FLUSH);
        long r = call_raw(&attempt);
        if (r != -EAGAIN || !may_wait)
            return r;
        if (outbox_held())
            turn_end(TURN_WAIT);
        bool starved = from >= 0 && wait_peek(from, POLLIN) == 0;
        r = wait_ready(starved ? from : to, starved ? POLLIN : POLLOUT, &never, c->nr);
        if (r < 0 && r != WAIT_AGAIN)
            return r;
    }
}

/* The kernel's copying cannot be held: what goes outside goes when the state that asks for it is durable. */
static long copy_in_kernel(struct call *c, int from, int to, int flags)
{
    if (from >= 0)
        external(from);
    bool leaves = to >= 0 && external_output(to);
    if (leaves || (outbox_held() && !threads_many))
        turn_end(TURN_FLUSH);
    long n = threads_many ? copy_ready(c, from, to, flags, leaves) : wait_kernel(c);
    n = from >= 0 ? wait_accounted(from, n) : n;
    return to >= 0 ? wait_accounted(to, n) : n;
}

/* The same for sendfile, which cannot be told not to wait. */
static long send_pieces_of_file(struct call *c, int from, int to, const struct description *d)
{
    struct deadline never = wait_until(-1);
    struct call piece = *c;
    size_t count = (size_t)c->arg[3], done = 0;
    while (done < count) {
        if (wait_peek(to, POLLOUT) <= 0) {
            if (outbox_held())
                turn_end(TURN_WAIT);
            long r = d->flags & O_NONBLOCK ? -EAGAIN : wait_ready(to, POLLOUT, &never, c->nr);
            if (r < 0 && r != WAIT_AGAIN)
                return done ? (long)done : r;
            continue;
        }
        piece.arg[3] = count - done < PIPE_BUF ? (long)(count - done) : PIPE_BUF;
        long r = wait_accounted(from, wait_accounted(to, call_raw(&piece)));
        if (r <= 0)
            return done ? (long)done : r;
        done += (size_t)r;
    }
    return (long)done;
}

long call_sendfile(struct call *c)
{
    int to = (int)c->arg[0], from = (int)c->arg[1];
    struct description *d = fd_find(to), *source = fd_find(from);
    if (stream_is(d))
        return sendfile_to_peer(c, d, source);
    if (stream_is(source))
        return sendfile_from_peer(c, source, d);
    external(from);
    bool leaves = external_output(to), waits_inside = threads_many && d && (d->kind == FD_PIPE || d->kind == FD_SOCKET) && !never_takes(d);
    long n = leaves ? wait_flushed(c) : waits_inside ? send_pieces_of_file(c, from, to, d) : call_raw(c);
    return wait_accounted(from, wait_accounted(to, n));
}

/* Input that a journal holds has to come first. */
static long splice_journal(struct call *c, struct description *from)
{
    char piece[4096];
    struct iovec v = {piece, (size_t)c->arg[4] < sizeof piece ? (size_t)c->arg[4] : sizeof piece};
    long n = inbox_take(from->inbox, &v, 1);
    if (n <= 0)
        return n;
    struct call write = {.nr = SYS_write, .arg = {c->arg[2], (long)piece, n, 0, 0, 0}, .frame = c->frame};
    if (c->arg[3]) {
        int64_t *at = (int64_t *)c->arg[3];
        n = sys(SYS_pwrite64, c->arg[2], piece, n, *at);
        *at += n > 0 ? n : 0;
        return n;
    }
    return call_write(&write);
}

long call_splice(struct call *c)
{
    struct description *from = fd_find((int)c->arg[0]), *to = fd_find((int)c->arg[2]);
    if (stream_is(from) || stream_is(to))
        return splice_peer(c, from, to);
    if (from && from->inbox && inbox_unread(from->inbox))
        return splice_journal(c, from);
    return copy_in_kernel(c, (int)c->arg[0], (int)c->arg[2], 5);
}

long call_tee(struct call *c)
{
    return copy_in_kernel(c, (int)c->arg[0], (int)c->arg[1], 3);
}

/* Into a pipe, or out of one. */
long call_vmsplice(struct call *c)
{
    int fd = (int)c->arg[0];
    const struct description *d = fd_find(fd);
    bool takes = d && (d->flags & O_ACCMODE) == O_RDONLY;
    return copy_in_kernel(c, takes ? fd : -1, takes ? -1 : fd, 3);
}

long call_copy_file_range(struct call *c)
{
    external((int)c->arg[0]);
    external_output((int)c->arg[2]);
    return call_raw(c);
}
