#include "net/refusal.h"
#include "net/address.h"
#include "net/trouble.h"
#include "heap/room.h"
#include "heap/sys.h"

#include <netinet/in.h>

struct place {
    struct sockaddr_storage at;
    socklen_t length;
};

/* A socket at an address of this host, connected to itself: it takes nothing from others, and nobody else gets its port. */
static long open_deaf(int domain, const struct wire_address *own, struct place *p)
{
    struct wire_address any_port = *own;
    any_port.port = 0;
    p->length = (socklen_t)address_write(&any_port, domain, &p->at, sizeof p->at);
    long fd = trouble_none(sys_fd(SYS_socket, domain, SOCK_DGRAM | SOCK_CLOEXEC, 0), "tell that a port is closed");
    if (fd < 0)
        return fd;
    long r = sys(SYS_bind, fd, &p->at, p->length);
    if (r == 0)
        r = sys(SYS_getsockname, fd, &p->at, &p->length);
    if (r == 0)
        r = sys(SYS_connect, fd, &p->at, p->length);
    if (r < 0)
        sys(SYS_close, fd);
    return r < 0 ? r : fd;
}

static bool hears_of_all(const struct fd_socket *s)
{
    int on = 0;
    for (const struct sock_option *o = s->options; o; o = o->next)
        if (((o->level == IPPROTO_IP && o->name == IP_RECVERR) || (o->level == IPPROTO_IPV6 && o->name == IPV6_RECVERR)) &&
            o->length == sizeof on)
            memcpy(&on, o->value, sizeof on);
    return on;
}

void refusal_cause(int fd, const struct description *d, const struct wire_address *own, const void *text, size_t length)
{
    const struct fd_socket *s = d->socket;
    struct place deaf;
    bool connected = s->state == SOCK_CONNECTED && s->peer;
    if (!connected && !hears_of_all(s))
        return;
    long other = open_deaf(s->domain, own, &deaf);
    if (other < 0)
        return;
    if (connected && sys(SYS_connect, fd, &deaf.at, deaf.length) == 0) {
        sys(SYS_sendto, fd, text, length, MSG_DONTWAIT | MSG_NOSIGNAL, NULL, 0);
        trouble_none(sys(SYS_connect, fd, &s->peer->at, s->peer->length), "connect a socket again");
    } else if (!connected) {
        sys(SYS_sendto, fd, text, length, MSG_DONTWAIT | MSG_NOSIGNAL, &deaf.at, deaf.length);
    }
    sys(SYS_close, other);
}
