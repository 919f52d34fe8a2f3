/* Receives from sockets. */
#define _GNU_SOURCE
#include "shim/call_net.h"
#include "shim/call_peer.h"
#include "shim/call_stream.h"
#include "shim/call_wait.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/time.h>

static int64_t receive_timeout(const struct description *d)
{
    return d->socket ? d->socket->receive_timeout_ns : 0;
}

static struct waiting waiting_for(struct call *c, struct description *d, long flags)
{
    return (struct waiting){
        .fd = (int)c->arg[0],
        .events = flags & MSG_OOB ? POLLPRI : flags & MSG_ERRQUEUE ? 0 : POLLIN,
        .nonblocking = (d->flags & O_NONBLOCK) || (flags & (MSG_DONTWAIT | MSG_ERRQUEUE)),
        .timeout_ns = receive_timeout(d),
        .accounts = d->bits & FD_INTERNAL,
        .blocking = c,
    };
}

static void touched(struct description *d)
{
    if (d->bits & FD_INTERNAL)
        fd_touch(d);
}

static long try_recvfrom(struct call *c)
{
    long r = peer_receive_from(fd_peek((int)c->arg[0]), c);
    if (r != -EAGAIN)
        return r;
    return sys(SYS_recvfrom, c->arg[0], c->arg[1], c->arg[2], c->arg[3] | MSG_DONTWAIT, c->arg[4],
               c->arg[5]);
}

/* MSG_WAITALL on a stream: pieces until it is full, each wait a boundary of its own. */
static long receive_all(struct call *c, struct waiting *w)
{
    struct deadline until = wait_until(w->timeout_ns ? w->timeout_ns : -1);
    size_t got = 0, wanted = (size_t)c->arg[2];
    while (got < wanted) {
        int64_t left = wait_left(&until);
        struct call piece = *c;
        piece.arg[1] += (long)got;
        piece.arg[2] -= (long)got;
        piece.arg[3] &= ~MSG_WAITALL;
        w->blocking = &piece;
        w->timeout_ns = left < 0 ? 0 : left;
        long r = left == 0 ? -EAGAIN : wait_rhythm(&piece, w);
        if (r <= 0)
            return got ? (long)got : r;
        got += (size_t)r;
        if (c->arg[3] & MSG_PEEK)
            break;
    }
    return (long)got;
}

long call_recvfrom(struct call *c)
{
    struct description *d = fd_find((int)c->arg[0]);
    if (!d || d->kind != FD_SOCKET)
        return call_raw(c);
    if (stream_is(d)) {
        struct iovec v = {(void *)c->arg[1], (size_t)c->arg[2]};
        return stream_receive(c, (int)c->arg[0], d, &v, 1, c->arg[3]);
    }
    touched(d);
    if (d->inbox && !(c->arg[3] & ~(MSG_DONTWAIT | MSG_WAITALL | MSG_NOSIGNAL))) {
        struct iovec v = {(void *)c->arg[1], (size_t)c->arg[2]};
        return read_journal((int)c->arg[0], d, &v, 1, c->arg[3] & MSG_DONTWAIT);
    }
    struct waiting w = waiting_for(c, d, c->arg[3]);
    w.attempt = try_recvfrom;
    if ((c->arg[3] & MSG_WAITALL) && !w.nonblocking && fd_is_stream(d))
        return receive_all(c, &w);
    return wait_rhythm(c, &w);
}

static long try_recvmsg(struct call *c)
{
    long r = peer_receive(fd_peek((int)c->arg[0]), (struct msghdr *)c->arg[1], c->arg[2]);
    if (r != -EAGAIN)
        return r;
    return sys(SYS_recvmsg, c->arg[0], c->arg[1], c->arg[2] | MSG_DONTWAIT);
}

/* With MSG_WAITALL only a first byte is waited for within the turn; the kernel gathers the rest. */
static long try_recvmsg_whole(struct call *c)
{
    long ready = wait_peek((int)c->arg[0], POLLIN);
    if (ready <= 0)
        return ready ? ready : -EAGAIN;
    return wait_flushed(c);
}

long call_recvmsg(struct call *c)
{
    struct description *d = fd_find((int)c->arg[0]);
    if (!d || d->kind != FD_SOCKET)
        return call_raw(c);
    if (stream_is(d))
        return stream_receive_message(c, (int)c->arg[0], d, (void *)c->arg[1], c->arg[2]);
    touched(d);
    struct waiting w = waiting_for(c, d, c->arg[2]);
    w.attempt = (c->arg[2] & MSG_WAITALL) && !w.nonblocking && fd_is_stream(d) ? try_recvmsg_whole
                                                                              : try_recvmsg;
    return wait_rhythm(c, &w);
}

static long try_recvmmsg(struct call *c)
{
    struct mmsghdr *m = (struct mmsghdr *)c->arg[1];
    long got = 0;
    for (; got < c->arg[2]; got++) {
        long r = peer_receive(fd_peek((int)c->arg[0]), &m[got].msg_hdr, c->arg[3]);
        if (r < 0)
            break;
        m[got].msg_len = (unsigned)r;
    }
    if (got)
        return got;
    return sys(SYS_recvmmsg, c->arg[0], c->arg[1], c->arg[2], c->arg[3] | MSG_DONTWAIT, NULL);
}

/* The kernel looks at the time limit only after each datagram; so does this. */
long call_recvmmsg(struct call *c)
{
    struct description *d = fd_find((int)c->arg[0]);
    if (!d || d->kind != FD_SOCKET)
        return call_raw(c);
    if (stream_is(d)) {
        struct mmsghdr *m = (struct mmsghdr *)c->arg[1];
        long r = stream_receive_message(c, (int)c->arg[0], d, &m->msg_hdr, c->arg[3]);
        if (r >= 0)
            m->msg_len = (unsigned)r;
        return r < 0 ? r : 1;
    }
    touched(d);
    const struct timespec *limit = (const struct timespec *)c->arg[4];
    struct deadline until = wait_until(limit ? limit->tv_sec * 1000000000L + limit->tv_nsec : -1);
    struct waiting w = waiting_for(c, d, c->arg[3]);
    w.attempt = try_recvmmsg;
    long got = 0, wanted = c->arg[2];
    for (;;) {
        struct call piece = *c;
        piece.arg[1] += got * (long)sizeof(struct mmsghdr);
        piece.arg[2] = wanted - got;
        piece.arg[3] &= ~MSG_WAITFORONE;
        w.blocking = NULL;
        long r = wait_rhythm(&piece, &w);
        if (r <= 0)
            return got ? got : r;
        got += r;
        if (got >= wanted || w.nonblocking || (c->arg[3] & MSG_WAITFORONE) || wait_left(&until) == 0)
            return got;
    }
}
