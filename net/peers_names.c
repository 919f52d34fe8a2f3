/* Who has which address: names that are listened at, and addresses that were asked for. */
#include "net/address.h"
#include "net/datagram.h"
#include "net/peers_far.h"
#include "net/peers_inner.h"
#include "net/pool.h"
#include "net/trouble.h"
#include "net/unsent.h"
#include "heap/fault.h"
#include "heap/room.h"
#include "heap/sys.h"

#include <fcntl.h>
#include <x86intrin.h>

#define BUCKETS 64
#define PLAIN 256                 /* addresses of plain processes remembered at a time */
#define PLAIN_TICKS (1UL << 28)   /* some 100 ms of the time stamp counter */

struct known {
    struct known *next;
    struct wire_address address;
    enum protocol protocol;
    bool closed; /* the peer had no such port when something came for it */
    struct channel *channel;
};

/* In the image. */
static struct known *known[BUCKETS];
static struct {
    struct wire_address address;
    uint32_t protocol; /* + 1; 0: nothing */
    uint64_t asked;
} plain[PLAIN];

static unsigned hash(enum protocol p, const struct wire_address *a)
{
    uint32_t h = a->port * 2654435761u + p * 97u;
    for (int i = 12; i < 16; i++)
        h = (h ^ a->bytes[i]) * 16777619u;
    return h ^ h >> 15;
}

static struct known **find_known(enum protocol p, const struct wire_address *a)
{
    struct known **link = &known[hash(p, a) % BUCKETS];
    while (*link && ((*link)->protocol != p || !wire_same_address(&(*link)->address, a)))
        link = &(*link)->next;
    return link;
}

void peers_learn(enum protocol p, const struct wire_address *a, struct channel *c)
{
    struct known **link = find_known(p, a), *k = *link;
    if (k) {
        if (k->channel != c || k->closed) {
            k->channel = c;
            k->closed = false;
        }
        return;
    }
    if (!(k = pool_take(sizeof *k)))
        return;
    *k = (struct known){.address = *a, .protocol = p, .channel = c};
    *link = k;
}

void peers_forget(const struct channel *c)
{
    for (unsigned i = 0; i < BUCKETS; i++) {
        struct known **link = &known[i];
        while (*link) {
            struct known *k = *link;
            if (k->channel != c) {
                link = &k->next;
                continue;
            }
            *link = k->next;
            pool_give(k);
        }
    }
}

static void forget(enum protocol p, const struct wire_address *a, const struct channel *c)
{
    struct known **link = find_known(p, a), *k = *link;
    if (!k || k->channel != c)
        return;
    *link = k->next;
    pool_give(k);
}

static void note_closed(enum protocol p, const struct wire_address *a, const struct channel *c)
{
    struct known *k = *find_known(p, a);
    if (k && k->channel == c)
        k->closed = true;
}

/* On another host it stays known: nobody answers for a port that is closed, and who is listed and does not answer is waited for. On
 * this one a port for datagrams is asked for anew each time; a connection begins by that. */
bool peers_refused_by(enum protocol p, const struct wire_address *a, const struct channel *c)
{
    bool far = peers_is_far(a);
    if (far)
        transport_ask_far(p, a);
    else if (p == PROTOCOL_UDP && MUTANT("refusal.forgotten", false, true))
        note_closed(p, a, c);
    else
        forget(p, a, c);
    return far;
}

unsigned peers_addresses(const struct channel *c, struct unsent_address *to, unsigned most)
{
    unsigned n = 0;
    for (unsigned i = 0; i < BUCKETS; i++)
        for (const struct known *k = known[i]; k && n < most; k = k->next)
            if (k->channel == c)
                to[n++] = (struct unsent_address){k->address, k->protocol};
    return n;
}

