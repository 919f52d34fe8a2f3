/* Transports that begin here. */
#include "net/transport_inner.h"
#include "net/fdtable.h"
#include "net/host.h"
#include "heap/room.h"
#include "heap/fault.h"
#include "heap/sys.h"

#include <sys/un.h>

#define DOOR_MS 5000 /* for a door to speak: who has the port now may not be a peer */
#define LOOK_MS 500

long transport_dial(const char *name)
{
    struct sockaddr_un un;
    socklen_t length = transport_abstract(&un, name);
    long fd = sys_fd(SYS_socket, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return fd;
    long r = sys(SYS_connect, fd, &un, length);
    if (r == 0 && !transport_same_user((int)fd))
        r = -EPERM;
    if (r == 0)
        return fd_move_high((int)fd);
    sys(SYS_close, fd);
    return r;
}

int transport_connect(const char *name, struct channel *c)
{
    if (!transport_open_table())
        return -ENOMEM;
    long fd = transport_dial(name);
    if (fd < 0)
        return (int)fd;
    struct transport *t = transport_take_slot(c, false);
    if (!t) {
        sys(SYS_close, fd);
        return -ENOMEM;
    }
    link_open_raw(t->link, (int)fd);
    transport_start(t);
    transport_put_hello(t);
    transport_send(t);
    return 0;
}

static int dial_far(const struct wire_address *to, struct channel *c, bool asks, unsigned protocol)
{
    if (!transport_open_table())
        return -ENOMEM;
    struct transport *t = transport_take_slot(c, false);
    int r = t ? remote_dial(session_remote(), to, t->link) : -ENOMEM;
    if (r < 0)
        return r;
    t->far = true;
    t->other = *to;
    t->asks = asks;
    t->protocol = (uint8_t)protocol;
    t->overdue_ms = to->door ? (long)remote_now_ms() + DOOR_MS : 0;
    transport_start(t);
    transport_put_hello(t);
    transport_send(t);
    if (to->door && !transport_alarmed())
        transport_alarm(LOOK_MS);
    if (to->door)
        FAULT("door.dialed");
    return 0;
}

int transport_connect_far(const struct wire_address *to, struct channel *c)
{
    return dial_far(to, c, false, 0);
}

void transport_hang_up_overdue(void)
{
    bool any = false;
    for (unsigned i = 0; i < transport_table->used; i++) {
        struct transport *t = &transport_table->transports[i];
        if (t->state != STATE_GREETING || !t->overdue_ms || link_ready(t->link))
            continue;
        if ((long)remote_now_ms() > t->overdue_ms)
            transport_hang_up(t);
        else
            any = true;
    }
    if (any && !transport_alarmed())
        transport_alarm(LOOK_MS);
}

int transport_ask_far(unsigned protocol, const struct wire_address *to)
{
    for (unsigned i = 0; transport_table && i < transport_table->used; i++) {
        const struct transport *t = &transport_table->transports[i];
        if (t->state != STATE_FREE && t->asks && t->protocol == protocol && wire_same_address(&t->other, to))
            return 0;
    }
    return dial_far(to, NULL, true, protocol);
}
