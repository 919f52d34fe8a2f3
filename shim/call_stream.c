#define _GNU_SOURCE
#include "shim/call_stream.h"
#include "net/stream.h"
#include "shim/call_net.h"
#include "shim/call_signal.h"
#include "shim/call_wait.h"
#include "shim/turn.h"

#include "heap/fault.h"

#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <string.h>

#define LOOK_AGAIN_NS 50000000L

struct stream_call {
    struct call call;
    struct description *d;
    const struct iovec *v;
    int fd, count;
    long flags;
};

static long try_receive(struct call *c)
{
    struct stream_call *s = (struct stream_call *)c;
    long r = stream_read(s->fd, s->d, s->v, s->count, s->flags);
    if (r != -EAGAIN)
        return r;
    transport_pump();
    return stream_read(s->fd, s->d, s->v, s->count, s->flags);
}

static bool waits_for_nobody(const struct description *d, long flags)
{
    return !(flags & STREAM_PATIENT) && ((d->flags & O_NONBLOCK) || (flags & MSG_DONTWAIT));
}

static long receive_once(struct call *c, int fd, struct description *d, const struct iovec *v, int count, long flags, int64_t limit)
{
    struct stream_call s = {.call = {.nr = c->nr}, .d = d, .v = v, .fd = fd, .count = count, .flags = flags};
    struct waiting w = {
        .fd = fd,
        .events = POLLIN,
        .nonblocking = waits_for_nobody(d, flags),
        .timeout_ns = limit,
        .attempt = try_receive,
    };
    return wait_rhythm(&s.call, &w);
}

long stream_receive(struct call *c, int fd, struct description *d, const struct iovec *v, int count, long flags)
{
    long wanted = vector_bytes(v, count);
    if (wanted <= 0)
        return wanted;
    if (flags & (MSG_OOB | MSG_ERRQUEUE))
        return flags & MSG_OOB ? -EINVAL : -EAGAIN;
    if (!(flags & MSG_WAITALL) || (flags & MSG_PEEK) || count != 1 || waits_for_nobody(d, flags))
        return receive_once(c, fd, d, v, count, flags, d->socket->receive_timeout_ns);
    struct deadline until = wait_until(d->socket->receive_timeout_ns ? d->socket->receive_timeout_ns : -1);
    size_t got = 0;
    while (got < v->iov_len) {
        struct iovec rest = {(char *)v->iov_base + got, v->iov_len - got};
        int64_t left = wait_left(&until);
        long r = left == 0 ? -EAGAIN : receive_once(c, fd, d, &rest, 1, flags, left < 0 ? 0 : left);
        if (r <= 0)
            return got ? (long)got : r;
        got += (size_t)r;
    }
    return (long)got;
}

long stream_receive_message(struct call *c, int fd, struct description *d, void *message, long flags)
{
    struct msghdr *m = message;
    long r = stream_receive(c, fd, d, m->msg_iov, (int)m->msg_iovlen, flags);
    if (r >= 0) {
        m->msg_namelen = 0;
        m->msg_controllen = 0;
        m->msg_flags = 0;
    }
    return r;
}

static long refused(long error, size_t done, long flags)
{
    if (done)
        return (long)done;
    if (error == -EPIPE && !(flags & MSG_NOSIGNAL))
        sys(SYS_tgkill, sys(SYS_getpid), sys(SYS_gettid), SIGPIPE);
    return error;
}

static struct deadline send_limit(const struct description *d)
{
    return wait_until(MUTANT("stream.patient", false, d->socket->send_timeout_ns) ? d->socket->send_timeout_ns : -1);
}

/* The window is closed, or the channel is full: what is held goes out, then the peer has to read. 0; -EAGAIN: that took too long. */
static long wait_window(const struct deadline *until)
{
    if (outbox_held() || peers_owe())
        turn_end(TURN_FLUSH);
    int64_t left = wait_left(until);
    if (left == 0)
        return -EAGAIN;
    bool limited = left > 0;
    return wait_peers(limited && left < LOOK_AGAIN_NS ? left : LOOK_AGAIN_NS, limited ? SYS_ppoll : SYS_write);
}

long stream_send(int fd, struct description *d, const struct iovec *v, int count, long flags)
{
    long total = vector_bytes(v, count);
    if (total < 0 || (flags & MSG_OOB))
        return total < 0 ? total : -EOPNOTSUPP;
    bool patient = !waits_for_nobody(d, flags), ended = false;
    struct deadline until = send_limit(d);
    for (size_t done = 0;;) {
        long r = stream_write(fd, d, v, count, done, (size_t)total - done);
        if (r < 0 && r != -EAGAIN)
            return refused(r, done, flags);
        done += r > 0 ? (size_t)r : 0;
        peers_serve();
        if (done == (size_t)total)
            return wait_answer(total);
        if (!patient && (done || ended))
            return done ? (long)done : -EAGAIN;
        if (!patient) {
            wait_refused(0);
            transport_pump();
            ended = true;
            continue;
        }
        r = wait_window(&until);
        if (r < 0)
            return done ? (long)done : r;
    }
}

long stream_space(int fd, struct description *d, bool hurried)
{
    struct deadline until = send_limit(d);
    for (bool looked = false;; looked = true) {
        size_t room = stream_writable(d);
        long r = room || hurried ? 0 : stream_write(fd, d, NULL, 0, 0, 0);
        if (room || hurried)
            return room ? (long)room : -EAGAIN;
        if (r < 0 && r != -EAGAIN)
            return refused(r, 0, 0);
        if (waits_for_nobody(d, 0) && looked)
            return -EAGAIN;
        r = waits_for_nobody(d, 0) ? wait_refused(0) : wait_window(&until);
        if (r < 0)
            return r;
        transport_pump();
    }
}

