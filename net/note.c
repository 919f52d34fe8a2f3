/* Writing down what the program did to its sockets, as reopen_socket.c will repeat it. */
#define _GNU_SOURCE
#include "net/fdtable.h"
#include "net/pool.h"
#include "heap/sys.h"

#include <netinet/in.h>
#include <string.h>

#define OPTION_MAX 1024 /* bytes of one option's value */

static void keep_address(struct sock_address **at, const void *address, size_t length)
{
    if (length > sizeof(struct sockaddr_storage))
        length = sizeof(struct sockaddr_storage);
    if (!*at && !(*at = pool_take(sizeof **at)))
        return;
    (*at)->length = (socklen_t)length;
    memcpy(&(*at)->at, address, length);
}

/* Connections that linger after a kill keep their port from a new listener unless they had SO_REUSEADDR too, which
 * they inherit from the listener that accepted them: so it is set from the beginning, once the bind has succeeded by
 * the rules that the program chose. */
void fd_note_bound(int fd, struct description *d)
{
    struct sockaddr_storage a;
    socklen_t length = sizeof a;
    int on = 1;
    if (!fd_socket(d) || sys(SYS_getsockname, fd, &a, &length) < 0)
        return;
    if (d->socket->type == SOCK_STREAM && (a.ss_family == AF_INET || a.ss_family == AF_INET6))
        sys(SYS_setsockopt, fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    keep_address(&d->socket->local, &a, length);
    d->socket->bound = 1;
}

void fd_note_connected(int fd, struct description *d, const void *address, size_t length)
{
    struct fd_socket *s = fd_socket(d);
    if (!s)
        return;
    if (length >= sizeof(sa_family_t) && ((const struct sockaddr *)address)->sa_family == AF_UNSPEC) {
        s->state = s->bound ? SOCK_BOUND : SOCK_NEW;
        return;
    }
    s->state = SOCK_CONNECTED;
    keep_address(&s->peer, address, length);
    if (s->type == SOCK_DGRAM && !s->bound && (s->domain == AF_INET || s->domain == AF_INET6))
        fd_note_bound(fd, d);
}

/* Each of these adds to a list in the kernel, the others replace a value. */
static bool accumulates(int level, int name)
{
    if (level == IPPROTO_IP)
        return name >= IP_ADD_MEMBERSHIP && name <= MCAST_MSFILTER;
    if (level == IPPROTO_IPV6)
        return name == IPV6_JOIN_GROUP || name == IPV6_LEAVE_GROUP ||
               (name >= MCAST_JOIN_GROUP && name <= MCAST_MSFILTER);
    return false;
}

/* Values that are pointers, or that act once. */
static bool passing(int level, int name)
{
    return level == SOL_SOCKET && (name == SO_ATTACH_FILTER || name == SO_ATTACH_BPF ||
                                   name == SO_ATTACH_REUSEPORT_CBPF || name == SO_ATTACH_REUSEPORT_EBPF ||
                                   name == SO_PEEK_OFF);
}

void fd_note_option(struct description *d, int level, int name, const void *value, size_t length)
{
    struct fd_socket *s = fd_socket(d);
    if (!s || length > OPTION_MAX || (!value && length) || passing(level, name))
        return;
    struct sock_option **link = &s->options;
    for (; *link; link = &(*link)->next) {
        struct sock_option *o = *link;
        if (o->level == level && o->name == name && o->length == length && !accumulates(level, name)) {
            memcpy(o->value, value, length);
            return;
        }
    }
    struct sock_option *o = pool_take(sizeof *o + length);
    if (!o)
        return;
    *o = (struct sock_option){.level = level, .name = name, .length = (uint32_t)length};
    memcpy(o->value, value, length);
    *link = o;
}

void fd_note_inherited(struct description *d, const struct fd_socket *listener)
{
    d->socket->receive_timeout_ns = listener->receive_timeout_ns;
    d->socket->send_timeout_ns = listener->send_timeout_ns;
    for (const struct sock_option *o = listener->options; o; o = o->next)
        fd_note_option(d, o->level, o->name, o->value, o->length);
}

void fd_pair(int a, int b)
{
    struct description *da = fd_peek(a), *db = fd_peek(b);
    if (!da || !db)
        return;
    da->pair = fd_index(db);
    db->pair = fd_index(da);
    da->bits |= FD_INTERNAL;
    db->bits |= FD_INTERNAL;
    fd_touch(da);
    fd_touch(db);
}
