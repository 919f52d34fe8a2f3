/* Sockets: making, naming, connecting, accepting, options. */
#define _GNU_SOURCE
#include "net/peers_far.h"
#include "net/stream.h"
#include "net/pool.h"
#include "shim/call_names.h"
#include "shim/call_net.h"
#include "shim/call_signal.h"
#include "shim/call_stream.h"
#include "shim/call_wait.h"
#include "shim/turn.h"

#include "heap/fault.h"
#include "heap/session.h"
#include "heap/sys.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

#define BIND_WAIT_MS 2000 /* from the start of this process */
#define BIND_AGAIN_MS 10

static uint32_t status_flags(long type)
{
    return O_RDWR | (type & SOCK_NONBLOCK ? O_NONBLOCK : 0) | (type & SOCK_CLOEXEC ? O_CLOEXEC : 0);
}

static struct fd_socket *enter(int fd, long domain, long type, long protocol)
{
    struct description *d = fd_enter(fd, FD_SOCKET, status_flags(type));
    struct fd_socket *s = d ? fd_socket(d) : NULL;
    if (s) {
        s->domain = (int16_t)domain;
        s->type = (int16_t)(type & ~(SOCK_NONBLOCK | SOCK_CLOEXEC));
        s->protocol = (int16_t)protocol;
    }
    return s;
}

long call_socket(struct call *c)
{
    long fd = call_raw(c);
    if (fd >= 0)
        enter((int)fd, c->arg[0], c->arg[1], c->arg[2]);
    return fd;
}

long call_socketpair(struct call *c)
{
    long r = call_raw(c);
    const int *ends = (const int *)c->arg[3];
    if (r < 0)
        return r;
    for (int i = 0; i < 2; i++) {
        struct fd_socket *s = enter(ends[i], c->arg[0], c->arg[1], c->arg[2]);
        if (s)
            s->state = SOCK_CONNECTED;
    }
    fd_pair(ends[0], ends[1]);
    return r;
}

static struct description *socket_of(struct call *c)
{
    struct description *d = fd_find((int)c->arg[0]);
    return d && d->kind == FD_SOCKET && fd_socket(d) ? d : NULL;
}

/* Who was killed may hold its port still when its store is free: a child that was to become the program sees its parent's end a
 * moment later, and the kernel closes sockets last. */
static long bind_after(struct call *c)
{
    const int64_t until = (int64_t)session->started_ns + BIND_WAIT_MS * 1000000L;
    long r = call_raw(c);
    while (r == -EADDRINUSE && MUTANT("bind.impatient", false, session->succeeds) && sys_clock_ns(CLOCK_MONOTONIC) < until) {
        sys(SYS_poll, NULL, 0, BIND_AGAIN_MS);
        r = call_raw(c);
    }
    return r;
}

/* The path of a UNIX socket that has one, else "". */
static const char *path_of(const struct sockaddr_storage *at, socklen_t length, char path[sizeof(struct sockaddr_un) + 1])
{
    const struct sockaddr_un *name = (const struct sockaddr_un *)at;
    size_t before = offsetof(struct sockaddr_un, sun_path);
    memset(path, 0, sizeof(struct sockaddr_un) + 1);
    if (length > before && length <= sizeof *name && name->sun_family == AF_UNIX && name->sun_path[0])
        memcpy(path, name->sun_path, length - before);
    return path;
}

static long bind_named(struct call *c, const struct sockaddr_storage *at, socklen_t length)
{
    char path[sizeof(struct sockaddr_un) + 1];
    bool new = *path_of(at, length, path) && names_making(AT_FDCWD, path, true);
    long r = bind_after(c);
    if (new && r < 0)
        names_not_made(AT_FDCWD, path);
    return r;
}

long call_bind(struct call *c)
{
    struct description *d = socket_of(c);
    struct sockaddr_storage at;
    struct wire_address a;
    socklen_t length = (socklen_t)c->arg[2];
    if (!d || length > sizeof at || !fault_copy(&at, (const void *)c->arg[1], length))
        length = 0;
    bool inet = d && address_read(&a, &at, length);
    bool udp = inet && d->socket->type == SOCK_DGRAM && (!d->socket->protocol || d->socket->protocol == IPPROTO_UDP);
    bool names = udp && d->socket->state == SOCK_NEW && !peers_stands_by();
    if (d)
        far_prepare((int)c->arg[0], d->socket, &at, length);
    if (names)
        peers_announce((int)c->arg[0], d, &a);
    long r = bind_named(c, &at, length);
    if (names && r < 0)
        peers_renounce((int)c->arg[0], d, &a);
    if (inet && r < 0)
        far_publish(a.port);
    if (d && r == 0) {
        fd_note_bound((int)c->arg[0], d);
        if (d->socket->state == SOCK_NEW)
            d->socket->state = SOCK_BOUND;
        if (d->socket->type == SOCK_DGRAM)
            peers_publish((int)c->arg[0], d);
    }
    return r;
}

