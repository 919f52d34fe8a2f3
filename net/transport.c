#include "net/transport_inner.h"
#include "net/alert.h"
#include "net/fdtable.h"
#include "net/host.h"
#include "net/trouble.h"
#include "heap/room.h"
#include "heap/sys.h"
#include "heap/window.h"

#include <sys/epoll.h>
#include <sys/timerfd.h>

#define LOOK_EVERY 64
#define SEND_BUFFER (1 << 20)
#define UNDECIDED_MS 2

struct table *transport_table;

void transport_boot(void)
{
    transport_table = NULL;
    alert_boot();
}

void transport_watch(int operation, int fd, uint32_t events, uint32_t tag, uint32_t index)
{
    struct epoll_event e = {.events = events, .data.u64 = (uint64_t)tag << 32 | index};
    trouble_none(sys(SYS_epoll_ctl, transport_table->epoll, operation, fd, &e), "watch a peer");
}

void transport_watch_loan(int operation, int fd, uint32_t events)
{
    if (transport_table)
        transport_watch(operation, fd, events, TAG_LOAN, 0);
}

void transport_watch_one(const struct transport *t, int operation)
{
    if (!transport_table->undecided)
        transport_watch(operation, t->fd, EPOLLIN | (t->wants_out ? EPOLLOUT : 0), TAG_TRANSPORT, (uint32_t)(t - transport_table->transports));
}

