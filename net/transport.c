#include "net/transport.h"
#include "net/address_text.h"
#include "net/fdtable.h"
#include "net/host.h"
#include "net/remote.h"
#include "heap/say.h"
#include "heap/sys.h"
#include "heap/window.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/un.h>

#define TRANSPORTS 1024
#define LISTENERS 4096
#define IN_BYTES (192UL << 10) /* more than the longest frame */
#define VECTOR 64
#define LOOK_EVERY 64
#define READS 4                /* of one transport, before the others have their turn */

enum state { STATE_FREE, STATE_GREETING, STATE_READY };

struct transport {
    int fd;
    uint8_t state;
    bool wants_out;
    bool retired; /* a newer one carries the channel; this one only receives */
    bool accepted;
    bool far;                    /* over TCP, to another host */
    bool asks;                   /* dialed only to learn who has the address */
    uint8_t protocol;            /* of it */
    long ticket;                 /* its place at the gate */
    struct wire_address other;   /* far: where it leads */
    struct link *link;

    struct channel *channel; /* in the image; NULL: not known before it greets */
    uint64_t cursor;         /* the frame to send next */
    uint32_t done;           /* bytes of it that left */
    uint64_t told_durable, told_datagrams;
    unsigned char out[160];  /* hello or acknowledgement */
    uint32_t out_used, out_done;
    unsigned char *in;
    uint32_t in_used;
};

struct listener {
    int fd;
    bool far;
    char name[TRANSPORT_NAME];
};

struct table {
    int epoll, timer;
    unsigned alarm_ms;
    unsigned open;   /* transports in use */
    unsigned passed; /* pumps that looked at nothing */
    bool awake;
    uint64_t epoch;
    unsigned used, listeners; /* high-water marks */
    struct transport transports[TRANSPORTS];
    struct listener listening[LISTENERS];
};

static struct table *table; /* in the window of this incarnation; NULL: none yet */

/* What epoll tells: a transport, a listener, or the timer. */
enum { TAG_TRANSPORT, TAG_LISTENER, TAG_TIMER };

void transport_boot(void)
{
    table = NULL;
}

static void watch(int operation, int fd, uint32_t events, uint32_t tag, uint32_t index)
{
    struct epoll_event e = {.events = events, .data.u64 = (uint64_t)tag << 32 | index};
    sys(SYS_epoll_ctl, table->epoll, operation, fd, &e);
}

static bool open_table(void)
{
    if (table)
        return true;
    struct table *t = window_alloc(sizeof *t);
    long epoll = t ? sys(SYS_epoll_create1, EPOLL_CLOEXEC) : -ENOMEM;
    if (epoll < 0)
        return false;
    t->epoll = (int)fd_move_high((int)epoll);
    t->timer = -1;
    sys(SYS_getrandom, &t->epoch, sizeof t->epoch, 0);
    t->epoch |= 1;
    table = t;
    return true;
}

uint64_t transport_epoch(void)
{
    return open_table() ? table->epoch : 1;
}

int transport_fd(void)
{
    return table ? table->epoll : -1;
}

bool transport_owns(int fd)
{
    if (!table || fd < 64)
        return false;
    if (fd == table->epoll || fd == table->timer)
        return true;
    for (unsigned i = 0; i < table->used; i++)
        if (table->transports[i].state != STATE_FREE && table->transports[i].fd == fd)
            return true;
    for (unsigned i = 0; i < table->listeners; i++)
        if (table->listening[i].name[0] && table->listening[i].fd == fd)
            return true;
    return false;
}

void transport_forked(void)
{
    if (!table)
        return;
    for (unsigned i = 0; i < table->used; i++)
        if (table->transports[i].state != STATE_FREE)
            sys(SYS_close, table->transports[i].fd);
    for (unsigned i = 0; i < table->listeners; i++)
        if (table->listening[i].name[0])
            sys(SYS_close, table->listening[i].fd);
    if (table->timer >= 0)
        sys(SYS_close, table->timer);
    sys(SYS_close, table->epoll);
    table = NULL;
}