/* --- making connections --------------------------------------------------------------------------- */

/* It turned out to be a plain process's, and is under way to it. */
static long await_plain(int fd, struct description *d, const struct deadline *until)
{
    for (;;) {
        long r = sys(SYS_connect, fd, &d->socket->peer->at, d->socket->peer->length);
        if (r != -EALREADY && r != -EINPROGRESS && r != -EINTR)
            return r == -EISCONN ? 0 : r;
        r = wait_ready(fd, POLLOUT, until, SYS_connect);
        if (r <= 0 && r != WAIT_AGAIN)
            return r ? r : -EINPROGRESS;
    }
}

static long await_connection(int fd, struct description *d)
{
    struct deadline until = send_limit(d);
    while (stream_is(d) && stream_state(d) == STREAM_CONNECTING) {
        turn_end(TURN_WAIT);
        long r = wait_ready(fd, POLLOUT, &until, SYS_connect);
        if (r <= 0 && r != WAIT_AGAIN)
            return r ? r : -EINPROGRESS;
    }
    if (!stream_is(d))
        return await_plain(fd, d, &until);
    stream_announce(d);
    return stream_state(d) == STREAM_OPEN ? 0 : stream_take_error(d);
}

/* connect() with AF_UNSPEC. */
static bool names_nobody(const struct call *c)
{
    sa_family_t family;
    return (size_t)c->arg[2] >= sizeof family && fault_copy(&family, (const void *)c->arg[1], sizeof family) && family == AF_UNSPEC;
}

/* A peer refused it; now it is for a plain process. */
static long dissolve_first(struct description *d, bool *plain)
{
    long r = stream_dissolve(d);
    *plain = r == 0;
    return r;
}

long stream_dial(struct call *c, int fd, struct description *d, bool *plain)
{
    *plain = false;
    if (stream_is(d) && names_nobody(c))
        return stream_dissolve(d);
    if (stream_is(d) && stream_state(d) != STREAM_FAILED)
        return stream_state(d) == STREAM_OPEN ? (stream_announce(d) ? 0 : -EISCONN)
               : d->flags & O_NONBLOCK        ? -EALREADY
                                              : await_connection(fd, d);
    if (!d->socket || d->socket->type != SOCK_STREAM || d->socket->state > SOCK_BOUND ||
        (d->socket->domain != AF_INET && d->socket->domain != AF_INET6)) {
        *plain = true;
        return 0;
    }
    long r = stream_connect(fd, d, (const void *)c->arg[1], (size_t)c->arg[2]);
    while (r == -ENOBUFS && !call_passive) { /* in a child that may yet become the program: only then it has peers */
        struct deadline never = wait_until(-1);
        r = wait_window(&never);
        if (r == 0)
            r = stream_connect(fd, d, (const void *)c->arg[1], (size_t)c->arg[2]);
    }
    *plain = r > 0 || (r == -ENOBUFS && call_passive);
    if (*plain)
        return stream_is(d) ? dissolve_first(d, plain) : 0;
    if (r)
        return r;
    return d->flags & O_NONBLOCK ? -EINPROGRESS : await_connection(fd, d);
}

long stream_take(struct call *c, struct description *listener, long flags)
{
    struct stream *s;
    struct fd_socket *from = listener->socket;
    long fd = stream_accept(listener, &s);
    if (fd < 0)
        return fd;
    uint32_t status = O_RDWR | (flags & SOCK_NONBLOCK ? O_NONBLOCK : 0) | (flags & SOCK_CLOEXEC ? O_CLOEXEC : 0);
    struct description *d = fd_enter((int)fd, FD_SOCKET, status);
    struct fd_socket *sock = d ? fd_socket(d) : NULL;
    if (!sock) {
        sys(SYS_close, fd);
        return -EMFILE;
    }
    sock->domain = from->domain;
    sock->type = from->type;
    sock->protocol = from->protocol;
    fd_note_inherited(d, from);
    stream_adopt(d, s);
    if (flags & SOCK_NONBLOCK)
        sys(SYS_fcntl, fd, F_SETFL, O_RDWR | O_NONBLOCK);
    if (!(flags & SOCK_CLOEXEC))
        sys(SYS_fcntl, fd, F_SETFD, 0);
    socklen_t *length = (socklen_t *)c->arg[2];
    if (c->arg[1] && length)
        *length = (socklen_t)stream_name(d, true, (void *)c->arg[1], *length);
    return fd;
}

/* --- what a TCP socket would answer ---------------------------------------------------------------- */

static long name(struct call *c, bool peer)
{
    struct description *d = fd_find((int)c->arg[0]);
    if (!stream_is(d))
        return call_raw(c);
    socklen_t *length = (socklen_t *)c->arg[2];
    if (peer && (stream_tcp_state(d) == TCP_CLOSE || stream_state(d) != STREAM_OPEN))
        return -ENOTCONN;
    if (!c->arg[1] || !length)
        return -EFAULT;
    *length = (socklen_t)stream_name(d, peer, (void *)c->arg[1], *length);
    return 0;
}

long call_getsockname(struct call *c)
{
    return name(c, false);
}

long call_getpeername(struct call *c)
{
    return name(c, true);
}
