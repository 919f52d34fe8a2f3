/* Reads from descriptors of every kind. */
#define _GNU_SOURCE
#include "net/inbox.h"
#include "shim/call_net.h"
#include "shim/call_peer.h"
#include "shim/call_stream.h"
#include "shim/call_wait.h"

#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>

struct journal_call {
    struct call call; /* the blocking splice */
    struct inbox *inbox;
    const struct iovec *v;
    int count, fd;
    size_t bytes;
    int64_t at;
};

/* What is unread comes first; then one piece of the kernel's, of the size that was asked for: the rest stays in the
 * pipe for whoever shares it. */
static long try_journal(struct call *c)
{
    struct journal_call *j = (struct journal_call *)c;
    if (!inbox_unread(j->inbox)) {
        long r = inbox_fill(j->inbox, j->fd, j->bytes);
        if (r <= 0)
            return r;
    }
    return inbox_take(j->inbox, j->v, j->count);
}

long read_journal(int fd, struct description *d, const struct iovec *v, int count, bool nonblocking)
{
    long bytes = vector_bytes(v, count);
    if (bytes <= 0)
        return bytes;
    struct journal_call j = {
        .call = {.nr = SYS_read}, .inbox = d->inbox, .v = v, .count = count, .fd = fd, .bytes = (size_t)bytes};
    struct waiting w = {
        .fd = fd,
        .events = POLLIN,
        .nonblocking = nonblocking || (d->flags & O_NONBLOCK),
        .timeout_ns = d->kind == FD_SOCKET && d->socket ? d->socket->receive_timeout_ns : 0,
        .attempt = try_journal,
    };
    return wait_rhythm(&j.call, &w);
}

static long try_ready(struct call *c)
{
    long ready = wait_peek((int)c->arg[0], POLLIN);
    if (ready <= 0)
        return ready ? ready : -EAGAIN;
    return call_raw(c);
}

static long try_socket(struct call *c)
{
    struct description *d = fd_peek((int)c->arg[0]);
    if (d && peer_receives(d)) {
        struct iovec one = {(void *)c->arg[1], (size_t)c->arg[2]};
        struct msghdr m = {.msg_iov = c->nr == SYS_read ? &one : (struct iovec *)c->arg[1],
                           .msg_iovlen = c->nr == SYS_read ? 1 : (size_t)c->arg[2]};
        long r = peer_receive(d, &m, 0);
        if (r != -EAGAIN)
            return r;
    }
    if (c->nr == SYS_read)
        return sys(SYS_recvfrom, c->arg[0], c->arg[1], c->arg[2], MSG_DONTWAIT, NULL, NULL);
    struct msghdr m = {.msg_iov = (struct iovec *)c->arg[1], .msg_iovlen = (size_t)c->arg[2]};
    return sys(SYS_recvmsg, c->arg[0], &m, MSG_DONTWAIT);
}

static long read_waiting(struct call *c, struct description *d)
{
    struct waiting w = {
        .fd = (int)c->arg[0],
        .events = POLLIN,
        .nonblocking = d->flags & O_NONBLOCK,
        .accounts = d->kind != FD_SOCKET || (d->bits & FD_INTERNAL),
        .attempt = d->flags & O_NONBLOCK ? call_attempt : try_ready,
        .blocking = c,
    };
    if (d->kind == FD_SOCKET) {
        w.attempt = try_socket;
        w.timeout_ns = d->socket ? d->socket->receive_timeout_ns : 0;
    }
    return wait_rhythm(c, &w);
}

static bool is_waited_for(const struct description *d)
{
    switch (d->kind) {
    case FD_FILE:
    case FD_DIR:
    case FD_DEVICE:
    case FD_MEMFD:
        return false;
    default:
        return true;
    }
}

static void touched(struct description *d)
{
    if (!(d->bits & FD_TOUCHED) && (d->kind != FD_SOCKET || (d->bits & FD_INTERNAL)))
        fd_touch(d);
}

static long read_vector(struct call *c, struct description *d, const struct iovec *v, int count)
{
    if (stream_is(d))
        return stream_receive(c, (int)c->arg[0], d, v, count, 0);
    touched(d);
    if (d->inbox)
        return read_journal((int)c->arg[0], d, v, count, false);
    if (!is_waited_for(d))
        return call_raw(c);
    long bytes = vector_bytes(v, count);
    if (bytes <= 0)
        return call_raw(c);
    return read_waiting(c, d);
}

long call_attempt(struct call *c)
{
    return call_raw(c);
}

long call_read(struct call *c)
{
    struct description *d = fd_find((int)c->arg[0]);
    if (!d || (d->flags & O_ACCMODE) == O_WRONLY)
        return call_raw(c);
    struct iovec v = {(void *)c->arg[1], (size_t)c->arg[2]};
    return read_vector(c, d, &v, 1);
}

long call_readv(struct call *c)
{
    struct description *d = fd_find((int)c->arg[0]);
    if (!d || (d->flags & O_ACCMODE) == O_WRONLY || (unsigned long)c->arg[1] < PAGE_BYTES)
        return call_raw(c);
    return read_vector(c, d, (const struct iovec *)c->arg[1], (int)c->arg[2]);
}

/* At offset -1 it is readv; what is ready is all that RWF_NOWAIT wants. */
long call_preadv2(struct call *c)
{
    struct description *d = c->arg[3] == -1 ? fd_find((int)c->arg[0]) : NULL;
    if (!d)
        return call_raw(c);
    bool unread = d->inbox && inbox_unread(d->inbox);
    if ((c->arg[5] & RWF_NOWAIT) && is_waited_for(d) && !unread && wait_peek((int)c->arg[0], POLLIN) <= 0)
        return wait_refused(-EAGAIN);
    struct call plain = {.nr = SYS_readv, .arg = {c->arg[0], c->arg[1], c->arg[2]}, .frame = c->frame};
    return call_readv(&plain);
}
