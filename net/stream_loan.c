/* Connections that a child of fork uses. The child has no channels: for each connection it gets one end of a socketpair, and its
 * parent's libken, at the other end, carries the bytes, as long as the parent lives.
 *
 * What the child writes always goes to the peer. What comes in goes to the child as soon as the parent has closed its own
 * descriptors, as forking servers do; before that it is the parent's. A connection without a descriptor of the parent ends when the
 * last child has closed it. A listener that children have, too, may be theirs alone: a peer's connection that the parent does not accept
 * for a moment is passed on through the kernel. The pairs are of this incarnation: a parent that resumes resets what only a child had. */
#include "net/peers_inner.h"
#include "net/pool.h"
#include "net/stream_bell.h"
#include "net/trouble.h"
#include "heap/room.h"
#include "heap/fault.h"
#include "heap/sys.h"

#include <poll.h>
#include <sys/epoll.h>

#define LENT_MOST 64     /* connections of one fork: those that were made last */
#define TICKS_WAITED 4   /* for the parent to accept it itself */
#define CARRIED 32768u   /* bytes at a time */

struct loan {
    struct loan *next, *same; /* of all, of the stream */
    struct stream *stream;
    int32_t fd;       /* libken's end */
    int32_t child_fd; /* between the two halves of a fork */
    uint32_t watched; /* epoll's events */
    bool ended;       /* the child writes no more */
};

static struct loan *loans;

static bool lend(struct stream *s)
{
    int ends[2];
    if (trouble_none(sys_fd(SYS_socketpair, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), "lend a stream to a child") < 0)
        return false;
    long high = trouble_none(bell_high(ends[1]), "lend a stream to a child");
    struct loan *l = high < 0 ? NULL : pool_take(sizeof *l);
    if (!l) {
        sys(SYS_close, ends[0]);
        if (high >= 0)
            bell_close((int)high);
        return false;
    }
    *l = (struct loan){.next = loans, .same = s->loans, .stream = s, .fd = (int32_t)high, .child_fd = ends[0]};
    loans = l;
    s->loans = l;
    return true;
}

void stream_lend(void)
{
    unsigned n = 0;
    for (struct stream *s = stream_first; s && n < LENT_MOST; s = s->next)
        if (s->of >= 0 && s->state == STREAM_OPEN && !s->failed)
            n += lend(s);
    if (n)
        FAULT("loan.lent");
}

static void watch(struct loan *l, uint32_t events)
{
    if (l->watched == events)
        return;
    transport_watch_loan(l->watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, l->fd, events | EPOLLET);
    l->watched = events;
}

static void end_loan(struct loan *l)
{
    struct loan **link = &loans;
    while (*link != l)
        link = &(*link)->next;
    *link = l->next;
    for (link = &l->stream->loans; *link != l;)
        link = &(*link)->same;
    *link = l->same;
    bell_close(l->fd);
    pool_give(l);
}

void stream_lent(bool child)
{
    for (struct loan *l = loans, *next; l; l = next) {
        next = l->next;
        if (l->child_fd < 0)
            continue;
        sys(SYS_close, l->child_fd);
        l->child_fd = -1;
        if (!child)
            end_loan(l);
        else
            watch(l, EPOLLIN);
    }
    if (child && loans)
        FAULT("loan.begun");
    if (child && stream_any_pending())
        transport_alarm(RETRY_MS);
}

/* Interest lists are the parent's: an epoll that both have would tell it of what the child's end does, even after the parent has
 * taken the connection off the list. */
static void take_over(const struct stream *s)
{
    const struct description *d = fd_description(s->of);
    const struct loan *l = s->loans;
    int ends[2];
    if (d && l && l->child_fd >= 0) {
        bell_put(d, l->child_fd);
    } else if (d && trouble_none(sys_fd(SYS_socketpair, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), "end a child's stream") == 0) {
        sys(SYS_close, ends[1]);
        bell_put(d, ends[0]);
    }
}

void stream_spawned(void)
{
    for (const struct stream *s = stream_first; s; s = s->next)
        take_over(s);
}

void stream_forked(void)
{
    for (struct stream *s = stream_first; s; s = s->next) {
        bell_remove(s);
        take_over(s);
    }
    for (struct loan *l = loans; l; l = l->next)
        bell_close(l->fd);
}

void stream_stand_by(void)
{
    stream_loans_lost();
}

void stream_take_over(void)
{
    for (struct stream *s = stream_first; s; s = s->next) {
        struct description *d = fd_description(s->of);
        long made = d ? trouble_none(stream_reopen(d), "take over a stream") : -1;
        if (made >= 0)
            trouble_none(bell_replace(d, (int)made), "take over a stream");
    }
}

/* --- carrying ------------------------------------------------------------------------------------ */

static bool is_childs(const struct stream *s)
{
    return s->of < 0 && s->listener < 0 && s->loans;
}

