#define _GNU_SOURCE
#include "net/stream.h"
#include "net/address.h"
#include "net/landing.h"
#include "net/peers_inner.h"
#include "net/pool.h"
#include "net/stream_bell.h"
#include "net/trouble.h"
#include "heap/fault.h"
#include "heap/sys.h"

#include <netinet/tcp.h>

struct stream *stream_first;
static unsigned pending; /* that no accept() has taken yet */
static size_t widened;   /* of STREAM_WIDENED */

struct stream *stream_of(const struct description *d)
{
    return d->socket ? d->socket->stream : NULL;
}

#define INDEX 1024u

static struct stream *by_id[INDEX];

static struct stream **place(uint32_t id, bool opened_here)
{
    return &by_id[(id * 2 + opened_here) % INDEX];
}

static struct stream *find(const struct channel *c, uint32_t id, bool opened_here)
{
    for (struct stream *s = *place(id, opened_here); s; s = s->same)
        if (s->channel == c && s->id == id && s->opened_here == opened_here)
            return s;
    return NULL;
}

struct stream *stream_make(struct channel *c, uint32_t id, bool opened_here)
{
    struct stream *s = pool_take(sizeof *s);
    if (!s)
        return NULL;
    *s = (struct stream){
        .next = stream_first, .channel = c, .id = id, .opened_here = opened_here, .of = -1, .listener = -1, .bell = -1,
        .granted = STREAM_WINDOW, .window = STREAM_WINDOW};
    if (s->next)
        s->next->before = s;
    s->same = *place(id, opened_here);
    *place(id, opened_here) = s;
    return stream_first = s;
}

static void drop(struct chunk *k)
{
    landing_drop(k->bytes);
    pool_give(k);
}

void stream_destroy(struct stream *s)
{
    struct stream **link = place(s->id, s->opened_here);
    while (*link != s)
        link = &(*link)->same;
    *link = s->same;
    *(s->before ? &s->before->next : &stream_first) = s->next;
    if (s->next)
        s->next->before = s->before;
    stream_called(s);
    while (s->first) {
        struct chunk *k = s->first;
        s->first = k->next;
        drop(k);
    }
    bell_remove(s);
    widened -= s->window - STREAM_WINDOW;
    pool_give(s);
}

int stream_tell(struct stream *s, enum wire_kind kind, uint64_t value)
{
    struct wire_head head = {
        .kind = (uint16_t)kind, .flags = s->opened_here ? WIRE_OPENER : 0, .stream = s->id, .value = value};
    return s->channel ? peers_produce(s->channel, head, NULL, 0, NULL, 0, 0, 0) : 0;
}

enum stream_state stream_state(const struct description *d)
{
    return stream_of(d)->state;
}

bool stream_announce(const struct description *d)
{
    bool news = stream_of(d)->awaited;
    stream_of(d)->awaited = false;
    return news;
}

void stream_adopt(struct description *d, struct stream *s)
{
    d->socket->stream = s;
    d->socket->state = SOCK_CONNECTED;
    s->of = fd_index(d);
    s->listener = -1;
}

static void grant(struct stream *s);

static struct stream *pending_of(const struct description *listener)
{
    struct stream *oldest = NULL;
    int index = fd_index(listener);
    uint32_t left = listener->socket->pending; /* they are among the latest */
    for (struct stream *s = stream_first; s && left; s = s->next)
        if (s->listener == index) {
            oldest = s;
            left--;
        }
    return oldest;
}

bool stream_pending(const struct description *listener)
{
    return listener->socket && listener->socket->state == SOCK_LISTENING && listener->socket->pending &&
           pending_of(listener);
}

long stream_accept(const struct description *listener, struct stream **accepted)
{
    struct stream *s = listener->socket && listener->socket->pending ? pending_of(listener) : NULL;
    if (!s)
        return -EAGAIN;
    long fd = bell_make(s);
    if (fd < 0)
        return fd;
    listener->socket->pending--;
    pending--;
    grant(s);
    if (s->unread)
        bell_ring(s);
    if (s->failed)
        bell_break(s, (int)fd);
    else if (s->ended)
        bell_end(s, false);
    *accepted = s;
    return fd;
}

void stream_listener_closed(int description)
{
    for (struct stream *s = stream_first, *next; s; s = next) {
        next = s->next;
        if (s->listener != description)
            continue;
        stream_tell(s, WIRE_RESET, 0);
        stream_destroy(s);
        pending--;
    }
}

void stream_not_pending(struct stream *s, struct description *listener)
{
    s->listener = -1;
    listener->socket->pending--;
    pending--;
    grant(s);
}

bool stream_any_pending(void)
{
    return pending;
}

/* --- bytes --------------------------------------------------------------------------------------- */

/* A program that keeps up with what comes gets more of it at a time, and the peer has less to wait for. */
static void widen(struct stream *s)
{
    bool early = s->window >= STREAM_WINDOW_SOON && s->window > s->taken / 8;
    if (s->unread >= s->window / 2 || early || s->window >= STREAM_WINDOW_MOST || widened + s->window > STREAM_WIDENED)
        return;
    widened += s->window;
    s->window *= 2;
}