bool transport_open_table(void)
{
    if (transport_table)
        return true;
    struct table *t = window_alloc(sizeof *t);
    /* Without it all peers would be plain processes. */
    long epoll = trouble_none(t ? sys_fd(SYS_epoll_create1, EPOLL_CLOEXEC) : -ENOMEM, "speak to peers");
    if (epoll < 0)
        return false;
    t->epoll = (int)fd_move_high((int)epoll);
    sys_random(&t->epoch, sizeof t->epoch);
    t->epoch |= 1;
    transport_table = t;
    /* Made at once: it is needed when there are no descriptors. */
    long timer = sys_fd(SYS_timerfd_create, CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    t->timer = (int)fd_move_high((int)trouble_none(timer, "speak to peers"));
    transport_watch(EPOLL_CTL_ADD, t->timer, EPOLLIN, TAG_TIMER, 0);
    return true;
}

uint64_t transport_epoch(void)
{
    return transport_open_table() ? transport_table->epoch : 1;
}

int transport_fd(void)
{
    return transport_table ? transport_table->epoll : -1;
}

bool transport_owns(int fd)
{
    if (!transport_table || fd < 64)
        return false;
    if (fd == transport_table->epoll || fd == transport_table->timer || alert_owns(fd) || transport_owns_pipe(fd))
        return true;
    for (unsigned i = 0; i < transport_table->used; i++)
        if (transport_table->transports[i].state != STATE_FREE && transport_table->transports[i].fd == fd)
            return true;
    for (unsigned i = 0; i < transport_table->listeners; i++)
        if (transport_table->listening[i].name[0] && transport_table->listening[i].fd == fd)
            return true;
    return false;
}

void transport_forked(void)
{
    if (!transport_table)
        return;
    for (unsigned i = 0; i < transport_table->used; i++)
        if (transport_table->transports[i].state != STATE_FREE)
            sys(SYS_close, transport_table->transports[i].fd);
    for (unsigned i = 0; i < transport_table->listeners; i++)
        if (transport_table->listening[i].name[0])
            sys(SYS_close, transport_table->listening[i].fd);
    transport_end_lending(NULL);
    sys(SYS_close, transport_table->timer);
    sys(SYS_close, transport_table->epoll);
    transport_table = NULL;
    alert_forked();
}

/* A place for one more; its link is to be opened, then comes transport_start(). */
struct transport *transport_take_slot(struct channel *c, bool accepted)
{
    unsigned i = 0;
    while (i < transport_table->used && transport_table->transports[i].state != STATE_FREE)
        i++;
    if (i == TRANSPORTS)
        return NULL;
    struct transport *t = &transport_table->transports[i];
    unsigned char *in = t->in ? t->in : window_alloc(IN_BYTES);
    struct link *link = t->link ? t->link : window_alloc(sizeof *link);
    *t = (struct transport){.accepted = accepted, .channel = c, .in = in, .link = link};
    if (trouble_none(in && link ? 0 : -ENOMEM, "speak to a peer"))
        return NULL;
    if (i == transport_table->used)
        transport_table->used++;
    return t;
}

void transport_start(struct transport *t)
{
    int room = SEND_BUFFER;
    t->fd = t->link->fd;
    t->state = STATE_GREETING;
    if (!t->far) /* TCP finds its own; as much as the system lets us have */
        sys(SYS_setsockopt, t->fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    transport_watch_one(t, EPOLL_CTL_ADD);
    transport_table->open++;
}

void transport_close(struct transport *t)
{
    if (t->ticket)
        auth_gate_leave(&session_remote()->gate, t->ticket);
    t->ticket = 0;
    transport_end_lending(t);
    link_close(t->link);
    t->state = STATE_FREE;
    t->channel = NULL;
    transport_table->open--;
}

/* The retired one goes on when the newer one breaks: from the first frame that may be missing. It says so itself as soon as it
 * has room: there may be no commit for a long time that would make it send. */
static bool fall_back(const struct channel *c)
{
    struct transport *retired = NULL;
    for (unsigned i = 0; i < transport_table->used; i++) {
        struct transport *t = &transport_table->transports[i];
        if (t->state != STATE_READY || t->channel != c)
            continue;
        if (!t->retired)
            return true;
        retired = t;
    }
    if (!retired)
        return false;
    retired->retired = false;
    if (retired->cursor < c->acked)
        retired->cursor = c->acked;
    transport_begin_lending(retired);
    transport_want_out(retired, true);
    return true;
}

void transport_hang_up(struct transport *t)
{
    struct channel *c = t->channel;
    transport_close(t);
    if (c && !fall_back(c) && !transport_pending(c))
        peers_lost(c);
}

/* The link broke. Who is leaving has said everything that matters, and has a status of its own. */
void transport_fail(struct transport *t, long error)
{
    if (!transport_table->leaving)
        trouble_none(error, "speak to a peer");
    if (t->far)
        remote_complain(session_remote(), &t->other, error);
    transport_hang_up(t);
}

static void say_gone(struct transport *t)
{
    struct wire_head gone = {.kind = WIRE_GONE};
    if (t->state != STATE_READY || t->retired)
        return;
    transport_send(t);
    /* Who does not have everything is told when it has: by the next run. */
    if (t->state == STATE_READY && !t->out_used && !t->done && !transport_behind(t) && (!channel_busy(t->channel) || t->channel->finished))
        link_send(t->link, &(struct iovec){&gone, sizeof gone}, 1);
}

void transport_farewell(void)
{
    if (transport_table)
        transport_table->leaving = true;
    for (unsigned i = 0; transport_table && i < transport_table->used; i++)
        say_gone(&transport_table->transports[i]);
    transport_forked();
}

void transport_dismiss(const struct channel *c)
{
    for (unsigned i = 0; transport_table && i < transport_table->used; i++)
        if (transport_table->transports[i].state != STATE_FREE && transport_table->transports[i].channel == c)
            say_gone(&transport_table->transports[i]);
    transport_drop(c);
}

void transport_flush(void)
{
    for (unsigned i = 0; transport_table && i < transport_table->used; i++)
        if (transport_table->transports[i].state == STATE_READY && !transport_table->transports[i].wants_out)
            transport_send(&transport_table->transports[i]);
}

struct transport *transport_of(const struct channel *c)
{
    for (unsigned i = 0; transport_table && i < transport_table->used; i++)
        if (transport_table->transports[i].state == STATE_READY && transport_table->transports[i].channel == c)
            return &transport_table->transports[i];
    return NULL;
}

bool transport_pending(const struct channel *c)
{
    for (unsigned i = 0; transport_table && i < transport_table->used; i++)
        if (transport_table->transports[i].state != STATE_FREE && transport_table->transports[i].channel == c)
            return true;
    return false;
}

void transport_drop(const struct channel *c)
{
    for (unsigned i = 0; transport_table && i < transport_table->used; i++) {
        struct transport *t = &transport_table->transports[i];
        if (t->state != STATE_FREE && t->channel == c) {
            transport_close(t);
        }
    }
}

static void ring_timer(void)
{
    uint64_t ticks;
    sys(SYS_read, transport_table->timer, &ticks, sizeof ticks);
    transport_table->alarm_ms = 0;
    if (transport_table->undecided && transport_table->undecided()) {
        transport_alarm(UNDECIDED_MS);
        return;
    }
    transport_hold_while(NULL);
    transport_hang_up_overdue();
    peers_tick();
}

/* Not watched at all: of a peer that hangs up epoll would tell again and again. */
void transport_hold_while(bool (*undecided)(void))
{
    struct table *t = transport_table;
    if (!t)
        return;
    bool rested = t->undecided;
    t->undecided = NULL;
    for (unsigned i = 0; rested != !!undecided && i < t->used; i++) {
        if (t->transports[i].state == STATE_FREE)
            continue;
        if (undecided)
            transport_watch(EPOLL_CTL_DEL, t->transports[i].fd, 0, TAG_TRANSPORT, i);
        else
            transport_watch_one(&t->transports[i], EPOLL_CTL_ADD);
    }
    t->undecided = undecided;
    transport_hold(undecided ? UNDECIDED_MS : 0);
    if (undecided)
        transport_alarm(UNDECIDED_MS);
}

void transport_wake(void)
{
    if (transport_table)
        transport_table->awake = true;
}

/* Without connections there is nothing but names; a program that never waits looks at them now and then. */
static bool quiet(void)
{
    bool look = transport_table->awake || transport_table->open || transport_table->alarm_ms || ++transport_table->passed >= LOOK_EVERY;
    if (look)
        transport_table->passed = 0;
    transport_table->awake = false;
    return !look;
}

uint32_t transport_looks(void)
{
    return transport_table ? transport_table->looks : 0;
}

bool transport_pump(void)
{
    struct epoll_event events[32];
    bool moved = false;
    if (!transport_table || quiet())
        return false;
    transport_table->looks++;
    long n = sys(SYS_epoll_wait, transport_table->epoll, events, 32, 0);
    for (long i = 0; i < n; i++) {
        uint32_t index = (uint32_t)events[i].data.u64;
        struct transport *t = &transport_table->transports[index % TRANSPORTS];
        switch (events[i].data.u64 >> 32) {
        case TAG_LISTENER:
            if (transport_table->listening[index].far)
                transport_accept_far(&transport_table->listening[index]);
            else
                transport_accept(&transport_table->listening[index]);
            break;
        case TAG_TIMER:
            ring_timer();
            break;
        case TAG_LOAN:
            stream_look_at_loans();
            moved = true;
            break;
        default:
            if (t->state != STATE_FREE && (events[i].events & ~(uint32_t)EPOLLOUT))
                moved |= transport_receive(t);
            if (t->state != STATE_FREE && (events[i].events & EPOLLOUT))
                transport_send(t);
        }
    }
    peers_pumped();
    if (transport_table && transport_table->arrived && session_thread() >= 0)
        alert_others((unsigned)session_thread());
    if (transport_table)
        transport_table->arrived = false;
    return moved;
}

void transport_arrived(void)
{
    if (transport_table)
        transport_table->arrived = true;
}

bool transport_alarmed(void)
{
    return transport_table && transport_table->alarm_ms;
}

void transport_alarm(unsigned ms)
{
    if (!transport_open_table() || transport_table->alarm_ms == ms)
        return;
    struct itimerspec t = {.it_value = {ms / 1000, ms % 1000 * 1000000L}};
    transport_table->alarm_ms = ms;
    sys(SYS_timerfd_settime, transport_table->timer, 0, &t, NULL);
}
