#define _GNU_SOURCE
#include "shim/call_stream.h"
#include "net/stream.h"
#include "shim/call_net.h"
#include "shim/call_wait.h"
#include "shim/turn.h"

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

static long receive_once(struct call *c, int fd, struct description *d, const struct iovec *v, int count, long flags)
{
    struct stream_call s = {.call = {.nr = c->nr}, .d = d, .v = v, .fd = fd, .count = count, .flags = flags};
    struct waiting w = {
        .fd = fd,
        .events = POLLIN,
        .nonblocking = waits_for_nobody(d, flags),
        .timeout_ns = d->socket->receive_timeout_ns,
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
        return receive_once(c, fd, d, v, count, flags);
    size_t got = 0;
    while (got < v->iov_len) {
        struct iovec rest = {(char *)v->iov_base + got, v->iov_len - got};
        long r = receive_once(c, fd, d, &rest, 1, flags);
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

/* The window is closed, or the channel is full: what is held goes out, then the peer has to read. */
static long wait_window(void)
{
    if (outbox_held() || peers_owe())
        turn_end(TURN_FLUSH);
    return wait_peers(LOOK_AGAIN_NS, SYS_write);
}

long stream_send(int fd, struct description *d, const struct iovec *v, int count, long flags)
{
    long total = vector_bytes(v, count);
    if (total < 0 || (flags & MSG_OOB))
        return total < 0 ? total : -EOPNOTSUPP;
    bool patient = !waits_for_nobody(d, flags), ended = false;
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
        r = wait_window();
        if (r < 0)
            return done ? (long)done : r;
    }
}

long stream_space(int fd, struct description *d, bool hurried)
{
    for (bool looked = false;; looked = true) {
        size_t room = stream_writable(d);
        long r = room || hurried ? 0 : stream_write(fd, d, NULL, 0, 0, 0);
        if (room || hurried)
            return room ? (long)room : -EAGAIN;
        if (r < 0 && r != -EAGAIN)
            return refused(r, 0, 0);
        if (waits_for_nobody(d, 0) && looked)
            return -EAGAIN;
        r = waits_for_nobody(d, 0) ? wait_refused(0) : wait_window();
        if (r < 0)
            return r;
        transport_pump();
    }
}

/* --- making connections --------------------------------------------------------------------------- */

static long await_connection(int fd, struct description *d)
{
    struct deadline until = wait_until(d->socket->send_timeout_ns ? d->socket->send_timeout_ns : -1);
    while (stream_state(d) == STREAM_CONNECTING) {
        turn_end(TURN_WAIT);
        long r = wait_ready(fd, POLLOUT, &until, SYS_connect);
        if (r <= 0 && r != WAIT_AGAIN)
            return r ? r : -EINPROGRESS;
    }
    stream_announce(d);
    return stream_state(d) == STREAM_OPEN ? 0 : stream_take_error(d);
}

long stream_dial(struct call *c, int fd, struct description *d, bool *plain)
{
    *plain = false;
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
        r = wait_window();
        if (r == 0)
            r = stream_connect(fd, d, (const void *)c->arg[1], (size_t)c->arg[2]);
    }
    *plain = r > 0 || (r == -ENOBUFS && call_passive);
    if (*plain)
        return 0;
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
    if (peer && stream_state(d) != STREAM_OPEN)
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

static int socket_value(struct description *d, int option)
{
    switch (option) {
    case SO_TYPE:
        return SOCK_STREAM;
    case SO_DOMAIN:
        return d->socket->domain;
    case SO_PROTOCOL:
        return IPPROTO_TCP;
    case SO_ERROR:
        return -stream_take_error(d);
    case SO_SNDBUF:
    case SO_RCVBUF:
        return (int)STREAM_WINDOW;
    default:
        return 0;
    }
}

static const struct sock_option *noted(const struct description *d, int level, int option)
{
    const struct sock_option *found = NULL;
    for (const struct sock_option *o = d->socket->options; o; o = o->next)
        if (o->level == level && o->name == option)
            found = o;
    return found;
}

long call_getsockopt(struct call *c)
{
    struct description *d = fd_find((int)c->arg[0]);
    if (!stream_is(d))
        return call_raw(c);
    int level = (int)c->arg[1], option = (int)c->arg[2];
    socklen_t *length = (socklen_t *)c->arg[4];
    if (!c->arg[3] || !length)
        return -EFAULT;
    const struct sock_option *o = noted(d, level, option);
    int value = level == SOL_SOCKET ? socket_value(d, option) : level == IPPROTO_TCP && option == TCP_MAXSEG ? 65483 : 0;
    struct tcp_info info = {.tcpi_state = TCP_ESTABLISHED};
    bool is_info = level == IPPROTO_TCP && option == TCP_INFO;
    const void *from = o ? o->value : is_info ? (void *)&info : &value;
    socklen_t bytes = o ? o->length : is_info ? sizeof info : sizeof value;
    if (bytes > *length)
        bytes = *length;
    memcpy((void *)c->arg[3], from, bytes);
    *length = bytes;
    return 0;
}
