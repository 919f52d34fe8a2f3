/* Sends: outputs are checked as the kernel would, then held until the turn is durable. */
#define _GNU_SOURCE
#include "shim/call_net.h"
#include "shim/call_peer.h"
#include "shim/call_stream.h"
#include "net/peers.h"
#include "net/trouble.h"
#include "shim/call_wait.h"
#include "shim/threads.h"
#include "shim/turn.h"

#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>

#define DATAGRAM_MAX_4 65507
#define DATAGRAM_MAX_6 65527
#define RW_COUNT_MAX 0x7ffff000UL
#define LOWEST_ADDRESS 4096 /* a pointer below it is the kernel's to refuse */

/* Flags that change what is sent in ways an entry cannot carry. */
#define UNHELD (MSG_OOB | MSG_FASTOPEN | MSG_ZEROCOPY | MSG_ERRQUEUE | MSG_PROXY)

long vector_bytes(const struct iovec *v, long count)
{
    size_t total = 0;
    if (count < 0 || count > IOV_MAX)
        return -EINVAL;
    for (long i = 0; i < count; i++) {
        if ((ssize_t)v[i].iov_len < 0)
            return -EINVAL;
        if (v[i].iov_len && (uintptr_t)v[i].iov_base < LOWEST_ADDRESS)
            return -EFAULT;
        total += v[i].iov_len;
        if (total > RW_COUNT_MAX)
            total = RW_COUNT_MAX;
    }
    return (long)total;
}

static void raise_pipe(void)
{
    sys(SYS_tgkill, sys(SYS_getpid), sys(SYS_gettid), SIGPIPE);
}

/* An error that a release met is told here. A cut stream socket stays cut; a datagram socket, a FIFO or a terminal
 * may do better next time. */
static long tell_error(struct description *d, long flags)
{
    int error = d->error;
    bool lasting = d->kind == FD_SOCKET && fd_is_stream(d);
    d->error = lasting ? EPIPE : 0;
    if (error == EPIPE && !(flags & MSG_NOSIGNAL) && (lasting || d->kind != FD_SOCKET))
        raise_pipe();
    return -error;
}

/* The kernel would refuse it, or not take it now: 0 when it would take it. One poll for the first output of a turn to a
 * stream. */
static long check_stream(struct call *c, int fd, struct description *d, bool nonblocking)
{
    if (d->kind == FD_SOCKET && (!d->socket || (d->socket->shut & 2)))
        return wait_flushed(c);
    if (d->held)
        return 0;
    long ready = wait_peek(fd, POLLOUT);
    if (ready < 0)
        return ready;
    if (ready & (POLLERR | POLLHUP | POLLNVAL))
        return wait_flushed(c);
    return nonblocking && !(ready & POLLOUT) ? wait_refused(-EAGAIN) : 0;
}

static long hold_stream(int fd, struct description *d, const struct iovec *v, int count, size_t total,
                        long flags, bool nonblocking)
{
    enum output_kind kind = d->kind == FD_SOCKET ? OUTPUT_STREAM : OUTPUT_WRITE;
    struct deadline until = wait_until(d->socket && d->socket->send_timeout_ns ? d->socket->send_timeout_ns : -1);
    size_t done = 0;
    bool ended = false;
    while (done < total) {
        size_t n = outbox_room();
        if ((nonblocking || outbox.tails) && d->held >= OUTBOX_STREAM)
            n = 0;
        if (nonblocking && n > OUTBOX_STREAM - d->held)
            n = OUTBOX_STREAM - d->held;
        if (n > total - done)
            n = total - done;
        if (n && outbox_hold(fd, d, kind, (int)flags, NULL, 0, v, count, done, n) == 0) {
            done += n;
            ended = false;
            continue;
        }
        if (nonblocking && (done || ended))
            break;
        if (ended && !outbox.tails)
            return done ? (long)done : -ENOMEM;
        long r = ended ? wait_tails(&until, wait_left(&until) < 0 ? SYS_write : SYS_ppoll) : 0;
        if (r < 0)
            return done ? (long)done : r;
        if (!ended)
            turn_end(TURN_FLUSH);
        ended = true;
        if (d->error)
            return done ? (long)done : tell_error(d, flags);
    }
    return done || !total ? (long)done : -EAGAIN;
}

