#define _GNU_SOURCE
#include "net/datagram.h"
#include "net/stream.h"
#include "net/host.h"
#include "net/inbox.h"
#include "net/nameless.h"
#include "net/pool.h"
#include "net/progress.h"
#include "heap/room.h"
#include "heap/say.h"
#include "heap/sys.h"

#include <fcntl.h>
#include <string.h>

struct slot fd_slots[FD_LIMIT];
int fd_highest = -1;

static struct description descriptions[FD_LIMIT];
static int used;           /* descriptions[0, used) have been in use */
static int first_free = -1;
static uint32_t serial;

struct description *fd_description(int index)
{
    return index >= 0 && index < used ? &descriptions[index] : NULL;
}

int fd_index(const struct description *d)
{
    return (int)(d - descriptions);
}

int fd_descriptions(void)
{
    return used;
}

static struct description *take_description(enum fd_kind kind, uint32_t flags)
{
    int index = first_free;
    if (index >= 0)
        first_free = descriptions[index].pair;
    else if (used < FD_LIMIT)
        index = used++;
    else
        return NULL;
    descriptions[index] = (struct description){
        .kind = (uint8_t)kind, .flags = flags, .origin = -1, .pair = -1, .serial = ++serial};
    return &descriptions[index];
}

static void give_socket(struct fd_socket *s)
{
    if (!s)
        return;
    stream_closed(s);
    peers_unpublish(s);
    datagram_detach(s);
    for (struct sock_option *o = s->options, *next; o; o = next) {
        next = o->next;
        pool_give(o);
    }
    pool_give(s->local);
    pool_give(s->peer);
    pool_give(s);
}

static void give_watches(struct inotify_watch *w)
{
    for (struct inotify_watch *next; w; w = next) {
        next = w->next;
        pool_give(w);
    }
}

/* An epoll that is gone watches nothing. */
static void forget_epoll(int epoll)
{
    for (int fd = 0; fd <= fd_highest; fd++) {
        struct epoll_watch **link = &fd_slots[fd].watches;
        while (*link) {
            struct epoll_watch *w = *link;
            if (w->epoll != epoll) {
                link = &w->next;
                continue;
            }
            *link = w->next;
            pool_give(w);
        }
    }
}

static void give_description(struct description *d)
{
    int index = fd_index(d);
    if (d->kind == FD_SOCKET) {
        if (d->socket && d->socket->pending)
            stream_listener_closed(index);
        give_socket(d->socket);
    } else if (d->kind == FD_INOTIFY) {
        give_watches(d->watches);
    } else if (d->kind == FD_EPOLL) {
        forget_epoll(index);
    } else {
        if ((d->bits & FD_NAMED) && d->file) {
            nameless_closed(d->file);
            pool_give(d->file->path);
        }
        pool_give(d->file);
    }
    inbox_close(d->inbox);
    pool_give(d->content);
    if (d->pair >= 0 && descriptions[d->pair].pair == index)
        descriptions[d->pair].pair = -1;
    d->kind = FD_FREE;
    d->bits = 0;
    d->pair = first_free;
    first_free = index;
}

bool fd_is_ours(int fd)
{
    return session_owns_fd(fd) || inbox_owns(fd) || transport_owns(fd) || stream_owns(fd) || progress_owns(fd) || outbox_owns(fd);
}

struct description *fd_peek(int fd)
{
    if ((unsigned)fd >= FD_LIMIT || !fd_slots[fd].description)
        return NULL;
    return &descriptions[fd_slots[fd].description - 1];
}

struct description *fd_find(int fd)
{
    struct description *d = fd_peek(fd);
    if (d || (unsigned)fd >= FD_LIMIT || fd_is_ours(fd))
        return d;
    return fd_adopt(fd, 0);
}

static void warn_limit(void)
{
    static bool told;
    if (!told)
        say("more than %d descriptors; those beyond are not restored", FD_LIMIT);
    told = true;
}

struct description *fd_enter(int fd, enum fd_kind kind, uint32_t flags)
{
    if (fd < 0)
        return NULL;
    if (fd >= FD_LIMIT) {
        warn_limit();
        return NULL;
    }
    if (fd_slots[fd].description)
        fd_forget(fd);
    struct description *d = take_description(kind, flags & ~(uint32_t)O_CLOEXEC);
    if (!d)
        return NULL;
    d->refs = 1;
    fd_slots[fd] = (struct slot){fd_index(d) + 1, !!(flags & O_CLOEXEC), NULL};
    if (fd > fd_highest)
        fd_highest = fd;
    return d;
}

/* The kernel drops a watch when the last descriptor of the description goes; a program that closes the number it
 * registered while a duplicate lives keeps a watch it cannot name any more. That one is dropped here at once: it is
 * not made again. */
