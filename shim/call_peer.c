#define _GNU_SOURCE
#include "shim/call_peer.h"
#include "net/datagram.h"
#include "net/stream.h"
#include "shim/call_signal.h"
#include "shim/call_wait.h"
#include "shim/turn.h"

#include <fcntl.h>

#define PATIENT_NS 100000000L
#define HURRIED_NS 10000000L

bool peer_receives(const struct description *d)
{
    return d->kind == FD_SOCKET && d->socket && d->socket->mail && transport_fd() >= 0;
}

long peer_receive(struct description *d, struct msghdr *m, long flags)
{
    if (!peer_receives(d))
        return -EAGAIN;
    long r = datagram_take(d, m, flags);
    if (r != -EAGAIN)
        return r;
    transport_pump();
    return datagram_take(d, m, flags);
}

long peer_receive_from(struct description *d, struct call *c)
{
    if (!peer_receives(d))
        return -EAGAIN;
    struct iovec v = {(void *)c->arg[1], (size_t)c->arg[2]};
    socklen_t *length = (socklen_t *)c->arg[5];
    struct msghdr m = {.msg_name = (void *)c->arg[4], .msg_iov = &v, .msg_iovlen = 1};
    if (m.msg_name && length)
        m.msg_namelen = *length;
    long r = peer_receive(d, &m, c->arg[3]);
    if (r >= 0 && m.msg_name && length)
        *length = m.msg_namelen;
    return r;
}

/* The channel is full, or a listed peer has not said yet who it is: the turn's frames go out, then the peer has to take some. A
 * datagram socket is always writable to poll(), so who does not wait asks again at once, for as long as the peer is down: it is
 * held up for a moment each time. */
static long make_room(const struct description *d, long flags, bool *ended)
{
    bool patient = !(d->flags & O_NONBLOCK) && !(flags & MSG_DONTWAIT);
    if (!patient && *ended)
        return -EAGAIN;
    if (peers_owe() || outbox_held())
        turn_end(TURN_FLUSH);
    *ended = true;
    long r = wait_peers(patient ? PATIENT_NS : HURRIED_NS, SYS_sendto);
    return patient ? r : 0;
}

/* What was said earlier is on its way while the program goes on: a full transport is served now and then. */
static long peer_sent(long total)
{
    if (peers_heavy())
        turn_end(TURN_FLUSH);
    else
        peers_serve();
    return total;
}

long peer_send(int fd, struct description *d, const struct wire_address *source, const void *address, size_t address_length,
               const struct iovec *v, int count, size_t total, long flags, bool *plain)
{
    bool ended = false;
    *plain = false;
    for (;;) {
        int sent = datagram_send(fd, d, source, address, address_length, v, count, total);
        if (sent == 0)
            *plain = true;
        if (sent >= 0)
            return sent ? peer_sent((long)total) : 0;
        long r = make_room(d, flags, &ended);
        *plain = call_passive; /* a child that might have become the program, and has not */
        if (r < 0 || *plain)
            return r;
    }
}

bool peer_readable(const struct description *d)
{
    return datagram_waiting(d, NULL) || (d->kind == FD_SOCKET && stream_pending(d));
}

bool peer_any(void)
{
    return datagram_any() || stream_any_pending();
}

void peer_count(const struct description *d, int *bytes)
{
    size_t length;
    if (datagram_waiting(d, &length))
        *bytes = (int)length;
}

bool peer_awake(void)
{
    return transport_fd() >= 0;
}

long peer_sleep(long clock, int64_t deadline)
{
    for (;;) {
        struct pollfd p[WAIT_EXTRAS];
        int64_t left = deadline - sys_clock_ns(clock);
        if (left <= 0)
            return 0;
        struct timespec limit = {left / 1000000000L, left % 1000000000L};
        int n = wait_extras(p);
        struct call c = {.nr = SYS_ppoll, .arg = {(long)p, n, (long)&limit, 0, 8, 0}};
        long r = signal_block_for(&c, SYS_clock_nanosleep);
        if (r < 0)
            return r;
        if (r > 0)
            wait_woken(p, n);
        if (r > 0 && wait_serve())
            return SIGNAL_AGAIN;
    }
}