/* When half of the window was read. A full channel may refuse it: then it is tried again at the next look. */
static void grant(struct stream *s)
{
    if (s->ended || MUTANT("stream.window_shut", true, s->taken + s->window - s->granted < s->window / 2))
        return;
    widen(s);
    if (stream_tell(s, WIRE_WINDOW, s->taken + s->window) == 0)
        s->granted = s->taken + s->window;
}

void stream_consume(struct stream *s, size_t bytes)
{
    s->unread -= bytes;
    s->taken += bytes;
    peers_took(bytes);
    while (bytes) {
        struct chunk *k = s->first;
        size_t n = k->length - k->at < bytes ? k->length - k->at : bytes;
        k->at += (uint32_t)n;
        bytes -= n;
        if (k->at < k->length)
            break;
        s->first = k->next;
        drop(k);
    }
    grant(s);
}

static size_t copy(const struct stream *s, const struct iovec *v, int count, bool discard)
{
    const struct chunk *k = s->first;
    size_t at = k ? k->at : 0, total = 0;
    for (int i = 0; i < count && k; i++) {
        for (size_t done = 0; done < v[i].iov_len && k;) {
            size_t n = k->length - at < v[i].iov_len - done ? k->length - at : v[i].iov_len - done;
            if (!discard)
                memcpy((char *)v[i].iov_base + done, k->bytes + at, n);
            done += n;
            at += n;
            total += n;
            if (at == k->length) {
                k = k->next;
                at = k ? k->at : 0;
            }
        }
    }
    return total;
}

long stream_read(int fd, struct description *d, const struct iovec *v, int count, long flags)
{
    struct stream *s = stream_of(d);
    if (s->state == STREAM_CONNECTING)
        return -EAGAIN;
    if (s->unread) {
        size_t n = copy(s, v, count, flags & MSG_TRUNC);
        if (flags & MSG_PEEK)
            return (long)n;
        stream_consume(s, n);
        if (!s->unread)
            bell_hush(s, fd);
        return (long)n;
    }
    if (s->rings)
        bell_hush(s, fd);
    grant(s);
    if (s->error && !s->ended)
        return stream_take_error(d);
    return s->ended || s->failed || (d->socket->shut & 1) ? 0 : -EAGAIN;
}

size_t stream_room(const struct stream *s)
{
    return s->sent < s->limit && channel_room(s->channel) ? s->limit - s->sent : 0;
}

static struct wire_head data_head(const struct stream *s)
{
    return (struct wire_head){.kind = WIRE_DATA, .flags = s->opened_here ? WIRE_OPENER : 0, .stream = s->id};
}

int stream_put(struct stream *s, const struct iovec *v, int count, size_t skip, size_t length)
{
    struct wire_head head = data_head(s);
    int r = peers_produce(s->channel, head, NULL, 0, v, count, skip, length);
    if (r == 0)
        s->sent += length;
    return r;
}

long stream_write(int fd, struct description *d, const struct iovec *v, int count, size_t skip, size_t length)
{
    struct stream *s = stream_of(d);
    struct wire_head head = data_head(s);
    size_t done = 0;
    if (s->state == STREAM_CONNECTING)
        return -EAGAIN;
    if (s->error)
        return stream_take_error(d);
    if (s->failed || (d->socket->shut & 2))
        return -EPIPE;
    if (length && (s->deaf || !s->channel)) { /* as TCP: what is sent to who has closed is answered by a reset */
        stream_fail(s, EPIPE);
        return (long)length;
    }
    while (done < length && stream_room(s)) {
        size_t n = channel_piece(s->channel, &head);
        if (n > length - done)
            n = length - done;
        if (n > stream_room(s))
            n = stream_room(s);
        if (stream_put(s, v, count, skip + done, n) < 0)
            break;
        done += n;
    }
    if (s->sent >= s->limit)
        bell_full(s, fd);
    return done || !length ? (long)done : -EAGAIN;
}

size_t stream_writable(const struct description *d)
{
    const struct stream *s = stream_of(d);
    bool broken = s->state == STREAM_CONNECTING || s->error || s->failed || (d->socket->shut & 2);
    return broken ? 0 : s->deaf || !s->channel ? STREAM_WINDOW : stream_room(s);
}

size_t stream_unread(const struct description *d)
{
    return stream_of(d)->unread;
}

size_t stream_name(const struct description *d, bool peer, void *to, size_t length)
{
    const struct stream *s = stream_of(d);
    return address_write(peer ? &s->remote : &s->local, d->socket->domain, to, length);
}

/* --- from the peer ------------------------------------------------------------------------------- */

static int fit(const struct description *d, const struct wire_address *to)
{
    struct wire_address local;
    const struct fd_socket *s = d->kind == FD_SOCKET ? d->socket : NULL;
    if (!s || s->type != SOCK_STREAM || s->state != SOCK_LISTENING || !s->local ||
        !address_read(&local, &s->local->at, s->local->length))
        return 0;
    return peers_fit(s, &local, to);
}