static void drop_watches(int fd)
{
    for (struct epoll_watch *w = fd_slots[fd].watches, *next; w; w = next) {
        next = w->next;
        pool_give(w);
    }
    fd_slots[fd].watches = NULL;
}

void fd_forget(int fd)
{
    struct description *d = fd_peek(fd);
    if (!d)
        return;
    if (fd_slots[fd].watches)
        drop_watches(fd);
    fd_slots[fd].description = 0;
    if (--d->refs == 0)
        give_description(d);
}

void fd_duplicate(int from, int to, bool close_on_exec)
{
    struct description *d = fd_find(from);
    if (!d || from == to)
        return;
    if (to >= FD_LIMIT) {
        warn_limit();
        return;
    }
    d->refs++;
    fd_forget(to);
    fd_slots[to] = (struct slot){fd_index(d) + 1, close_on_exec, NULL};
    if (to > fd_highest)
        fd_highest = to;
}

void fd_set_close_on_exec(int fd, bool on)
{
    if (fd_peek(fd))
        fd_slots[fd].close_on_exec = on;
}

static void *part(struct description *d, void **at, size_t bytes)
{
    if (!*at && (*at = pool_take(bytes)))
        memset(*at, 0, bytes);
    return *at;
}

struct fd_socket *fd_socket(struct description *d)
{
    return part(d, (void **)&d->socket, sizeof *d->socket);
}

struct fd_event *fd_event(struct description *d)
{
    return part(d, (void **)&d->event, sizeof *d->event);
}

bool fd_is_external(const struct description *d)
{
    switch (d->kind) {
    case FD_TTY:
    case FD_FIFO:
        return !(d->bits & FD_EXEMPT);
    case FD_PIPE:
        return d->bits & (FD_SHARED | FD_BROKEN);
    case FD_SOCKET:
        return !(d->bits & FD_INTERNAL) || (d->bits & (FD_SHARED | FD_BROKEN));
    default:
        return false;
    }
}

bool fd_may_meet_peers(const struct description *d)
{
    return d->kind == FD_SOCKET && d->socket && (d->socket->domain == AF_INET || d->socket->domain == AF_INET6);
}

bool fd_is_stream(const struct description *d)
{
    return d->kind != FD_SOCKET || !d->socket || d->socket->type == SOCK_STREAM;
}

long fd_move_high(int fd)
{
    long start = room_start();
    long high = room_move(fd, fd_highest < start ? start : fd_highest + 1);
    return sys_failed(high) ? fd : high;
}

struct epoll_watch **fd_watch(int epoll, int fd)
{
    struct epoll_watch **link = &fd_slots[fd].watches;
    while (*link && (*link)->epoll != epoll)
        link = &(*link)->next;
    return link;
}

void fd_stand_by(void)
{
    peers_stand_by(true);
    stream_stand_by();
    outbox_forked();
    inbox_forked();
    for (int i = 0; i < used; i++) {
        descriptions[i].inbox = NULL;
        descriptions[i].bits &= (uint16_t)~FD_JOURNAL;
    }
}

void fd_take_over(void)
{
    peers_stand_by(false);
    for (int fd = 0; fd <= fd_highest; fd++) {
        struct description *d = fd_peek(fd);
        if (!d)
            continue;
        fd_touch(d);
        inbox_attach(d, fd);
        if (d->inbox)
            inbox_begin_here(d->inbox);
        if (d->kind == FD_SOCKET && d->socket)
            peers_publish(fd, d);
    }
    stream_take_over();
    peers_inherit_all();
}

static bool shared; /* some description is FD_SHARED */

void fd_forked(void)
{
    for (int i = 0; i < used; i++) {
        struct description *d = &descriptions[i];
        bool listens = d->kind == FD_SOCKET && d->socket && d->socket->state == SOCK_LISTENING;
        if (d->kind == FD_FREE || !(listens || (d->bits & FD_INTERNAL)))
            continue;
        d->bits |= d->bits & FD_INTERNAL ? FD_SHARED : FD_LENT;
        shared = true;
    }
}

void fd_pipe_size(struct description *d, long bytes)
{
    d->offset = bytes;
    if (d->kind == FD_PIPE && d->pair >= 0)
        descriptions[d->pair].offset = bytes;
}

bool fd_shares(void)
{
    return shared;
}

void fd_alone(void)
{
    shared = false;
    for (int i = 0; i < used; i++) {
        struct description *d = &descriptions[i];
        d->bits &= (uint16_t)~FD_LENT;
        if (d->kind == FD_FREE || !(d->bits & FD_SHARED))
            continue;
        if (d->held) {
            shared = true;
            continue;
        }
        d->bits &= (uint16_t)~FD_SHARED;
        fd_touch(d);
    }
}