/* The kernel binds an unbound datagram socket at its first send. Done here, at once, so that getsockname() answers and
 * the same port comes back in a new process: answers to what was sent go there. */
static long bind_early(int fd, struct description *d)
{
    struct fd_socket *s = d->socket;
    struct sock_address any = {.length = s->domain == AF_INET6 ? sizeof(struct sockaddr_in6)
                                                               : sizeof(struct sockaddr_in)};
    if (s->domain != AF_INET && s->domain != AF_INET6)
        return 0;
    any.at.ss_family = (sa_family_t)s->domain;
    long r = trouble_none(sys(SYS_bind, fd, &any.at, any.length), "choose a port");
    if (r == -EADDRINUSE)
        return -EAGAIN; /* all ports are taken: so the kernel says it to a sender */
    fd_note_bound(fd, d);
    return 0;
}

/* What became of an earlier datagram is told to the sender of the next one: also here, where that one leaves later. */
static long take_refusal(int fd)
{
    int error = 0;
    socklen_t length = sizeof error;
    sys(SYS_getsockopt, fd, SOL_SOCKET, SO_ERROR, &error, &length);
    return -error;
}

static long hold_datagram(struct call *c, int fd, struct description *d, const struct iovec *v,
                          int count, size_t total, long flags, const void *address,
                          size_t address_length)
{
    struct fd_socket *s = d->socket;
    size_t most = s->domain == AF_INET ? DATAGRAM_MAX_4 : DATAGRAM_MAX_6;
    bool inet = s->domain == AF_INET || s->domain == AF_INET6;
    if (inet && total > most)
        return -EMSGSIZE;
    if (address ? address_length < sizeof(sa_family_t) || address_length > sizeof(struct sockaddr_storage) ||
                      ((const struct sockaddr *)address)->sa_family != s->domain
                : s->state != SOCK_CONNECTED)
        return wait_flushed(c);
    if (!inet && total > (1 << 18))
        return wait_flushed(c);
    long refused = inet && s->state == SOCK_CONNECTED ? take_refusal(fd) : 0;
    if (refused)
        return refused;
    long bound = !s->bound && s->state != SOCK_CONNECTED ? bind_early(fd, d) : 0;
    if (bound < 0)
        return bound;
    if (inet) {
        bool plain;
        long r = peer_send(fd, d, NULL, address, address_length, v, count, total, flags, &plain);
        if (!plain)
            return r;
    }
    if (!outbox_room())
        turn_end(TURN_FLUSH);
    struct deadline never = wait_until(-1);
    bool ended = false;
    while (outbox_hold(fd, d, OUTPUT_DATAGRAM, (int)flags, address, address ? address_length : 0, v,
                       count, 0, total) < 0) {
        if (ended && (!outbox.tails || (d->flags & O_NONBLOCK)))
            return -ENOBUFS;
        if (ended)
            wait_tails(&never, SYS_sendto);
        else
            turn_end(TURN_FLUSH);
        ended = true;
    }
    return (long)total;
}

static bool holdable_datagram(const struct fd_socket *s)
{
    return (s->type == SOCK_DGRAM || s->type == SOCK_SEQPACKET) &&
           (s->domain == AF_INET || s->domain == AF_INET6 || s->domain == AF_UNIX);
}

/* connect() and the first bytes at once (MSG_FASTOPEN). *plain: it is for the kernel. */
static long send_first(int fd, struct description *d, const struct iovec *v, int count, long flags, const void *address,
                       size_t address_length, bool *plain)
{
    struct call c = {.nr = SYS_connect, .arg = {fd, (long)address, (long)address_length}};
    long r = stream_dial(&c, fd, d, plain);
    return *plain || r < 0 ? r : stream_send(fd, d, v, count, flags & ~MSG_FASTOPEN);
}