/* The source that the kernel takes for what goes there: 0 or -errno. */
static long ask_kernel(const struct wire_address *a, struct wire_address *from)
{
    int domain = address_is_v4(a) ? AF_INET : AF_INET6;
    struct sockaddr_storage to;
    socklen_t length = sizeof to;
    /* Without it an address of our own would count as a plain process's. */
    long fd = trouble_none(sys_fd(SYS_socket, domain, SOCK_DGRAM | SOCK_CLOEXEC, 0), "learn whose an address is");
    if (fd < 0)
        return fd;
    long r = sys(SYS_connect, fd, &to, address_write(a, domain, &to, sizeof to));
    trouble_none(r == -EAGAIN ? -ENOBUFS : r, "learn whose an address is"); /* EAGAIN: all ports are taken */
    if (r == 0)
        r = sys(SYS_getsockname, fd, &to, &length);
    sys(SYS_close, fd);
    return r == 0 && !address_read(from, &to, length) ? -EINVAL : r;
}

static bool kernel_source(const struct wire_address *a, struct wire_address *from)
{
    return ask_kernel(a, from) == 0;
}

/* Of a network that this host is in; a socket that was not told to may not send there. */
static bool is_broadcast(const struct wire_address *a)
{
    struct wire_address from;
    return address_is_v4(a) && ask_kernel(a, &from) == -EACCES;
}

/* An address of this host, other than the loopback ones: the source of what is sent there is the address itself. */
static bool is_own(const struct wire_address *a)
{
    struct wire_address from;
    return address_is_loopback(a) || (kernel_source(a, &from) && !memcmp(from.bytes, a->bytes, sizeof a->bytes));
}

bool peers_is_far(const struct wire_address *a)
{
    return far_listed(a) && !is_own(a);
}

struct wire_address peers_source(const struct wire_address *local, const struct wire_address *to)
{
    struct wire_address from;
    if (!address_is_wildcard(local) || address_is_loopback(to) || !far_listed(to) || !kernel_source(to, &from))
        return address_source(local, to);
    from.port = local->port;
    return from;
}

struct channel *peers_ask_at(enum protocol p, const struct wire_address *a)
{
    char name[TRANSPORT_NAME];
    struct channel *c;
    address_name(name, p, a);
    if ((c = peers_ask(name)))
        return c;
    for (int v4 = address_is_v4(a); v4 >= 0; v4--) {
        struct wire_address any = address_any(a, v4);
        address_name(name, p, &any);
        if ((c = peers_ask(name)))
            return c;
    }
    return NULL;
}

/* Who has come between the last look for its name and the look for its address has a name by now. */
bool peers_awaited(enum protocol p, const struct wire_address *a)
{
    if (!far_listed(a) || (p == PROTOCOL_UDP && is_broadcast(a)))
        return false;
    return !is_own(a) || !address_is_held(p, a) || peers_ask_at(p, a);
}

static bool stands_by;

void peers_stand_by(bool on)
{
    stands_by = on;
}

bool peers_stands_by(void)
{
    return stands_by;
}

/* Who was killed has the port again when it is back; only a plain process that has it now is another one. */
static struct channel *ask_again(struct known *k)
{
    struct channel *c = peers_ask_at(k->protocol, &k->address);
    if (c)
        peers_learn(k->protocol, &k->address, c);
    return c || address_is_held(k->protocol, &k->address) ? c : k->channel;
}

struct channel *peers_find(enum protocol p, const struct wire_address *a)
{
    if (stands_by)
        return NULL;
    struct known *k = *find_known(p, a);
    if (k)
        return k->closed ? ask_again(k) : k->channel;
    unsigned i = hash(p, a) % PLAIN;
    uint64_t now = __rdtsc();
    /* A connection is for long: that nobody was there a moment ago says nothing about now. */
    if (p == PROTOCOL_UDP && plain[i].protocol == p + 1 && wire_same_address(&plain[i].address, a) && now - plain[i].asked < PLAIN_TICKS)
        return NULL;
    bool to_all = p == PROTOCOL_UDP && is_broadcast(a);
    if (!to_all && peers_is_far(a)) {
        transport_ask_far(p, a);
        return NULL;
    }
    struct channel *c = !to_all && is_own(a) ? peers_ask_at(p, a) : NULL;
    if (c) {
        peers_learn(p, a, c);
        return c;
    }
    plain[i].address = *a;
    plain[i].protocol = p + 1;
    plain[i].asked = now;
    return NULL;
}

/* --- names of our own ---------------------------------------------------------------------------- */

