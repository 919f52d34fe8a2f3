/* What a transport sends: the rest of a frame that was begun, hello or acknowledgement, frames. */
#include "net/transport_inner.h"
#include "heap/fault.h"

#include <sys/epoll.h>

#define VECTOR 64

static void put_out(struct transport *t, const struct wire_head *head, const void *body)
{
    memcpy(t->out, head, sizeof *head);
    memcpy(t->out + sizeof *head, body, head->body);
    t->out_used = (uint32_t)sizeof *head + head->body;
    t->out_done = 0;
}

void transport_put_hello(struct transport *t)
{
    struct wire_head head = {.kind = WIRE_HELLO, .body = sizeof(struct wire_hello)};
    struct wire_hello hello = {.epoch = transport_table->epoch};
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

void transport_want_out(struct transport *t, bool on)
{
    if (t->wants_out == on)
        return;
    t->wants_out = on;
    transport_watch_one(t, EPOLL_CTL_MOD);
}

/* Nothing more can be sent now. A link that waits for the other side's part of the handshake needs no room. */
static void pause_out(struct transport *t)
{
    transport_want_out(t, transport_behind(t) || link_ready(t->link));
}

/* The peer had it over another transport, and it is forgotten here: what was begun cannot be ended. */
static bool is_stranded(const struct transport *t)
{
    return MUTANT("transport.stranded", false, t->state == STATE_READY && t->done && t->cursor < t->channel->acked);
}

static long send_some(struct transport *t, const struct iovec *v, int count, int *sent)
{
    bool lendable;
    *sent = transport_lendable(t, v, count, &lendable);
    long n = lendable ? transport_lend(t, v, *sent) : 0;
    return n ? n : link_send(t->link, v, *sent);
}

void transport_send(struct transport *t)
{
    long r;
    while (!(r = transport_push(t))) {
        struct iovec v[VECTOR];
        if (is_stranded(t)) {
            transport_hang_up(t);
            return;
        }
        if (t->state == STATE_READY && !t->retired)
            put_ack(t);
        int count = gather(t, v);
        if (!count)
            break;
        long n = send_some(t, v, count, &count);
        if (n < 0) {
            r = n;
            break;
        }
        account(t, v, count, (size_t)n);
    }
    if (r == -EAGAIN)
        pause_out(t);
    else if (r < 0)
        transport_fail(t, r);
    else
        transport_want_out(t, transport_behind(t));
}