static void hand_in(struct stream *s)
{
    struct loan *l = s->loans;
    while (s->unread) {
        const struct chunk *k = s->first;
        long n = sys(SYS_sendto, l->fd, k->bytes + k->at, k->length - k->at, MSG_DONTWAIT | MSG_NOSIGNAL, NULL, 0);
        if (trouble_none(n, "hand a child its input") <= 0)
            break;
        stream_consume(s, (size_t)n);
        FAULT("loan.handed_in");
    }
    watch(l, s->unread ? EPOLLIN | EPOLLOUT : EPOLLIN);
    if (!s->unread && (s->ended || s->failed))
        sys(SYS_shutdown, l->fd, s->failed ? SHUT_RDWR : SHUT_WR);
}

void stream_hand_in(struct stream *s)
{
    if (is_childs(s))
        hand_in(s);
}

/* The last child has closed it, and the parent has not got it either. */
static void finish(struct stream *s)
{
    if (!s->failed)
        stream_tell(s, s->unread ? WIRE_RESET : WIRE_CLOSE, 0);
    stream_destroy(s);
}

static void child_ended(struct loan *l, bool altogether)
{
    struct stream *s = l->stream;
    bool childs = is_childs(s);
    if (!altogether && childs && !l->ended && !s->failed)
        stream_tell(s, WIRE_SHUTDOWN, 0);
    l->ended = true;
    if (!altogether)
        return;
    end_loan(l);
    FAULT("loan.ended");
    if (childs && !s->loans)
        finish(s);
    else
        stream_hand_in(s);
}

/* False: nothing more is to be had from it now. */
static bool carry(struct loan *l, bool hung_up)
{
    static char bytes[CARRIED];
    struct stream *s = l->stream;
    size_t room = s->failed || s->deaf || !s->channel ? sizeof bytes : stream_room(s);
    long n = sys(SYS_recvfrom, l->fd, bytes, room < sizeof bytes ? room : sizeof bytes, MSG_DONTWAIT, NULL, NULL);
    if (n == 0 && room)
        child_ended(l, hung_up);
    if (n < 0 && n != -EAGAIN && n != -EINTR)
        child_ended(l, true); /* it closed with input unread */
    if (n <= 0)
        return false;
    if (!s->failed && !s->deaf && s->channel) {
        struct iovec v = {bytes, (size_t)n};
        if (stream_put(s, &v, 1, 0, (size_t)n) < 0)
            stream_fail(s, ECONNRESET); /* out of memory: the bytes cannot be put back */
        FAULT("loan.carried");
    }
    return true;
}

static void look(struct loan *l)
{
    struct pollfd p = {l->fd, POLLIN, 0};
    while (sys(SYS_poll, &p, 1, 0) == -EINTR)
        ; /* an edge is told once */
    while ((p.revents & POLLIN) && carry(l, p.revents & POLLHUP))
        ;
}

void stream_look_at_loans(void)
{
    for (struct loan *l = loans, *next; l; l = next) {
        next = l->next;
        stream_hand_in(l->stream);
        look(l);
    }
}

void stream_window_opened(struct stream *s)
{
    for (struct loan *l = s->loans, *next; l; l = next) {
        next = l->same;
        look(l);
    }
}

/* --- listeners that children have, too -------------------------------------------------------------- */

/* A connection of the kernel's to the listener: whoever accepts it, the parent carries its bytes. */
static void pass_on(struct stream *s, struct description *listener)
{
    const struct sock_address *at = listener->socket->local;
    long fd = sys_fd(SYS_socket, listener->socket->domain, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || (fd = bell_high((int)fd)) < 0)
        return;
    long r = sys(SYS_connect, fd, &at->at, at->length);
    struct loan *l = r == 0 || r == -EINPROGRESS ? pool_take(sizeof *l) : NULL;
    if (!l) {
        bell_close((int)fd);
        return;
    }
    *l = (struct loan){.next = loans, .stream = s, .fd = (int32_t)fd, .child_fd = -1};
    loans = s->loans = l;
    stream_not_pending(s, listener);
    watch(l, EPOLLIN | EPOLLOUT);
    FAULT("loan.passed_on");
}

bool stream_pass_on(void)
{
    bool any = false;
    for (struct stream *s = stream_first, *next; s; s = next) {
        next = s->next;
        struct description *d = s->listener >= 0 ? fd_description(s->listener) : NULL;
        if (!d || !(d->bits & FD_LENT) || !d->socket || !d->socket->local)
            continue;
        any = true;
        if (s->waited++ >= TICKS_WAITED)
            pass_on(s, d);
    }
    return any;
}

void stream_loans_lost(void)
{
    for (struct stream *s = stream_first, *next; s; s = next) {
        next = s->next;
        bool childs = is_childs(s);
        s->loans = NULL;
        if (!childs)
            continue;
        MUTANT("loan.loss_untold", 0, stream_tell(s, WIRE_RESET, 0));
        stream_destroy(s);
        FAULT("loan.lost");
    }
    while (loans) {
        struct loan *l = loans;
        loans = l->next;
        pool_give(l);
    }
}