long send_held(struct call *c, int fd, struct description *d, const struct iovec *v, int count,
               long flags, const void *address, size_t address_length)
{
    long total = vector_bytes(v, count);
    bool nonblocking = (d->flags & O_NONBLOCK) || (flags & MSG_DONTWAIT);
    if (total < 0)
        return total;
    if (stream_is(d))
        return stream_send(fd, d, v, count, flags);
    if ((flags & MSG_FASTOPEN) && address && fd_is_stream(d)) {
        bool plain;
        long r = send_first(fd, d, v, count, flags, address, address_length, &plain);
        if (!plain)
            return r;
    }
    if (d->error)
        return tell_error(d, flags);
    if (d->socket && d->kind == FD_SOCKET && d->socket->domain == AF_NETLINK)
        return wait_kernel(c); /* a question to the kernel leaves nothing outside */
    if (flags & UNHELD)
        return wait_flushed(c);
    if (!fd_is_stream(d)) {
        if (!holdable_datagram(d->socket))
            return wait_flushed(c);
        return hold_datagram(c, fd, d, v, count, (size_t)total, flags, address, address_length);
    }
    if ((d->flags & O_ACCMODE) == O_RDONLY || !total)
        return call_raw(c);
    long r = check_stream(c, fd, d, nonblocking);
    return r ? r : hold_stream(fd, d, v, count, (size_t)total, flags, nonblocking);
}

/* What follows the first `done` bytes; at most `most` pieces of it. */
static int rest(const struct msghdr *m, size_t done, struct iovec *v, int most)
{
    int n = 0;
    for (size_t i = 0; i < m->msg_iovlen && n < most; i++) {
        const struct iovec *from = &m->msg_iov[i];
        if (done < from->iov_len || !from->iov_len)
            v[n++] = (struct iovec){(char *)from->iov_base + done, from->iov_len - done};
        done -= done < from->iov_len ? done : from->iov_len;
    }
    return n;
}

static long try_inside(struct call *c)
{
    return sys(SYS_sendmsg, c->arg[0], c->arg[1], c->arg[2] | MSG_DONTWAIT);
}

/* Between two sockets of the program's own, with several threads: as in call_write.c, a send without the lock would change them
 * behind a commit's back, and be made again after a restart. So room is waited for, and filled with the lock. */
static long send_pieces(struct call *c, int fd, struct description *d, const struct msghdr *m, long flags)
{
    struct iovec v[64];
    struct msghdr piece = *m;
    struct call one = {.nr = SYS_sendmsg, .arg = {fd, (long)&piece, flags, 0, 0, 0}, .frame = c->frame};
    struct waiting w = {.fd = fd,
                        .events = POLLOUT,
                        .nonblocking = (d->flags & O_NONBLOCK) || (flags & MSG_DONTWAIT),
                        .timeout_ns = d->socket ? d->socket->send_timeout_ns : 0,
                        .attempt = try_inside,
                        .accounts = true};
    long total = vector_bytes(m->msg_iov, (long)m->msg_iovlen);
    if (total <= 0 || !fd_is_stream(d))
        return total < 0 ? total : wait_rhythm(&one, &w);
    for (long done = 0; done < total;) {
        piece.msg_iov = v;
        piece.msg_iovlen = (size_t)rest(m, (size_t)done, v, 64);
        long r = wait_rhythm(&one, &w);
        if (r <= 0)
            return done ? done : r;
        done += r;
        piece.msg_controllen = 0; /* went with the first piece */
        if (w.nonblocking)
            return done;
    }
    return total;
}

static long send_inside(struct call *c, int fd, struct description *d, const struct msghdr *m, long flags)
{
    if (!(d->bits & FD_INTERNAL))
        return wait_kernel(c);
    fd_touch(d);
    return threads_many ? send_pieces(c, fd, d, m, flags) : wait_accounted(fd, wait_kernel(c));
}

