#include "net/peers_far.h"
#include "net/address.h"
#include "net/address_text.h"
#include "net/host.h"
#include "net/pool.h"
#include "net/remote.h"
#include "net/remote_steer.h"
#include "net/trouble.h"
#include "heap/fault.h"
#include "heap/say.h"
#include "heap/sys.h"

/* In the image. */
struct far {
    struct far *next;
    const struct channel *channel;
    struct wire_address address, door; /* without a port: not known */
    unsigned dials;
    char name[ADDRESS_NAME_BYTES]; /* that the address was listed by; "": as an address */
};

static struct far *fars;
static uint16_t own_door;

#define DOOR_EVERY 4 /* dials: mostly the program's address is right, and its process just coming back */

bool far_listed(const struct wire_address *a)
{
    const struct remote *r = session_remote();
    return remote_any(r) && !address_is_loopback(a) && address_list_match(&r->list, a) == LISTED_YES;
}

static struct far *find(const struct channel *c)
{
    struct far *f = fars;
    while (f && f->channel != c)
        f = f->next;
    return f;
}

const struct wire_address *far_address(const struct channel *c)
{
    const struct far *f = fars ? find(c) : NULL;
    return f && f->address.port && session_remote() ? &f->address : NULL;
}

const struct wire_address *far_door(const struct channel *c)
{
    const struct far *f = fars ? find(c) : NULL;
    return f && f->door.port && session_remote() ? &f->door : NULL;
}

const struct wire_address *far_choose(const struct wire_address *at, const struct wire_address *door, unsigned *dials)
{
    if (!at || !door)
        return at ? at : door;
    return ++*dials % DOOR_EVERY ? at : door;
}

const struct wire_address *far_next(struct channel *c)
{
    struct far *f = fars ? find(c) : NULL;
    return f ? far_choose(far_address(c), far_door(c), &f->dials) : NULL;
}

uint16_t far_own_door(void)
{
    return own_door;
}

/* Without one, peers find us by the program's sockets alone. */
static void open_door(void)
{
    if (!remote_any(session_remote()) || MUTANT("door.shut", true, false))
        return;
    long port = transport_listen_door(own_door);
    if (port < 0 && own_door) /* somebody else has it now */
        port = transport_listen_door(0);
    own_door = port < 0 ? 0 : (uint16_t)port;
    FAULT("door.opened");
}

void far_resume(void)
{
    if (fars)
        open_door();
}

static struct far *make(struct channel *c)
{
    struct far *f = find(c);
    if (f || !(f = pool_take(sizeof *f)))
        return f;
    *f = (struct far){.next = fars, .channel = c};
    fars = f;
    if (!own_door)
        open_door();
    return f;
}

/* The address that it answered at last counts. */
void far_note(struct channel *c, const struct wire_address *a)
{
    struct far *f = make(c);
    if (!f)
        return;
    const char *name = address_list_name_of(&session_remote()->list, a);
    f->address = *a;
    f->name[0] = '\0';
    if (name)
        memcpy(f->name, name, strlen(name) + 1);
}

void far_note_door(struct channel *c, const struct wire_address *door)
{
    struct far *f = make(c);
    if (!f || wire_same_address(&f->door, door))
        return;
    f->door = *door;
    FAULT("door.told");
}

void far_follow(void)
{
    for (struct far *f = fars; f && session_remote(); f = f->next) {
        bool same_host = !memcmp(f->door.bytes, f->address.bytes, sizeof f->door.bytes);
        if (f->name[0])
            address_list_follow(&session_remote()->list, f->name, &f->address);
        if (same_host)
            memcpy(f->door.bytes, f->address.bytes, sizeof f->door.bytes);
    }
}

void far_forget(const struct channel *c)
{
    for (struct far **link = &fars; *link; link = &(*link)->next)
        if ((*link)->channel == c) {
            struct far *f = *link;
            *link = f->next;
            pool_give(f);
            return;
        }
}

static void listen_for(int fd, const struct wire_address *a)
{
    char text[ADDRESS_TEXT];
    int v6_only = 0;
    socklen_t length = sizeof v6_only;
    if (address_is_loopback(a))
        return;
    if (!address_is_v4(a))
        sys(SYS_getsockopt, fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6_only, &length);
    int r = transport_listen_far(a, v6_only);
    if (r == 0)
        return;
    address_print(text, a);
    say("cannot listen at TCP %s for peers on other hosts (%s); they cannot reach this socket", text, say_error(r));
}

static const struct fd_socket *socket_at(const struct description *d, in_port_t port, struct wire_address *a)
{
    const struct fd_socket *s = d && d->kind == FD_SOCKET ? d->socket : NULL;
    return s && s->local && address_read(a, &s->local->at, s->local->length) && a->port == port ? s : NULL;
}

void far_publish(in_port_t port)
{
    struct wire_address a;
    for (int fd = 0; remote_any(session_remote()) && fd <= fd_highest; fd++) {
        const struct fd_socket *s = socket_at(fd_peek(fd), port, &a);
        if (s && s->published)
            listen_for(fd, &a);
    }
}

void far_prepare(int fd, const struct fd_socket *s, const void *address, size_t length)
{
    struct wire_address a;
    if (!s || s->type != SOCK_STREAM || (s->domain != AF_INET && s->domain != AF_INET6) || !remote_any(session_remote()))
        return;
    if (address_read(&a, address, length) && a.port)
        transport_unlisten_far_port(a.port);
    long r = trouble_none(steer_prepare(&session_remote()->list, fd), "tell connections of peers from others");
    if (r < 0)
        say("this kernel cannot tell connections of peers from others (%s); peers on other hosts cannot connect", say_error(r));
}

void far_unpublish(const struct fd_socket *gone)
{
    struct wire_address a, b;
    if (!remote_any(session_remote()) || !gone->local || !address_read(&a, &gone->local->at, gone->local->length))
        return;
    bool shared = false;
    for (int i = 0; i < fd_descriptions(); i++) {
        const struct fd_socket *s = socket_at(fd_description(i), a.port, &b);
        shared |= s && s != gone && s->published && wire_same_address(&a, &b);
    }
    if (gone->published && !shared)
        transport_unlisten_far(&a);
    if (gone->type == SOCK_STREAM && gone->state == SOCK_BOUND)
        far_publish(a.port);
}