static socklen_t abstract(struct sockaddr_un *un, const char *name)
{
    size_t n = strlen(name);
    *un = (struct sockaddr_un){.sun_family = AF_UNIX};
    memcpy(un->sun_path + 1, name, n);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + n);
}

static struct listener *find_listener(const char *name)
{
    for (unsigned i = 0; i < table->listeners; i++)
        if (!strcmp(table->listening[i].name, name))
            return &table->listening[i];
    return NULL;
}

static struct listener *free_listener(void)
{
    struct listener *l = find_listener("");
    return l ? l : table->listeners < LISTENERS ? &table->listening[table->listeners++] : NULL;
}

static bool patient;

void transport_inherit(bool on)
{
    patient = on;
}

static long listen_on(const char *name)
{
    struct sockaddr_un un;
    socklen_t length = abstract(&un, name);
    long fd = sys(SYS_socket, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return fd;
    fd = fd_move_high((int)fd);
    long r = sys(SYS_bind, fd, &un, length);
    for (int waited = 0; r == -EADDRINUSE && patient && waited < 500; waited++) {
        /* The killed process before us keeps its names until its memory is torn down. */
        sys(SYS_poll, NULL, 0, 10);
        r = sys(SYS_bind, fd, &un, length);
    }
    if (r == 0)
        r = sys(SYS_listen, fd, 128);
    if (r < 0)
        sys(SYS_close, fd);
    return r < 0 ? r : fd;
}

int transport_listen(const char *name)
{
    if (!open_table() || strlen(name) >= TRANSPORT_NAME)
        return -ENOMEM;
    if (find_listener(name))
        return 0;
    struct listener *l = free_listener();
    long fd = l ? listen_on(name) : -ENOSPC;
    if (fd < 0)
        return (int)fd;
    l->fd = (int)fd;
    memcpy(l->name, name, strlen(name) + 1);
    l->far = false;
    watch(EPOLL_CTL_ADD, l->fd, EPOLLIN, TAG_LISTENER, (uint32_t)(l - table->listening));
    return 0;
}

static void far_name(char *to, const struct wire_address *a)
{
    *to = '@';
    address_print(to + 1, a);
}

int transport_listen_far(const struct wire_address *at, bool v6_only, bool beside)
{
    char name[TRANSPORT_NAME];
    far_name(name, at);
    if (!open_table())
        return -ENOMEM;
    if (find_listener(name))
        return 0;
    struct listener *l = free_listener();
    long fd = l ? remote_listen(at, v6_only, beside) : -ENOSPC;
    if (fd < 0)
        return (int)fd;
    l->fd = (int)fd;
    l->far = true;
    memcpy(l->name, name, strlen(name) + 1);
    watch(EPOLL_CTL_ADD, l->fd, EPOLLIN, TAG_LISTENER, (uint32_t)(l - table->listening));
    return 0;
}

void transport_unlisten_far(const struct wire_address *at)
{
    char name[TRANSPORT_NAME];
    far_name(name, at);
    transport_unlisten(name);
}

void transport_unlisten(const char *name)
{
    struct listener *l = table && name[0] ? find_listener(name) : NULL;
    if (!l)
        return;
    sys(SYS_close, l->fd);
    l->name[0] = '\0';
}

static bool same_user(int fd)
{
    struct ucred who;
    socklen_t length = sizeof who;
    return sys(SYS_getsockopt, fd, SOL_SOCKET, SO_PEERCRED, &who, &length) == 0 &&
           who.uid == (uid_t)sys(SYS_geteuid);
}

/* A place for one more; its link is to be opened, then comes start(). */
static struct transport *take_slot(struct channel *c, bool accepted)
{
    unsigned i = 0;
    while (i < table->used && table->transports[i].state != STATE_FREE)
        i++;
    if (i == TRANSPORTS)
        return NULL;
    struct transport *t = &table->transports[i];
    unsigned char *in = t->in ? t->in : window_alloc(IN_BYTES);
    struct link *link = t->link ? t->link : window_alloc(sizeof *link);
    *t = (struct transport){.accepted = accepted, .channel = c, .in = in, .link = link};
    if (!in || !link)
        return NULL;
    if (i == table->used)
        table->used++;
    return t;
}

static void start(struct transport *t)
{
    t->fd = t->link->fd;
    t->state = STATE_GREETING;
    watch(EPOLL_CTL_ADD, t->fd, EPOLLIN, TAG_TRANSPORT, (uint32_t)(t - table->transports));
    table->open++;
}

static void close_transport(struct transport *t)
{
    if (t->ticket)
        auth_gate_leave(&session_remote()->gate, t->ticket);
    t->ticket = 0;
    link_close(t->link);
    t->state = STATE_FREE;
    t->channel = NULL;
    table->open--;
}

/* The retired one goes on when the newer one breaks: from the first frame that may be missing. */
static bool fall_back(const struct channel *c)
{
    for (unsigned i = 0; i < table->used; i++) {
        struct transport *t = &table->transports[i];
        if (t->state != STATE_READY || t->channel != c)
            continue;
        t->retired = false;
        if (t->cursor < c->acked)
            t->cursor = c->acked;
        return true;
    }
    return false;
}

static void hang_up(struct transport *t)
{
    struct channel *c = t->channel;
    close_transport(t);
    if (c && !fall_back(c) && !transport_pending(c))
        peers_lost(c);
}

static void put_out(struct transport *t, const struct wire_head *head, const void *body)
{
    memcpy(t->out, head, sizeof *head);
    memcpy(t->out + sizeof *head, body, head->body);
    t->out_used = (uint32_t)sizeof *head + head->body;
    t->out_done = 0;
}

static void put_hello(struct transport *t)
{
    struct wire_head head = {.kind = WIRE_HELLO, .body = sizeof(struct wire_hello)};
    struct wire_hello hello = {.epoch = table->epoch};
    peers_fill_hello(t->channel, &hello);
    t->told_durable = t->channel ? hello.durable : 0;
    t->told_datagrams = t->channel ? hello.datagrams_taken : 0;
    put_out(t, &head, &hello);
}

static void put_ack(struct transport *t)
{
    struct wire_head head;
    uint64_t body;
    const struct channel *c = t->channel;
    if (t->out_used || (c->durable == t->told_durable && c->datagrams_taken_durable == t->told_datagrams))
        return;
    channel_ack(c, &head, &body);
    t->told_durable = head.value;
    t->told_datagrams = body;
    put_out(t, &head, &body);
}

/* The rest of a frame that was begun comes first, then hello or acknowledgement, then the frames. */
static int gather(struct transport *t, struct iovec *v)
{
    const struct frame *f;
    if (t->state == STATE_READY && t->cursor < t->channel->acked && !t->done)
        t->cursor = t->channel->acked; /* acknowledged over another transport */
    uint64_t next = t->cursor;
    int n = 0;
    bool ready = t->state == STATE_READY && !t->retired;
    if (ready && t->done && (f = channel_frame(t->channel, next++)))
        v[n++] = (struct iovec){(void *)(f->wire + t->done), f->length - t->done};
    if (t->out_used)
        v[n++] = (struct iovec){t->out + t->out_done, t->out_used - t->out_done};
    while (ready && n < VECTOR && (f = channel_frame(t->channel, next++)))
        v[n++] = (struct iovec){(void *)f->wire, f->length};
    return n;
}

static void account_frame(struct transport *t, size_t bytes)
{
    t->done += (uint32_t)bytes;
    const struct frame *f = channel_frame(t->channel, t->cursor);
    if (f && t->done >= f->length) {
        t->cursor++;
        t->done = 0;
    }
}

static void account(struct transport *t, const struct iovec *v, int count, size_t sent)
{
    for (int i = 0; i < count && sent; i++) {
        size_t n = sent < v[i].iov_len ? sent : v[i].iov_len;
        sent -= n;
        bool is_out = (unsigned char *)v[i].iov_base >= t->out && (unsigned char *)v[i].iov_base < t->out + sizeof t->out;
        if (!is_out) {
            account_frame(t, n);
            continue;
        }
        t->out_done += (uint32_t)n;
        if (t->out_done == t->out_used)
            t->out_used = t->out_done = 0;
    }
}

static void want_out(struct transport *t, bool on)
{
    if (t->wants_out == on)
        return;
    t->wants_out = on;
    watch(EPOLL_CTL_MOD, t->fd, EPOLLIN | (on ? EPOLLOUT : 0), TAG_TRANSPORT, (uint32_t)(t - table->transports));
}

/* The link broke. */
static void fail(struct transport *t, long error)
{
    if (t->far)
        remote_complain(session_remote(), &t->other, error);
    hang_up(t);
}

/* Nothing more can be sent now. A link that waits for the other side's part of the handshake needs no room. */
static void pause_out(struct transport *t)
{
    want_out(t, link_pending(t->link) || link_ready(t->link));
}

static void flush(struct transport *t)
{
    for (;;) {
        struct iovec v[VECTOR];
        if (t->state == STATE_READY && !t->retired)
            put_ack(t);
        struct msghdr m = {.msg_iov = v, .msg_iovlen = (size_t)gather(t, v)};
        if (!m.msg_iovlen)
            break;
        long n = link_send(t->link, v, (int)m.msg_iovlen);
        if (n == -EAGAIN) {
            pause_out(t);
            return;
        }
        if (n < 0) {
            fail(t, n);
            return;
        }
        account(t, v, (int)m.msg_iovlen, (size_t)n);
    }
    long r = link_push(t->link);
    if (r < 0 && r != -EAGAIN)
        fail(t, r);
    else
        want_out(t, link_pending(t->link));
}

void transport_farewell(void)
{
    struct wire_head gone = {.kind = WIRE_GONE};
    for (unsigned i = 0; table && i < table->used; i++) {
        struct transport *t = &table->transports[i];
        if (t->state != STATE_READY || t->retired)
            continue;
        flush(t);
        if (t->state == STATE_READY && !t->out_used && !t->done)
            link_send(t->link, &(struct iovec){&gone, sizeof gone}, 1);
    }
    transport_forked();
}

void transport_flush(void)
{
    for (unsigned i = 0; table && i < table->used; i++)
        if (table->transports[i].state == STATE_READY && !table->transports[i].wants_out)
            flush(&table->transports[i]);
}

long transport_dial(const char *name)
{
    struct sockaddr_un un;
    socklen_t length = abstract(&un, name);
    long fd = sys(SYS_socket, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return fd;
    long r = sys(SYS_connect, fd, &un, length);
    if (r == 0 && !same_user((int)fd))
        r = -EPERM;
    if (r == 0)
        return fd_move_high((int)fd);
    sys(SYS_close, fd);
    return r;
}

int transport_connect(const char *name, struct channel *c)
{
    if (!open_table())
        return -ENOMEM;
    long fd = transport_dial(name);
    if (fd < 0)
        return (int)fd;
    struct transport *t = take_slot(c, false);
    if (!t) {
        sys(SYS_close, fd);
        return -ENOMEM;
    }
    link_open_raw(t->link, (int)fd);
    start(t);
    put_hello(t);
    flush(t);
    return 0;
}

static int dial_far(const struct wire_address *to, struct channel *c, bool asks, unsigned protocol)
{
    if (!open_table())
        return -ENOMEM;
    struct transport *t = take_slot(c, false);
    int r = t ? remote_dial(session_remote(), to, t->link) : -ENOMEM;
    if (r < 0)
        return r;
    t->far = true;
    t->other = *to;
    t->asks = asks;
    t->protocol = (uint8_t)protocol;
    start(t);
    put_hello(t);
    flush(t);
    return 0;
}

int transport_connect_far(const struct wire_address *to, struct channel *c)
{
    return dial_far(to, c, false, 0);
}

int transport_ask_far(unsigned protocol, const struct wire_address *to)
{
    for (unsigned i = 0; table && i < table->used; i++) {
        const struct transport *t = &table->transports[i];
        if (t->state != STATE_FREE && t->asks && t->protocol == protocol && wire_same_address(&t->other, to))
            return 0;
    }
    return dial_far(to, NULL, true, protocol);
}

struct transport *transport_of(const struct channel *c)
{
    for (unsigned i = 0; table && i < table->used; i++)
        if (table->transports[i].state == STATE_READY && table->transports[i].channel == c)
            return &table->transports[i];
    return NULL;
}

bool transport_pending(const struct channel *c)
{
    for (unsigned i = 0; table && i < table->used; i++)
        if (table->transports[i].state != STATE_FREE && table->transports[i].channel == c)
            return true;
    return false;
}

void transport_drop(const struct channel *c)
{
    for (unsigned i = 0; table && i < table->used; i++) {
        struct transport *t = &table->transports[i];
        if (t->state != STATE_FREE && t->channel == c) {
            close_transport(t);
        }
    }
}

/* A second transport of the same pair is of no use for sending: the newest one carries the channel. Frames that were on
 * their way over the other one come again, and repetitions are dropped. */
static void retire_others(const struct transport *kept)
{
    for (unsigned i = 0; i < table->used; i++) {
        struct transport *t = &table->transports[i];
        if (t == kept || t->state != STATE_READY || t->channel != kept->channel)
            continue;
        t->retired = true;
        if (t->done)
            hang_up(t); /* within a frame, whose rest may soon be forgotten */
    }
}

/* Who asks only who we are is told so, and that is all. */
static bool answer_probe(struct transport *t)
{
    put_hello(t);
    flush(t);
    return false;
}

static bool greeted(struct transport *t, const unsigned char *body)
{
    struct wire_hello hello;
    memcpy(&hello, body, sizeof hello);
    if (t->state != STATE_GREETING)
        return false;
    if (t->accepted && wire_no_id(&hello.to))
        return answer_probe(t);
    if (t->asks) {
        peers_introduced(t->protocol, &t->other, &hello);
        return false;
    }
    uint64_t from = 0;
    struct channel *c = peers_greeted(&hello, t->channel, &from);
    if (!c)
        return false;
    t->channel = c;
    if (t->accepted)
        put_hello(t);
    t->cursor = from;
    t->state = STATE_READY;
    retire_others(t);
    flush(t);
    return true;
}

static bool take(struct transport *t, const struct wire_head *h, const unsigned char *body, bool *moved)
{
    if (h->kind == WIRE_HELLO)
        return greeted(t, body);
    if (t->state != STATE_READY)
        return false;
    if (h->kind == WIRE_GONE) {
        peers_gone(t->channel);
        return true;
    }
    int r = channel_receive(t->channel, h, body);
    if (r == CHANNEL_DROP)
        return true;
    if (r != CHANNEL_DELIVER)
        return false;
    if (!peers_deliver(t->channel, h, body)) {
        t->channel->expected--;
        return false;
    }
    *moved = true;
    return true;
}

static bool parse(struct transport *t, bool *moved)
{
    uint32_t at = 0;
    bool good = true;
    while (good && t->state != STATE_FREE) {
        struct wire_head h;
        long n = wire_parse(t->in + at, t->in_used - at, &h);
        if (n <= 0) {
            good = n == 0;
            break;
        }
        good = take(t, &h, t->in + at + sizeof h, moved);
        at += (uint32_t)n;
    }
    if (at)
        memmove(t->in, t->in + at, t->in_used - at);
    t->in_used -= at;
    return good;
}

/* Its handshake is done. */
static void let_in(struct transport *t)
{
    if (t->ticket)
        auth_gate_leave(&session_remote()->gate, t->ticket);
    t->ticket = 0;
    flush(t);
}

static bool receive(struct transport *t)
{
    bool moved = false;
    for (int k = 0; k < READS; k++) {
        size_t room = IN_BYTES - t->in_used;
        bool greeting = !link_ready(t->link);
        long n = link_receive(t->link, t->in + t->in_used, room);
        if (greeting && link_ready(t->link))
            let_in(t);
        if (n == -EAGAIN && t->state != STATE_FREE)
            break;
        if (n < 0 && t->state != STATE_FREE) {
            fail(t, n);
            return moved;
        }
        if (n > 0)
            t->in_used += (uint32_t)n;
        bool good = n > 0 && parse(t, &moved);
        if (t->state == STATE_FREE)
            return moved; /* dropped by what it brought */
        if (!good) {
            hang_up(t);
            return moved;
        }
        if ((size_t)n < room)
            break;
    }
    return moved;
}

static void accept_all(const struct listener *l)
{
    for (int k = 0; k < 64 && l->name[0]; k++) {
        long fd = sys(SYS_accept4, l->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0)
            return;
        fd = fd_move_high((int)fd);
        struct transport *t = same_user((int)fd) ? take_slot(NULL, true) : NULL;
        if (!t) {
            sys(SYS_close, fd);
            continue;
        }
        link_open_raw(t->link, (int)fd);
        start(t);
    }
}

/* Who did not finish the handshake in time makes room. */
static void drop_overdue(void)
{
    uint64_t now = remote_now_ms();
    for (unsigned i = 0; i < table->used; i++) {
        struct transport *t = &table->transports[i];
        if (t->state != STATE_FREE && t->ticket && !auth_gate_admits(&session_remote()->gate, t->ticket, now))
            hang_up(t);
    }
}

static void accept_far(const struct listener *l)
{
    drop_overdue();
    for (int k = 0; k < 64 && l->name[0]; k++) {
        struct transport *t = take_slot(NULL, true);
        int r = t ? remote_accept(session_remote(), l->fd, t->link, &t->other, &t->ticket) : -EAGAIN;
        if (r == -EAGAIN)
            return;
        if (r < 0)
            continue;
        t->far = true;
        start(t);
    }
}

static void ring_timer(void)
{
    uint64_t ticks;
    sys(SYS_read, table->timer, &ticks, sizeof ticks);
    table->alarm_ms = 0;
    peers_tick();
}

void transport_wake(void)
{
    if (table)
        table->awake = true;
}

/* Without connections there is nothing but names; a program that never waits looks at them now and then. */
static bool quiet(void)
{
    bool look = table->awake || table->open || table->alarm_ms || ++table->passed >= LOOK_EVERY;
    if (look)
        table->passed = 0;
    table->awake = false;
    return !look;
}

bool transport_pump(void)
{
    struct epoll_event events[32];
    bool moved = false;
    if (!table || quiet())
        return false;
    long n = sys(SYS_epoll_wait, table->epoll, events, 32, 0);
    for (long i = 0; i < n; i++) {
        uint32_t index = (uint32_t)events[i].data.u64;
        struct transport *t = &table->transports[index % TRANSPORTS];
        switch (events[i].data.u64 >> 32) {
        case TAG_LISTENER:
            if (table->listening[index].far)
                accept_far(&table->listening[index]);
            else
                accept_all(&table->listening[index]);
            break;
        case TAG_TIMER:
            ring_timer();
            break;
        default:
            if (t->state != STATE_FREE && (events[i].events & ~(uint32_t)EPOLLOUT))
                moved |= receive(t);
            if (t->state != STATE_FREE && (events[i].events & EPOLLOUT))
                flush(t);
        }
    }
    return moved;
}

bool transport_alarmed(void)
{
    return table && table->alarm_ms;
}

void transport_alarm(unsigned ms)
{
    if (!open_table() || table->alarm_ms == ms)
        return;
    if (table->timer < 0) {
        long fd = sys(SYS_timerfd_create, CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
        if (fd < 0)
            return;
        table->timer = (int)fd_move_high((int)fd);
        watch(EPOLL_CTL_ADD, table->timer, EPOLLIN, TAG_TIMER, 0);
    }
    struct itimerspec t = {.it_value = {ms / 1000, ms % 1000 * 1000000L}};
    table->alarm_ms = ms;
    sys(SYS_timerfd_settime, table->timer, 0, &t, NULL);
}