static enum protocol protocol_of(const struct fd_socket *s)
{
    return s->type == SOCK_STREAM ? PROTOCOL_TCP : PROTOCOL_UDP;
}

static bool takes_v4_too(int fd)
{
    int only = 0;
    socklen_t length = sizeof only;
    sys(SYS_getsockopt, fd, IPPROTO_IPV6, IPV6_V6ONLY, &only, &length);
    return !only;
}

/* The names that lead to a socket with that address; how many. `both`: it takes IPv4, too. */
static uint8_t listen_at(const struct fd_socket *s, const struct wire_address *a, bool both)
{
    char name[TRANSPORT_NAME];
    peers_listen();
    address_name(name, protocol_of(s), a);
    transport_listen(name);
    if (!both)
        return 1;
    struct wire_address any = address_any(a, true);
    address_name(name, protocol_of(s), &any);
    transport_listen(name);
    return 2;
}

static bool is_both(int fd, const struct wire_address *a)
{
    return address_is_wildcard(a) && !address_is_v4(a) && takes_v4_too(fd);
}

int peers_fit(const struct fd_socket *s, const struct wire_address *local, const struct wire_address *to)
{
    if (local->port != to->port)
        return 0;
    if (!address_is_wildcard(local))
        return wire_same_address(local, to) ? 3 : 0;
    if (address_is_v4(local) == address_is_v4(to))
        return 2;
    return s->published == 2;
}

void peers_announce(int fd, struct description *d, const struct wire_address *a)
{
    if (!d->socket->published && a->port)
        listen_at(d->socket, a, is_both(fd, a));
}

static bool has_twin(const struct fd_socket *s, const struct wire_address *a)
{
    struct wire_address other;
    for (int i = 0; i < fd_descriptions(); i++) {
        const struct description *d = fd_description(i);
        if (d->kind == FD_SOCKET && d->socket && d->socket != s && d->socket->published && d->socket->type == s->type &&
            d->socket->local && address_read(&other, &d->socket->local->at, d->socket->local->length) &&
            wire_same_address(&other, a))
            return true;
    }
    return false;
}

static void unlisten_at(const struct fd_socket *s, const struct wire_address *a, bool both)
{
    char name[TRANSPORT_NAME];
    address_name(name, protocol_of(s), a);
    transport_unlisten(name);
    if (both) {
        struct wire_address any = address_any(a, true);
        address_name(name, protocol_of(s), &any);
        transport_unlisten(name);
    }
}

void peers_renounce(int fd, struct description *d, const struct wire_address *a)
{
    if (!d->socket->published && a->port && !has_twin(d->socket, a))
        unlisten_at(d->socket, a, is_both(fd, a));
}

void peers_announce_again(void)
{
    struct wire_address a;
    transport_inherit(true);
    for (int fd = 0; fd <= fd_highest; fd++) {
        const struct description *d = fd_peek(fd);
        const struct fd_socket *s = d && d->kind == FD_SOCKET ? d->socket : NULL;
        if (s && s->published && s->local && address_read(&a, &s->local->at, s->local->length))
            listen_at(s, &a, s->published == 2);
    }
    transport_inherit(false);
}

void peers_publish(int fd, struct description *d)
{
    struct fd_socket *s = d->socket;
    struct wire_address a;
    bool inet = s && (s->domain == AF_INET || s->domain == AF_INET6);
    bool fits = inet && ((s->type == SOCK_DGRAM && s->protocol != IPPROTO_ICMP && s->protocol != IPPROTO_ICMPV6) ||
                         (s->type == SOCK_STREAM && s->state == SOCK_LISTENING));
    if (stands_by || !fits || s->published || !s->local || !address_read(&a, &s->local->at, s->local->length) || !a.port)
        return;
    s->published = listen_at(s, &a, is_both(fd, &a));
    far_publish(a.port);
    if (s->type == SOCK_DGRAM)
        datagram_attach(d);
}

void peers_unpublish(const struct fd_socket *s)
{
    struct wire_address a;
    far_unpublish(s);
    if (!s->published || !s->local || !address_read(&a, &s->local->at, s->local->length))
        return;
    unlisten_at(s, &a, s->published == 2);
}
