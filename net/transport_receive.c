/* What a transport brings: greetings, then frames. */
#include "net/transport_inner.h"
#include "net/host.h"

#define READS 4 /* of one transport, before the others have their turn */

/* A second transport of the same pair is of no use for sending: the newest one carries the channel. Frames that were on
 * their way over the other one come again, and repetitions are dropped. */
static void retire_others(const struct transport *kept)
{
    for (unsigned i = 0; i < transport_table->used; i++) {
        struct transport *t = &transport_table->transports[i];
        if (t == kept || t->state != STATE_READY || t->channel != kept->channel)
            continue;
        t->retired = true;
        if (t->done)
            transport_hang_up(t); /* within a frame, whose rest may soon be forgotten */
    }
}

/* Who asks only who we are is told so, and that is all. */
static bool answer_probe(struct transport *t)
{
    transport_put_hello(t);
    transport_send(t);
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
    if (t->far)
        peers_met_far(c, &t->other, hello.door);
    if (t->accepted)
        transport_put_hello(t);
    t->cursor = from;
    t->state = STATE_READY;
    transport_begin_lending(t);
    retire_others(t);
    transport_send(t);
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
    transport_send(t);
}

bool transport_receive(struct transport *t)
{
    bool moved = false;
    for (int k = 0; k < READS; k++) {
        size_t room = IN_BYTES - t->in_used;
        bool greeting = !link_ready(t->link);
        long n = link_receive(t->link, t->in + t->in_used, room);
        if (greeting && link_ready(t->link))
            let_in(t);
        else if (greeting && t->state != STATE_FREE && link_pending(t->link))
            transport_want_out(t, true); /* our part of the handshake found no room */
        if (n == -EAGAIN && t->state != STATE_FREE)
            break;
        if (n < 0 && t->state != STATE_FREE) {
            transport_fail(t, n);
            return moved;
        }
        if (n > 0)
            t->in_used += (uint32_t)n;
        bool good = n > 0 && parse(t, &moved);
        if (t->state == STATE_FREE)
            return moved; /* dropped by what it brought */
        if (!good) {
            transport_hang_up(t);
            return moved;
        }
        if ((size_t)n < room)
            break;
    }
    return moved;
}
