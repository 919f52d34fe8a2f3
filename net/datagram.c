#define _GNU_SOURCE
#include "net/datagram.h"
#include "net/address.h"
#include "net/landing.h"
#include "net/outbox.h"
#include "net/peers_inner.h"
#include "net/pool.h"
#include "net/refusal.h"
#include "net/stream_bell.h"
#include "heap/fault.h"

#include <fcntl.h>

#define RETURNED_MOST 256 /* of what is on its way: as the kernel's, such answers may be lost */

/* A datagram that waits. */
struct letter {
    struct letter *next;
    struct channel *channel; /* NULL: gone; whom to tell that it was taken */
    struct wire_address from, to;
    uint32_t charged;
    uint32_t length;
    char *bytes; /* landing.h; not NULL when there are none */
};

struct mail {
    struct mail *next; /* of all */
    int32_t of;        /* description */
    struct letter *first, *last;
};

static struct mail *mails;
static unsigned unread;

void datagram_attach(struct description *d)
{
    struct fd_socket *s = d->socket;
    struct mail *m = s->mail ? NULL : pool_take(sizeof *m);
    if (!m)
        return;
    *m = (struct mail){.next = mails, .of = fd_index(d)};
    mails = m;
    s->mail = m;
}

static void remove_first(struct mail *m)
{
    struct letter *l = m->first;
    m->first = l->next;
    if (l->channel)
        l->channel->datagrams_taken += l->charged;
    peers_took(l->charged);
    unread--;
    landing_drop(l->bytes);
    pool_give(l);
}

void datagram_detach(struct fd_socket *s)
{
    struct mail *m = s->mail;
    if (!m)
        return;
    while (m->first)
        remove_first(m);
    for (struct mail **link = &mails; *link; link = &(*link)->next)
        if (*link == m) {
            *link = m->next;
            break;
        }
    pool_give(m);
    s->mail = NULL;
}

static bool local_of(const struct fd_socket *s, struct wire_address *local)
{
    return s->local && address_read(local, &s->local->at, s->local->length);
}

static bool remote_of(const struct fd_socket *s, struct wire_address *remote)
{
    return s->state == SOCK_CONNECTED && s->peer && address_read(remote, &s->peer->at, s->peer->length);
}

/* How well the socket fits a datagram: 0 not at all; connected before bound. */
static int fit(const struct fd_socket *s, const struct wire_route *route)
{
    struct wire_address local, remote;
    int f = s && local_of(s, &local) ? peers_fit(s, &local, &route->to) : 0;
    if (f && remote_of(s, &remote)) {
        remote = address_target(&remote);
        return wire_same_address(&remote, &route->from) ? 4 : 0;
    }
    return f;
}

static struct mail *mail_for(const struct wire_route *route)
{
    struct mail *best = NULL;
    int best_fit = 0;
    for (struct mail *m = mails; m; m = m->next) {
        const struct description *d = fd_description(m->of);
        int f = d && d->kind == FD_SOCKET && d->socket ? fit(d->socket, route) : 0;
        if (f > best_fit) {
            best = m;
            best_fit = f;
        }
    }
    return best;
}

static bool is_deaf(const struct mail *m)
{
    return fd_description(m->of)->socket->shut & 1;
}

static void give_back(struct channel *c, const struct wire_head *h, const unsigned char *body)
{
    struct wire_head head = {.kind = WIRE_RETURN};
    struct iovec v = {(void *)body, h->body};
    if (c->produced - c->acked < RETURNED_MOST)
        peers_produce(c, head, NULL, 0, &v, 1, 0, h->body);
}

void datagram_returned(struct channel *c, const struct wire_head *h, const unsigned char *body)
{
    struct wire_route route;
    memcpy(&route, body, sizeof route);
    struct wire_route back = {.from = route.to, .to = route.from};
    bool far = peers_refused_by(PROTOCOL_UDP, &route.to, c);
    const struct mail *m = mail_for(&back);
    int fd = m ? bell_number(m->of) : -1;
    if (fd < 0)
        return;
    struct description *d = fd_description(m->of);
    struct sockaddr_storage to;
    struct iovec v = {(void *)(body + sizeof route), h->body - sizeof route};
    if (far) {
        if (MUTANT("refusal.silent", false, true))
            refusal_cause(fd, d, &route.from, v.iov_base, v.iov_len);
        return;
    }
    bool connected = d->socket->state == SOCK_CONNECTED;
    size_t length = connected ? 0 : address_write(&route.to, d->socket->domain, &to, sizeof to);
    outbox_hold(fd, d, OUTPUT_DATAGRAM, 0, connected ? NULL : &to, length, &v, 1, 0, v.iov_len);
}

bool datagram_deliver(struct channel *c, const struct wire_head *h, const unsigned char *body)
{
    struct wire_route route;
    memcpy(&route, body, sizeof route);
    uint32_t length = h->body - (uint32_t)sizeof route;
    peers_learn(PROTOCOL_UDP, &route.from, c);
    struct mail *m = mail_for(&route);
    if (!m || is_deaf(m)) {
        c->datagrams_taken += h->body;
        if (!m)
            give_back(c, h, body);
        return true;
    }
    struct letter *l = pool_take(sizeof *l);
    if (!l)
        return false;
    *l = (struct letter){.channel = c, .from = route.from, .to = route.to, .charged = h->body, .length = length};
    if (!landing_keep(&l->bytes, body + sizeof route, length)) {
        pool_give(l);
        return false;
    }
    if (m->first)
        m->last->next = l;
    else
        m->first = l;
    m->last = l;
    unread++;
    transport_arrived();
    return true;
}

