/* Connections that are made here. One to a peer that has not answered yet, as far as anybody knows, is on its way as any other: it
 * is called when it is there. */
#include "net/address.h"
#include "net/peers_inner.h"
#include "net/stream_bell.h"
#include "net/trouble.h"
#include "heap/fault.h"
#include "heap/sys.h"

static uint32_t last_id;
static unsigned uncalled;

/* The port that the kernel would take; the number is free again at once, but that is how numbers are. */
static bool local_name(int fd, const struct fd_socket *sock, const struct wire_address *to, struct wire_address *local)
{
    struct sockaddr_storage a;
    socklen_t length = sizeof a;
    if (!sock->bound) {
        struct wire_address any = {0}, from;
        memcpy(any.bytes, to->bytes, 12);
        from = peers_source(&any, to);
        from.port = 0;
        trouble_none(sys(SYS_bind, fd, &a, address_write(&from, sock->domain, &a, sizeof a)), "choose a port");
    }
    length = sizeof a;
    if (sys(SYS_getsockname, fd, &a, &length) < 0 || !address_read(local, &a, length))
        return false;
    *local = peers_source(local, to);
    return true;
}

static int call(struct stream *s, struct channel *c)
{
    struct wire_route route = {.from = s->local, .to = s->remote};
    struct wire_head head = {.kind = WIRE_OPEN, .flags = WIRE_OPENER, .stream = s->id, .value = STREAM_WINDOW};
    int r = peers_produce(c, head, &route, sizeof route, NULL, 0, 0, 0);
    if (r == 0)
        s->channel = c;
    return r;
}

static struct stream *begin(const struct wire_route *route)
{
    struct stream *s = stream_make(NULL, ++last_id, true);
    if (!s)
        return NULL;
    s->state = STREAM_CONNECTING;
    s->awaited = true;
    s->local = route->from;
    s->remote = route->to;
    return s;
}

/* Takes the place of the kernel's socket. */
static int install(struct stream *s, int fd, struct description *d)
{
    long bell = bell_make(s);
    int r = bell < 0 ? (int)bell : bell_replace(d, (int)bell);
    if (r < 0 && bell >= 0)
        sys(SYS_close, bell);
    if (r < 0)
        return r;
    stream_adopt(d, s);
    bell_full(s, fd);
    return 0;
}

int stream_connect(int fd, struct description *d, const void *address, size_t length)
{
    struct wire_address to;
    struct wire_route route;
    if (!address_read(&to, address, length) || address_is_group(&to))
        return 1;
    route.to = address_target(&to);
    struct channel *c = peers_find(PROTOCOL_TCP, &route.to);
    bool awaited = !c && peers_awaited(PROTOCOL_TCP, &route.to);
    if (awaited && peers_stands_by())
        return -ENOBUFS;
    if ((!c && !awaited) || !(stream_of(d) || local_name(fd, d->socket, &route.to, &route.from)))
        return 1;
    if (stream_of(d)) { /* it was refused before, and asks again */
        route.from = stream_of(d)->local;
        stream_destroy(stream_of(d));
        d->socket->stream = NULL;
    }
    struct stream *s = begin(&route);
    int r = s ? install(s, fd, d) : -ENOMEM;
    if (r < 0) {
        if (s)
            stream_destroy(s);
        return r;
    }
    if (c && call(s, c) == 0)
        return 0;
    s->uncalled = true; /* or the channel is full */
    uncalled++;
    transport_alarm(RETRY_MS);
    return 0;
}

void stream_called(struct stream *s)
{
    uncalled -= s->uncalled;
    s->uncalled = false;
}

/* Who listed an address said that a peer has it; but within this host a plain process may have taken it meanwhile. */
static void call_again(struct stream *s)
{
    struct channel *c = peers_find(PROTOCOL_TCP, &s->remote);
    if (!c && peers_awaited(PROTOCOL_TCP, &s->remote))
        return;
    if (c && call(s, c) < 0)
        return;
    stream_called(s);
    if (!c && MUTANT("stream.never_plain", true, !stream_connect_plain(s)))
        stream_fail(s, ECONNREFUSED);
}

/* The peer does not listen there any more. On this host somebody else may have taken the address. */
void stream_refused(struct stream *s)
{
    bool far = peers_refused_by(PROTOCOL_TCP, &s->remote, s->channel);
    if (far || s->moved || s->state != STREAM_CONNECTING || !address_is_held(PROTOCOL_TCP, &s->remote)) {
        stream_fail(s, ECONNREFUSED);
        return;
    }
    s->moved = s->uncalled = true;
    s->channel = NULL;
    uncalled++;
    transport_alarm(RETRY_MS);
}

bool stream_any_uncalled(void)
{
    return uncalled;
}

bool stream_call_again(void)
{
    struct stream *s = uncalled ? stream_first : NULL;
    while (s && s->next)
        s = s->next;
    for (struct stream *later; s; s = later) { /* in the order in which they were made */
        later = s->before;
        if (s->uncalled)
            call_again(s);
    }
    return uncalled;
}