static struct description *listener_of(const struct wire_address *to)
{
    struct description *best = NULL;
    int best_fit = 0;
    for (int i = 0; i < fd_descriptions(); i++) {
        int f = fit(fd_description(i), to);
        if (f > best_fit) {
            best = fd_description(i);
            best_fit = f;
        }
    }
    return best;
}

/* Who comes when the queue is full may not write before it is accepted. */
static uint64_t first_window(const struct description *listener)
{
    uint32_t backlog = listener && listener->socket->backlog > 0 ? (uint32_t)listener->socket->backlog : 0;
    return listener && MUTANT("stream.queue_unbounded", true, listener->socket->pending <= backlog) ? STREAM_WINDOW : 0;
}

static void enqueue(struct stream *s, struct description *listener)
{
    s->listener = fd_index(listener);
    listener->socket->pending++;
    pending++;
    transport_arrived();
    if (listener->bits & FD_LENT)
        transport_alarm(RETRY_MS);
}

static bool opened(struct channel *c, const struct wire_head *h, const unsigned char *body)
{
    struct wire_route route;
    memcpy(&route, body, sizeof route);
    struct description *listener = listener_of(&route.to);
    struct wire_head answer = {
        .kind = listener ? WIRE_ACCEPT : WIRE_REFUSE, .stream = h->stream, .value = first_window(listener)};
    struct stream *s = listener ? stream_make(c, h->stream, false) : NULL;
    if (listener && !s)
        return false;
    if (s) {
        s->state = STREAM_OPEN;
        s->local = route.to;
        s->remote = route.from;
        s->limit = h->value;
        s->granted = answer.value;
    }
    if (peers_produce(c, answer, NULL, 0, NULL, 0, 0, 0) < 0) {
        if (s)
            stream_destroy(s);
        return false;
    }
    if (s)
        enqueue(s, listener);
    return true;
}

/* Who neither reads nor writes any more answers by a reset. */
static bool is_shut(const struct stream *s)
{
    const struct description *d = s->of < 0 ? NULL : fd_description(s->of);
    return d && d->socket && d->socket->shut == 3;
}

static bool arrived(struct stream *s, const struct wire_head *h, const unsigned char *body)
{
    if (is_shut(s)) {
        if (stream_tell(s, WIRE_RESET, 0) == 0)
            stream_fail(s, ECONNRESET);
        return true;
    }
    struct chunk *k = pool_take(sizeof *k);
    if (!k)
        return false;
    *k = (struct chunk){.length = h->body};
    if (!landing_keep(&k->bytes, body, h->body)) {
        pool_give(k);
        return false;
    }
    if (s->first)
        s->last->next = k;
    else
        s->first = k;
    s->last = k;
    s->unread += h->body;
    bell_ring(s);
    stream_hand_in(s);
    return true;
}

bool stream_deliver(struct channel *c, const struct wire_head *h, const unsigned char *body)
{
    if (h->kind == WIRE_OPEN)
        return opened(c, h, body);
    struct stream *s = find(c, h->stream, !(h->flags & WIRE_OPENER));
    if (!s)
        return true; /* closed here meanwhile */
    switch (h->kind) {
    case WIRE_ACCEPT:
        s->state = STREAM_OPEN;
        s->limit = h->value;
        bell_drain(s);
        break;
    case WIRE_REFUSE:
        stream_refused(s);
        break;
    case WIRE_DATA:
        return s->failed || arrived(s, h, body);
    case WIRE_WINDOW:
        if (h->value > s->limit)
            s->limit = h->value;
        if (s->full)
            transport_arrived();
        bell_drain(s);
        stream_window_opened(s);
        break;
    case WIRE_CLOSE:
        s->deaf = true;
        bell_drain(s);
        __attribute__((fallthrough));
    case WIRE_SHUTDOWN:
        s->ended = true;
        bell_end(s, stream_over(s));
        stream_hand_in(s);
        break;
    default:
        stream_fail(s, s->ended ? EPIPE : ECONNRESET);
    }
    return true;
}

bool stream_any(const struct channel *c)
{
    for (const struct stream *s = stream_first; s; s = s->next)
        if (s->channel == c)
            return true;
    return false;
}

long stream_reopen(struct description *d)
{
    struct stream *s = stream_of(d);
    long fd = bell_make(s);
    if (fd < 0)
        return fd;
    if (d->flags & O_NONBLOCK)
        sys(SYS_fcntl, fd, F_SETFL, O_RDWR | O_NONBLOCK);
    if (s->unread)
        bell_ring(s);
    if (s->failed)
        bell_break(s, (int)fd);
    else if (s->ended || (d->socket->shut & 1))
        bell_end(s, stream_over(s));
    if (!s->failed && (s->state == STREAM_CONNECTING || s->sent >= s->limit))
        bell_full(s, (int)fd);
    return fd;
}
