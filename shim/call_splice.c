/* splice() and sendfile() of a connection between peers. Its bytes are in the image, not in the kernel, so they are copied: each
 * answer is what the kernel gives for a TCP socket (tests/subjects/splices.py compares them). */
#define _GNU_SOURCE
#include "net/inbox.h"
#include "net/stream.h"
#include "shim/call_net.h"
#include "shim/call_stream.h"
#include "shim/call_wait.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/socket.h>

#define PIECE 8192u /* on the stack, which may be an alternate one of the program's */

static bool is_pipe(const struct description *d)
{
    return d && (d->kind == FD_PIPE || d->kind == FD_FIFO);
}

/* POLLIN: there is something; POLLHUP alone: nothing, and nothing will come. */
static long look(int fd, const struct description *d)
{
    return d->inbox && inbox_unread(d->inbox) ? POLLIN : wait_peek(fd, POLLIN);
}

/* Never more is taken out of the pipe than the connection has room for: it cannot be put back. */
static long from_pipe(struct call *c, struct description *from, int fd, struct description *to, size_t count, bool waits)
{
    char piece[PIECE];
    size_t done = 0;
    while (done < count) {
        long seen = look((int)c->arg[0], from);
        if (seen < 0 || (seen & (POLLIN | POLLHUP)) == POLLHUP || (!seen && done))
            return done ? (long)done : seen < 0 ? seen : 0;
        if (!seen && !waits)
            return -EAGAIN;
        long room = stream_space(fd, to, done > 0);
        if (room <= 0)
            return done ? (long)done : room;
        size_t n = count - done < sizeof piece ? count - done : sizeof piece;
        struct call read = {.nr = SYS_read, .arg = {c->arg[0], (long)piece, n < (size_t)room ? (long)n : room}};
        long got = call_read(&read);
        if (got <= 0)
            return done ? (long)done : got;
        struct iovec v = {piece, (size_t)got};
        long sent = stream_send(fd, to, &v, 1, STREAM_PATIENT);
        if (sent < 0)
            return done ? (long)done : sent;
        done += (size_t)sent;
    }
    return (long)done;
}

/* As much as waits in the connection and fits into the pipe without blocking; only the first piece of either is waited for. */
static long to_pipe(struct call *c, int fd, struct description *from, int pipe, size_t count, bool waits)
{
    char piece[PIPE_BUF];
    size_t done = 0;
    while (done < count) {
        struct iovec v = {piece, count - done < sizeof piece ? count - done : sizeof piece};
        long got = stream_receive(c, fd, from, &v, 1, MSG_PEEK | (done ? MSG_DONTWAIT : 0));
        if (got <= 0)
            return done ? (long)done : got;
        if ((done || !waits) && wait_peek(pipe, POLLOUT) <= 0)
            return done ? (long)done : -EAGAIN;
        struct call write = {.nr = SYS_write, .arg = {pipe, (long)piece, got}, .frame = c->frame};
        long put = call_write(&write);
        if (put <= 0)
            return done ? (long)done : put;
        v.iov_len = (size_t)put;
        stream_receive(c, fd, from, &v, 1, MSG_TRUNC | MSG_DONTWAIT);
        done += (size_t)put;
    }
    return (long)done;
}

static bool may(const struct description *d, int mode)
{
    uint32_t way = d->flags & O_ACCMODE;
    return way == O_RDWR || way == (uint32_t)mode;
}

long splice_peer(struct call *c, struct description *from, struct description *to)
{
    size_t count = (size_t)c->arg[4];
    bool outward = stream_is(to);
    struct description *pipe = outward ? from : to;
    if (!count)
        return 0;
    if (c->arg[5] & ~(SPLICE_F_MOVE | SPLICE_F_NONBLOCK | SPLICE_F_MORE | SPLICE_F_GIFT))
        return -EINVAL;
    if (!pipe)
        return -EBADF;
    if (!is_pipe(pipe))
        return -EINVAL;
    if (c->arg[outward ? 1 : 3])
        return -ESPIPE;
    if (c->arg[outward ? 3 : 1])
        return -EINVAL;
    if (!may(pipe, outward ? O_RDONLY : O_WRONLY))
        return -EBADF;
    bool waits = !(c->arg[5] & SPLICE_F_NONBLOCK) && !(pipe->flags & O_NONBLOCK);
    if (outward)
        return from_pipe(c, from, (int)c->arg[2], to, count, waits);
    return to_pipe(c, (int)c->arg[0], from, (int)c->arg[2], count, waits);
}

static void touch(int fd)
{
    struct description *d = fd_find(fd);
    if (d)
        fd_touch(d);
}

/* A piece of a file: what the connection did not take is as if it had not been read. The turn may end while it is sent, so the
 * file's offset is to be looked at again for each. */
static long send_piece(int fd, struct description *d, int from, int64_t *at, size_t most)
{
    char piece[PIECE];
    touch(from);
    size_t wanted = most < sizeof piece ? most : sizeof piece;
    long n = at ? sys(SYS_pread64, from, piece, wanted, *at) : sys(SYS_read, from, piece, wanted);
    struct iovec v = {piece, n > 0 ? (size_t)n : 0};
    long sent = n > 0 ? stream_send(fd, d, &v, 1, 0) : n;
    if (at)
        *at += sent > 0 ? sent : 0;
    else if (n > 0 && sent < n)
        sys(SYS_lseek, from, (sent > 0 ? sent : 0) - n, SEEK_CUR);
    touch(from);
    return sent;
}

long sendfile_to_peer(struct call *c, struct description *d, struct description *from)
{
    size_t count = (size_t)c->arg[3];
    if (!from)
        return -EBADF;
    if (is_pipe(from) && c->arg[2])
        return -ESPIPE;
    if (from->kind != FD_FILE && from->kind != FD_MEMFD && from->kind != FD_DEVICE)
        return -EINVAL;
    for (size_t done = 0; done < count;) {
        long r = send_piece((int)c->arg[0], d, (int)c->arg[1], (int64_t *)c->arg[2], count - done);
        if (r <= 0)
            return done ? (long)done : r;
        done += (size_t)r;
    }
    return (long)count;
}

/* The kernel makes a splice of it when the output is a pipe, and refuses everything else. */
long sendfile_from_peer(struct call *c, struct description *from, struct description *to)
{
    if (!to)
        return -EBADF;
    if (c->arg[2])
        return -ESPIPE;
    if (!is_pipe(to))
        return -EINVAL;
    if (!may(to, O_WRONLY))
        return -EBADF;
    return c->arg[3] ? to_pipe(c, (int)c->arg[1], from, (int)c->arg[0], (size_t)c->arg[3], !(to->flags & O_NONBLOCK)) : 0;
}
