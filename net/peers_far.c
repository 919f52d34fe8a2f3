#include "net/peers_far.h"
#include "net/address.h"
#include "net/address_text.h"
#include "net/host.h"
#include "net/pool.h"
#include "net/remote.h"
#include "net/remote_steer.h"
#include "net/trouble.h"
#include "heap/say.h"
#include "heap/sys.h"

/* In the image. */
struct far {
    struct far *next;
    const struct channel *channel;
    struct wire_address address;
    char name[ADDRESS_NAME_BYTES]; /* that the address was listed by; "": as an address */
};

static struct far *fars;

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
    return f && session_remote() ? &f->address : NULL;
}

/* The address that it answered at last counts. */
void far_note(struct channel *c, const struct wire_address *a)
{
    struct far *f = find(c);
    if (!f && (f = pool_take(sizeof *f))) {
        *f = (struct far){.next = fars, .channel = c};
        fars = f;
    }
    if (!f)
        return;
    const char *name = address_list_name_of(&session_remote()->list, a);
    f->address = *a;
    f->name[0] = '\0';
    if (name)
        memcpy(f->name, name, strlen(name) + 1);
}

void far_follow(void)
{
    for (struct far *f = fars; f && session_remote(); f = f->next)
        if (f->name[0])
            address_list_follow(&session_remote()->list, f->name, &f->address);
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

void far_publish(int fd, const struct fd_socket *s, const struct wire_address *a)
{
    char text[ADDRESS_TEXT];
    int v6_only = 0;
    socklen_t length = sizeof v6_only;
    if (!remote_any(session_remote()) || address_is_loopback(a))
        return;
    if (!address_is_v4(a))
        sys(SYS_getsockopt, fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6_only, &length);
    int r = transport_listen_far(a, v6_only, s->type == SOCK_STREAM);
    if (r == 0)
        return;
    address_print(text, a);
    say("cannot listen at TCP %s for peers on other hosts (%s); they cannot reach this socket", text, say_error(r));
}

void far_prepare(int fd, const struct fd_socket *s)
{
    if (!s || s->type != SOCK_STREAM || (s->domain != AF_INET && s->domain != AF_INET6) || !remote_any(session_remote()))
        return;
    long r = trouble_none(steer_prepare(&session_remote()->list, fd), "tell connections of peers from others");
    if (r < 0)
        say("this kernel cannot tell connections of peers from others (%s); peers on other hosts cannot connect", say_error(r));
}

void far_unpublish(const struct wire_address *a)
{
    if (remote_any(session_remote()))
        transport_unlisten_far(a);
}
