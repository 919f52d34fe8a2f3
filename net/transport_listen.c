/* Names that are listened at, and who comes in. */
#include "net/transport_inner.h"
#include "net/address.h"
#include "net/address_text.h"
#include "net/fdtable.h"
#include "net/host.h"
#include "net/peers_inner.h"
#include "net/trouble.h"
#include "heap/room.h"
#include "heap/fault.h"
#include "heap/sys.h"

#include <sys/epoll.h>
#include <sys/un.h>

#define MOMENT 10 /* ms */

static bool patient;

socklen_t transport_abstract(struct sockaddr_un *un, const char *name)
{
    size_t n = strlen(name);
    *un = (struct sockaddr_un){.sun_family = AF_UNIX};
    memcpy(un->sun_path + 1, name, n);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + n);
}

static struct listener *find_listener(const char *name)
{
    for (unsigned i = 0; i < transport_table->listeners; i++)
        if (!strcmp(transport_table->listening[i].name, name))
            return &transport_table->listening[i];
    return NULL;
}

static struct listener *free_listener(void)
{
    struct listener *l = find_listener("");
    return l ? l : transport_table->listeners < LISTENERS ? &transport_table->listening[transport_table->listeners++] : NULL;
}

static long listen_on(const char *name)
{
    struct sockaddr_un un;
    socklen_t length = transport_abstract(&un, name);
    long fd = sys_fd(SYS_socket, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return fd;
    fd = fd_move_high((int)fd);
    long r = sys(SYS_bind, fd, &un, length);
    for (int waited = 0; r == -EADDRINUSE && patient && waited < 500; waited++) {
        /* The killed process before us keeps its names until its memory is torn down. */
        sys(SYS_poll, NULL, 0, MOMENT);
        r = sys(SYS_bind, fd, &un, length);
    }
    if (r == 0)
        r = sys(SYS_listen, fd, 128);
    if (r < 0)
        sys(SYS_close, fd);
    return r < 0 ? r : fd;
}

static void enter(struct listener *l, long fd, const char *name, bool far, bool door)
{
    l->fd = (int)fd;
    l->far = far;
    l->door = door;
    memcpy(l->name, name, strlen(name) + 1);
    if (!transport_table->held)
        transport_watch(EPOLL_CTL_ADD, l->fd, EPOLLIN, TAG_LISTENER, (uint32_t)(l - transport_table->listening));
}

void transport_hold(unsigned ms)
{
    struct table *t = transport_table;
    if (!t || t->held == (ms != 0))
        return;
    t->held = ms != 0;
    for (uint32_t i = 0; i < t->listeners; i++)
        if (t->listening[i].name[0])
            transport_watch(ms ? EPOLL_CTL_DEL : EPOLL_CTL_ADD, t->listening[i].fd, EPOLLIN, TAG_LISTENER, i);
    if (ms)
        transport_alarm(ms);
}

int transport_listen(const char *name)
{
    if (!transport_open_table() || strlen(name) >= TRANSPORT_NAME)
        return -ENOMEM;
    if (find_listener(name))
        return 0;
    struct listener *l = free_listener();
    long fd = l ? trouble_none(listen_on(name), "listen for peers") : -E2BIG;
    if (fd < 0)
        return (int)fd;
    enter(l, fd, name, false, false);
    return 0;
}

/* The same for a port. */
static long listen_far(const struct wire_address *at, bool v6_only, bool beside)
{
    long fd = remote_listen(at, v6_only, beside);
    for (int waited = 0; fd == -EADDRINUSE && patient && waited < 50; waited++) {
        sys(SYS_poll, NULL, 0, MOMENT);
        fd = remote_listen(at, v6_only, beside);
    }
    return fd;
}

static void far_name(char *to, const struct wire_address *a)
{
    *to = '@';
    address_print(to + 1, a);
}

int transport_listen_far(const struct wire_address *at, bool v6_only)
{
    char name[TRANSPORT_NAME];
    far_name(name, at);
    if (!transport_open_table())
        return -ENOMEM;
    if (find_listener(name))
        return 0;
    struct listener *l = free_listener();
    long fd = l ? trouble_none(listen_far(at, v6_only, true), "listen for peers on other hosts") : -E2BIG;
    if (fd < 0)
        return (int)fd;
    enter(l, fd, name, true, false);
    l->port = at->port;
    return 0;
}

void transport_unlisten_far_port(in_port_t port)
{
    for (unsigned i = 0; transport_table && i < transport_table->listeners; i++) {
        const struct listener *l = &transport_table->listening[i];
        if (l->name[0] && l->far && !l->door && l->port == port)
            transport_unlisten(l->name);
    }
}

static long port_of(long fd)
{
    struct sockaddr_storage a;
    struct wire_address at;
    socklen_t length = sizeof a;
    long r = sys(SYS_getsockname, fd, &a, &length);
    return r < 0 ? r : address_read(&at, &a, length) ? at.port : -EINVAL;
}

long transport_listen_door(uint16_t port)
{
    static const char name[] = "door";
    struct wire_address at = {.port = port};
    struct listener *l = transport_open_table() ? find_listener(name) : NULL;
    if (l)
        return port_of(l->fd);
    l = transport_table ? free_listener() : NULL;
    long fd = l ? listen_far(&at, false, false) : -ENOSPC;
    if (fd == -EAFNOSUPPORT || fd == -EADDRNOTAVAIL) {
        at = address_any(&at, true);
        fd = listen_far(&at, false, false);
    }
    if (fd < 0)
        return fd;
    enter(l, fd, name, true, true);
    return port_of(fd);
}

void transport_unlisten_far(const struct wire_address *at)
{
    char name[TRANSPORT_NAME];
    far_name(name, at);
    transport_unlisten(name);
}

void transport_unlisten(const char *name)
{
    struct listener *l = transport_table && name[0] ? find_listener(name) : NULL;
    if (!l)
        return;
    sys(SYS_close, l->fd);
    l->name[0] = '\0';
}

bool transport_same_user(int fd)
{
    struct ucred who;
    socklen_t length = sizeof who;
    return sys(SYS_getsockopt, fd, SOL_SOCKET, SO_PEERCRED, &who, &length) == 0 &&
           who.uid == (uid_t)sys(SYS_geteuid);
}

void transport_inherit(bool on)
{
    patient = on;
}

void transport_accept(const struct listener *l)
{
    for (int k = 0; k < 64 && l->name[0]; k++) {
        long fd = sys_fd(SYS_accept4, l->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (trouble_is(fd))
            transport_hold(RETRY_MS);
        if (fd < 0)
            return;
        fd = fd_move_high((int)fd);
        struct transport *t = transport_same_user((int)fd) ? transport_take_slot(NULL, true) : NULL;
        if (!t) {
            sys(SYS_close, fd);
            continue;
        }
        link_open_raw(t->link, (int)fd);
        transport_start(t);
    }
}

/* Who did not finish the handshake in time makes room. */
static void drop_overdue(void)
{
    uint64_t now = remote_now_ms();
    for (unsigned i = 0; i < transport_table->used; i++) {
        struct transport *t = &transport_table->transports[i];
        if (t->state != STATE_FREE && t->ticket && !auth_gate_admits(&session_remote()->gate, t->ticket, now))
            transport_hang_up(t);
    }
}

void transport_accept_far(const struct listener *l)
{
    drop_overdue();
    for (int k = 0; k < 64 && l->name[0]; k++) {
        struct transport *t = transport_take_slot(NULL, true);
        int r = t ? remote_accept(session_remote(), l->fd, l->door, t->link, &t->other, &t->ticket) : -EAGAIN;
        if (trouble_is(r))
            transport_hold(RETRY_MS);
        if (r == -EAGAIN || trouble_is(r))
            return;
        if (r < 0)
            continue;
        t->far = true;
        transport_start(t);
        if (l->door)
            transport_send(t); /* who comes in waits for the first word */
        if (l->door)
            FAULT("door.entered");
    }
}