long call_sendto(struct call *c)
{
    int fd = (int)c->arg[0];
    struct description *d = fd_find(fd);
    struct iovec v = {(void *)c->arg[1], (size_t)c->arg[2]};
    if (!d || d->kind != FD_SOCKET)
        return call_raw(c);
    if (fd_is_external(d))
        return send_held(c, fd, d, &v, 1, c->arg[3], (const void *)c->arg[4], (size_t)c->arg[5]);
    struct msghdr m = {.msg_iov = &v,
                       .msg_iovlen = 1,
                       .msg_name = (void *)c->arg[4],
                       .msg_namelen = c->arg[4] ? (socklen_t)c->arg[5] : 0};
    return send_inside(c, fd, d, &m, c->arg[3]);
}

/* Control data that only say which of our addresses the datagram is to come from. */
static bool says_source(struct msghdr *m, struct wire_address *source)
{
    struct sockaddr_in in = {.sin_family = AF_INET};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
    bool any = false;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
        struct in_pktinfo four;
        struct in6_pktinfo six;
        bool v4 = c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO && c->cmsg_len >= CMSG_LEN(sizeof four);
        bool v6 = c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO && c->cmsg_len >= CMSG_LEN(sizeof six);
        if (any || !(v4 || v6))
            return false;
        memcpy(v4 ? (void *)&four : (void *)&six, CMSG_DATA(c), v4 ? sizeof four : sizeof six);
        if (v4)
            in.sin_addr = four.ipi_spec_dst;
        else
            in6.sin6_addr = six.ipi6_addr;
        any = v4 ? address_read(source, &in, sizeof in) : address_read(source, &in6, sizeof in6);
    }
    return any;
}

/* Control data (descriptors, packet info) go with the bytes: not held, but only after the turn is durable. A peer is told by its
 * channel. */
static long send_controlled(struct call *c, int fd, struct description *d, struct msghdr *m, long flags)
{
    const struct fd_socket *s = d->socket;
    struct wire_address source;
    long total = vector_bytes(m->msg_iov, (long)m->msg_iovlen);
    bool inet = s && s->type == SOCK_DGRAM && (s->domain == AF_INET || s->domain == AF_INET6);
    bool usual = inet && s->bound && m->msg_name && total >= 0 && total <= DATAGRAM_MAX_4 && !(flags & UNHELD);
    if (usual && says_source(m, &source)) {
        bool plain;
        long r = peer_send(fd, d, &source, m->msg_name, m->msg_namelen, m->msg_iov, (int)m->msg_iovlen, (size_t)total, flags, &plain);
        if (!plain)
            return r;
    }
    return wait_flushed(c);
}

static long send_message(struct call *c, int fd, struct description *d, struct msghdr *m, long flags)
{
    if (!fd_is_external(d))
        return send_inside(c, fd, d, m, flags);
    if (m->msg_controllen && !stream_is(d))
        return send_controlled(c, fd, d, m, flags);
    return send_held(c, fd, d, m->msg_iov, (int)m->msg_iovlen, flags,
                     m->msg_namelen ? m->msg_name : NULL, m->msg_namelen);
}

long call_sendmsg(struct call *c)
{
    int fd = (int)c->arg[0];
    struct description *d = fd_find(fd);
    if (!d || d->kind != FD_SOCKET || (unsigned long)c->arg[1] < LOWEST_ADDRESS)
        return call_raw(c);
    return send_message(c, fd, d, (struct msghdr *)c->arg[1], c->arg[2]);
}

long call_sendmmsg(struct call *c)
{
    int fd = (int)c->arg[0];
    struct description *d = fd_find(fd);
    struct mmsghdr *m = (struct mmsghdr *)c->arg[1];
    if (!d || d->kind != FD_SOCKET || (unsigned long)c->arg[1] < LOWEST_ADDRESS)
        return wait_kernel(c);
    long sent = 0;
    for (; sent < c->arg[2] && sent < IOV_MAX; sent++) {
        struct call one = {.nr = SYS_sendmsg,
                           .arg = {fd, (long)&m[sent].msg_hdr, c->arg[3], 0, 0, 0},
                           .frame = c->frame};
        long r = send_message(&one, fd, d, &m[sent].msg_hdr, c->arg[3]);
        if (r < 0)
            return sent ? sent : r;
        m[sent].msg_len = (unsigned)r;
    }
    return sent;
}