static size_t scatter(const struct letter *l, const struct msghdr *m)
{
    size_t done = 0;
    for (size_t i = 0; i < m->msg_iovlen && done < l->length; i++) {
        size_t n = l->length - done < m->msg_iov[i].iov_len ? l->length - done : m->msg_iov[i].iov_len;
        memcpy(m->msg_iov[i].iov_base, l->bytes + done, n);
        done += n;
    }
    return done;
}

static bool wants(const struct fd_socket *s, int level, int name)
{
    int on = 0;
    for (const struct sock_option *o = s->options; o; o = o->next)
        if (o->level == level && o->name == name)
            memcpy(&on, o->value, o->length < sizeof on ? o->length : sizeof on);
    return on;
}

static void put_control(struct msghdr *m, int level, int type, const void *data, size_t length)
{
    struct cmsghdr *c = m->msg_control;
    bool fits = c && m->msg_controllen >= CMSG_LEN(length);
    if (!fits) {
        m->msg_flags |= MSG_CTRUNC;
        m->msg_controllen = 0;
        return;
    }
    *c = (struct cmsghdr){.cmsg_len = CMSG_LEN(length), .cmsg_level = level, .cmsg_type = type};
    memcpy(CMSG_DATA(c), data, length);
    if (m->msg_controllen > CMSG_SPACE(length))
        m->msg_controllen = CMSG_SPACE(length);
}

/* Who serves several addresses with one socket asks which of them a datagram came to, so as to answer from it. */
static void tell_where(const struct fd_socket *s, const struct letter *l, struct msghdr *m)
{
    struct in_pktinfo four = {0};
    struct in6_pktinfo six = {0};
    if (s->domain == AF_INET && wants(s, IPPROTO_IP, IP_PKTINFO)) {
        four.ipi_ifindex = (int)address_interface(&l->to);
        memcpy(&four.ipi_addr, l->to.bytes + 12, 4);
        four.ipi_spec_dst = four.ipi_addr;
        put_control(m, IPPROTO_IP, IP_PKTINFO, &four, sizeof four);
    } else if (s->domain == AF_INET6 && wants(s, IPPROTO_IPV6, IPV6_RECVPKTINFO)) {
        six.ipi6_ifindex = address_interface(&l->to);
        memcpy(&six.ipi6_addr, l->to.bytes, 16);
        put_control(m, IPPROTO_IPV6, IPV6_PKTINFO, &six, sizeof six);
    } else {
        m->msg_controllen = 0;
    }
}

long datagram_take(struct description *d, struct msghdr *m, long flags)
{
    struct mail *mail = d->socket ? d->socket->mail : NULL;
    if (!mail || !mail->first || (flags & (MSG_ERRQUEUE | MSG_OOB)))
        return -EAGAIN;
    const struct letter *l = mail->first;
    size_t done = scatter(l, m);
    long result = flags & MSG_TRUNC ? (long)l->length : (long)done;
    if (m->msg_name)
        m->msg_namelen = (socklen_t)address_write(&l->from, d->socket->domain, m->msg_name, m->msg_namelen);
    m->msg_flags = done < l->length ? MSG_TRUNC : 0;
    tell_where(d->socket, l, m);
    if (!(flags & MSG_PEEK))
        remove_first(mail);
    return result;
}

bool datagram_waiting(const struct description *d, size_t *bytes)
{
    const struct mail *m = d->kind == FD_SOCKET && d->socket ? d->socket->mail : NULL;
    if (!m || !m->first)
        return false;
    if (bytes)
        *bytes = m->first->length;
    return true;
}

bool datagram_any(void)
{
    return unread != 0;
}

int datagram_send(int fd, struct description *d, const struct wire_address *source, const void *address,
                  size_t address_length, const struct iovec *v, int count, size_t total)
{
    struct fd_socket *s = d->socket;
    struct wire_address to, local;
    struct wire_route route;
    if (!(address ? address_read(&to, address, address_length) : remote_of(s, &to)) || address_is_group(&to))
        return 0;
    route.to = address_target(&to);
    struct channel *c = peers_find(PROTOCOL_UDP, &route.to);
    if (!c && peers_awaited(PROTOCOL_UDP, &route.to)) {
        peers_publish(fd, d); /* it may be us who is asked first */
        return -ENOBUFS;
    }
    if (!c || !local_of(s, &local))
        return 0;
    route.from = peers_source(&local, &to);
    if (source && !address_is_wildcard(source))
        memcpy(route.from.bytes, source->bytes, sizeof source->bytes);
    peers_publish(fd, d);
    if (channel_datagram_room(c) < total + sizeof route)
        return -ENOBUFS;
    struct wire_head head = {.kind = WIRE_DATAGRAM};
    int r = peers_produce(c, head, &route, sizeof route, v, count, 0, total);
    return r ? r : 1;
}

void datagram_orphan(const struct channel *c)
{
    for (struct mail *m = mails; m; m = m->next)
        for (struct letter *l = m->first; l; l = l->next)
            if (l->channel == c)
                l->channel = NULL;
}
