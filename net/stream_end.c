/* How connections between peers end: half, altogether, by a reset. */
#include "net/pool.h"
#include "net/stream_bell.h"
#include "heap/sys.h"

#include <netinet/tcp.h>

bool stream_over(const struct stream *s)
{
    const struct description *d = fd_description(s->of);
    unsigned shut = d && d->socket ? d->socket->shut : 0;
    return s->failed || ((s->ended || (shut & 1)) && (shut & 2));
}

int stream_shutdown(struct description *d, int how)
{
    struct stream *s = stream_of(d);
    if (how < 0 || how > 2)
        return -EINVAL;
    if (s->state != STREAM_OPEN || stream_tcp_state(d) == TCP_CLOSE)
        return -ENOTCONN;
    uint8_t bits = how == SHUT_RDWR ? 3 : (uint8_t)(1 << how);
    if ((bits & 2) && !(d->socket->shut & 2))
        stream_tell(s, WIRE_SHUTDOWN, 0);
    d->socket->shut |= bits;
    if ((d->socket->shut & 1) || s->ended)
        bell_end(s, stream_over(s));
    return 0;
}

int stream_take_error(struct description *d)
{
    struct stream *s = stream_of(d);
    int error = s->error;
    s->error = 0;
    bell_forgive(s);
    return -error;
}

void stream_fail(struct stream *s, int error)
{
    if (s->failed)
        return;
    s->failed = true;
    s->error = error;
    s->state = s->state == STREAM_CONNECTING ? STREAM_FAILED : s->state;
    bell_break(s, bell_number(s->of));
    stream_hand_in(s);
}

/* SO_LINGER with no time: close() resets. */
static bool resets(const struct fd_socket *sock)
{
    struct linger l = {0, 0};
    for (const struct sock_option *o = sock->options; o; o = o->next)
        if (o->level == SOL_SOCKET && o->name == SO_LINGER && o->length == sizeof l)
            memcpy(&l, o->value, sizeof l);
    return l.l_onoff && !l.l_linger;
}

void stream_closed(struct fd_socket *sock)
{
    struct stream *s = sock->stream;
    if (!s)
        return;
    sock->stream = NULL;
    if (s->loans) { /* a child's now */
        s->of = -1;
        bell_remove(s);
        stream_hand_in(s);
        return;
    }
    bool hard = s->unread || s->state == STREAM_CONNECTING || resets(sock);
    if (!s->failed)
        stream_tell(s, hard ? WIRE_RESET : WIRE_CLOSE, 0);
    stream_destroy(s);
}

void stream_close_all(void)
{
    for (struct stream *s = stream_first; s; s = s->next)
        if (!s->failed)
            stream_tell(s, s->unread ? WIRE_RESET : WIRE_CLOSE, 0);
}

void stream_peer_gone(struct channel *c)
{
    for (struct stream *s = stream_first; s; s = s->next)
        if (s->channel == c) {
            if (!s->ended || !s->deaf)
                stream_fail(s, s->state == STREAM_CONNECTING ? ECONNREFUSED : ECONNRESET);
            s->channel = NULL;
            s->deaf = true;
        }
}