long call_listen(struct call *c)
{
    struct description *d = socket_of(c);
    struct wire_address a;
    bool bound = d && d->socket->type == SOCK_STREAM && d->socket->state == SOCK_BOUND && d->socket->local &&
                 address_read(&a, &d->socket->local->at, d->socket->local->length);
    if (bound)
        peers_announce((int)c->arg[0], d, &a);
    long r = call_raw(c);
    if (bound && r < 0)
        peers_renounce((int)c->arg[0], d, &a);
    if (d && r == 0) {
        d->socket->state = SOCK_LISTENING;
        d->socket->backlog = (int32_t)c->arg[1];
        fd_note_bound((int)c->arg[0], d);
        peers_publish((int)c->arg[0], d);
    }
    return r;
}

/* A stream that connects waits for the outside; the turn ends first. -EISCONN after an interrupted or restored wait
 * is what the kernel would say, too. */
long call_connect(struct call *c)
{
    int fd = (int)c->arg[0];
    struct description *d = socket_of(c);
    if (!d)
        return call_raw(c);
    bool plain;
    long dialed = stream_dial(c, fd, d, &plain);
    if (!plain)
        return dialed;
    wait_drain(fd);
    bool waits = fd_is_stream(d) && !(d->flags & O_NONBLOCK);
    if (waits) {
        turn_end(TURN_WAIT);
        /* A peer may have begun to listen while the turn was committed. */
        dialed = stream_dial(c, fd, d, &plain);
        if (!plain)
            return dialed;
    }
    long r = waits ? wait_kernel(c) : call_raw(c);
    if (r == 0 || r == -EINPROGRESS)
        fd_note_connected(fd, d, (const void *)c->arg[1], (size_t)c->arg[2]);
    return r;
}

/* accept() of a listener that peers may reach: theirs come first. */
static long take_peer(struct call *c)
{
    struct description *d = fd_peek((int)c->arg[0]);
    long flags = c->nr == SYS_accept4 ? c->arg[3] : 0;
    if (transport_fd() < 0 || !d || !d->socket || !d->socket->published)
        return -EAGAIN;
    long fd = stream_take(c, d, flags);
    if (fd != -EAGAIN)
        return fd;
    transport_pump();
    return stream_take(c, d, flags);
}

static long try_accept_now(struct call *c)
{
    long fd = take_peer(c);
    return fd != -EAGAIN ? fd : call_raw(c);
}

static long try_accept(struct call *c)
{
    long fd = take_peer(c);
    if (fd != -EAGAIN)
        return fd;
    long ready = wait_peek((int)c->arg[0], POLLIN);
    if (ready <= 0)
        return ready ? ready : -EAGAIN;
    return call_raw(c);
}

static long accept_as(struct call *c, long flags)
{
    struct description *d = socket_of(c);
    if (!d)
        return call_raw(c);
    struct waiting w = {
        .fd = (int)c->arg[0],
        .events = POLLIN,
        .nonblocking = d->flags & O_NONBLOCK,
        .timeout_ns = d->socket->receive_timeout_ns,
        .accounts = true,
        .attempt = d->flags & O_NONBLOCK ? try_accept_now : try_accept,
        .blocking = c,
    };
    long fd = wait_rhythm(c, &w);
    if (fd >= 0 && !stream_is(fd_peek((int)fd))) {
        d = fd_peek((int)c->arg[0]);
        struct fd_socket *s = d && d->socket
                                  ? enter((int)fd, d->socket->domain, d->socket->type | flags,
                                          d->socket->protocol)
                                  : NULL;
        if (s) {
            s->state = SOCK_CONNECTED;
            s->receive_timeout_ns = d->socket->receive_timeout_ns;
            s->send_timeout_ns = d->socket->send_timeout_ns;
        }
    }
    return fd;
}

long call_accept(struct call *c)
{
    return accept_as(c, 0);
}

long call_accept4(struct call *c)
{
    return accept_as(c, c->arg[3]);
}

long call_shutdown(struct call *c)
{
    struct description *d = socket_of(c);
    if (stream_is(d))
        return stream_shutdown(d, (int)c->arg[1]);
    if (d)
        wait_drain((int)c->arg[0]);
    long r = call_raw(c);
    if (d && r == 0)
        d->socket->shut |= c->arg[1] == SHUT_RDWR ? 3 : (uint8_t)(1 << c->arg[1]);
    return r;
}
