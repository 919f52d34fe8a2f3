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

/* An object of the program's own: a full pipe or counter blocks until another descriptor of the same program is read, or
 * a signal comes. */
static long write_inside(struct call *c, struct description *d, const struct iovec *v, int count)
{
    if (!(d->bits & FD_TOUCHED))
        fd_touch(d);
    if (d->kind != FD_PIPE && d->kind != FD_SOCKET && d->kind != FD_EVENT)
        return call_raw(c);
    if (d->flags & O_NONBLOCK)
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

/* A piece of a file to a peer: what the connection did not take is as if it had not been read. */
static long send_piece(int fd, struct description *d, int from, int64_t *at, size_t most)
{
    char piece[16384];
    size_t wanted = most < sizeof piece ? most : sizeof piece;
    long n = at ? sys(SYS_pread64, from, piece, wanted, *at) : sys(SYS_read, from, piece, wanted);
    struct iovec v = {piece, n > 0 ? (size_t)n : 0};
    long sent = n > 0 ? stream_send(fd, d, &v, 1, 0) : n;
    if (at)
        *at += sent > 0 ? sent : 0;
    else if (n > 0 && sent < n)
        sys(SYS_lseek, from, (sent > 0 ? sent : 0) - n, SEEK_CUR);
    return sent;
}

static long send_file_to_peer(struct call *c, struct description *d)
{
    struct description *from = fd_find((int)c->arg[1]);
    size_t count = (size_t)c->arg[3];
    long r = 0;
    if (!from || from->kind != FD_FILE)
        return -EINVAL; /* programs read and write then */
    fd_touch(from);
    for (size_t done = 0; done < count; done += (size_t)r) {
        r = send_piece((int)c->arg[0], d, (int)c->arg[1], (int64_t *)c->arg[2], count - done);
        if (r <= 0)
            return done ? (long)done : r;
    }
    return (long)count;
}

/* Copies inside the kernel cannot be held; they go when the state that asks for them is durable. */
long call_sendfile(struct call *c)
{
    struct description *d = fd_find((int)c->arg[0]);
    if (stream_is(d))
        return send_file_to_peer(c, d);
    external((int)c->arg[1]);
    long n = external_output((int)c->arg[0]) ? wait_flushed(c) : call_raw(c);
    return wait_accounted((int)c->arg[1], wait_accounted((int)c->arg[0], n));
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
    struct description *from = fd_find((int)c->arg[0]);
    if (from && from->inbox && inbox_unread(from->inbox))
        return splice_journal(c, from);
    if (stream_is(from) || stream_is(fd_find((int)c->arg[2])))
        return -EINVAL;
    external((int)c->arg[0]);
    long n = external_output((int)c->arg[2]) || outbox_held() ? wait_flushed(c) : wait_kernel(c);
    return wait_accounted((int)c->arg[0], wait_accounted((int)c->arg[2], n));
}

long call_tee(struct call *c)
{
    return wait_accounted((int)c->arg[1], external((int)c->arg[1]) || outbox_held() ? wait_flushed(c) : wait_kernel(c));
}

long call_vmsplice(struct call *c)
{
    return wait_accounted((int)c->arg[0], external((int)c->arg[0]) ? wait_flushed(c) : wait_kernel(c));
}

long call_copy_file_range(struct call *c)
{
    external((int)c->arg[0]);
    external_output((int)c->arg[2]);
    return call_raw(c);
}
