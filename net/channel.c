#include "net/channel.h"
#include "net/bulk.h"
#include "net/gather.h"
#include "net/host.h"
#include "heap/fault.h"
#include "net/pool.h"

#define FRAMES_FIRST 16u
#define FRAME_COST (sizeof(struct frame) + POOL_COST)
#define LONG_FRAME 16384u /* of several pages, each of which would be a fault and a comparison */
_Static_assert(sizeof(struct frame) + sizeof(struct wire_head) + CHANNEL_PIECE == BULK_BLOCK, "a piece fills a block");
#define FRAMES_KEPT 1024u /* for libken's own frames, so that a full channel can still be emptied */

void channel_open(struct channel *c, const struct wire_id *peer)
{
    *c = (struct channel){.peer = *peer, .acked = 1, .ready = 1, .produced = 1, .expected = 1, .durable = 1};
}

static void give(struct frame *f)
{
    if (bulk_holds(f))
        bulk_give(f);
    else
        pool_give(f);
}

/* Drops all frames below `to`. */
static void trim(struct channel *c, uint64_t to)
{
    for (; c->acked < to; c->acked++)
        give(c->frames[c->acked & c->mask]);
}

/* Not because the peer has read them: it may still do. */
static void drop(struct channel *c)
{
    if (c->acked != c->produced)
        bulk_recall();
    trim(c, c->produced);
}

void channel_close(struct channel *c)
{
    drop(c);
    pool_give(c->frames);
    c->frames = NULL;
    c->mask = 0;
}

static bool grow(struct channel *c)
{
    uint32_t room = c->frames ? (c->mask + 1) * 2 : FRAMES_FIRST;
    struct frame **wider = room <= CHANNEL_FRAMES ? pool_take(room * sizeof *wider) : NULL;
    if (!wider)
        return false;
    for (uint64_t n = c->acked; n < c->produced; n++)
        wider[n & (room - 1)] = c->frames[n & c->mask];
    pool_give(c->frames);
    c->frames = wider;
    c->mask = room - 1;
    return true;
}

uint32_t channel_room(const struct channel *c)
{
    uint64_t retained = c->produced - c->acked;
    return retained < CHANNEL_FRAMES - FRAMES_KEPT ? (uint32_t)(CHANNEL_FRAMES - FRAMES_KEPT - retained) : 0;
}

size_t channel_datagram_room(const struct channel *c)
{
    uint64_t out = c->datagrams_sent - c->datagrams_acked;
    return channel_room(c) && out < CHANNEL_DATAGRAMS ? CHANNEL_DATAGRAMS - out : 0;
}

/* The last frame, when it is kept back and carries bytes of the same stream. */
static struct frame *continued(const struct channel *c, const struct wire_head *head)
{
    if (head->kind != WIRE_DATA || c->produced == c->ready || c->produced == c->acked)
        return NULL;
    struct frame *last = c->frames[(c->produced - 1) & c->mask];
    struct wire_head was;
    memcpy(&was, last->wire, sizeof was);
    return was.kind == WIRE_DATA && was.stream == head->stream && was.flags == head->flags ? last : NULL;
}

static bool join(struct frame *f, const struct iovec *v, int count, size_t skip, size_t length)
{
    struct wire_head head;
    if (bulk_holds(f) && !bulk_write(f, sizeof *f + f->length + length))
        return false;
    memcpy(&head, f->wire, sizeof head);
    gather(f->wire + f->length, v, count, skip, length);
    f->length += (uint32_t)length;
    head.body += (uint32_t)length;
    memcpy(f->wire, &head, sizeof head);
    return true;
}

/* A stream's bytes that fill pages, or continue such. */
static struct frame *make_bulk(size_t length)
{
    struct frame *f = sizeof *f + length <= BULK_BLOCK ? bulk_take() : NULL;
    if (f && !bulk_write(f, sizeof *f + length)) {
        bulk_give(f);
        return NULL;
    }
    if (f)
        *f = (struct frame){(uint32_t)length, BULK_BLOCK - sizeof *f};
    return f;
}

/* Bytes of a stream get room for more that join them. */
static struct frame *make(size_t length, bool grows)
{
    size_t capacity = length;
    if (grows)
        for (capacity = 128; capacity < length + FRAME_COST; capacity *= 2)
            ;
    capacity -= grows ? FRAME_COST : 0;
    struct frame *f = pool_take(sizeof *f + capacity);
    if (f && length >= LONG_FRAME)
        session_will_write(f, length);
    if (f)
        *f = (struct frame){(uint32_t)length, (uint32_t)capacity};
    return f;
}

size_t channel_piece(const struct channel *c, const struct wire_head *head)
{
    const struct frame *last = continued(c, head);
    return last && bulk_holds(last) && last->length < last->capacity ? last->capacity - last->length : CHANNEL_PIECE;
}

int channel_produce(struct channel *c, struct wire_head head, const void *front, size_t front_length,
                    const struct iovec *v, int count, size_t skip, size_t length)
{
    struct frame *last = continued(c, &head), *f = NULL;
    if (last && last->length + length <= last->capacity && last->length + length - sizeof head <= WIRE_DATA_MAX)
        return join(last, v, count, skip, length) ? 0 : -ENOBUFS;
    bool full = !c->frames || c->produced - c->acked > c->mask;
    if (full && !grow(c))
        return -ENOBUFS;
    if (head.kind == WIRE_DATA && (length >= LONG_FRAME || (last && bulk_holds(last))))
        f = make_bulk(sizeof head + length);
    if (!f)
        f = make(sizeof head + front_length + length, head.kind == WIRE_DATA);
    if (!f)
        return -ENOBUFS;
    head.body = (uint32_t)(front_length + length);
    head.sequence = c->produced;
    memcpy(f->wire, &head, sizeof head);
    if (front_length)
        memcpy(f->wire + sizeof head, front, front_length);
    gather(f->wire + sizeof head + front_length, v, count, skip, length);
    if (head.kind == WIRE_DATAGRAM)
        c->datagrams_sent += head.body;
    c->frames[c->produced++ & c->mask] = f;
    return 0;
}

void channel_committed(struct channel *c)
{
    /* Written only when they change: an idle channel costs a turn nothing. */
    if (c->ready != c->produced)
        c->ready = c->produced;
    if (c->durable != c->expected)
        c->durable = c->expected;
    if (c->datagrams_taken_durable != c->datagrams_taken)
        c->datagrams_taken_durable = c->datagrams_taken;
}

const struct frame *channel_frame(const struct channel *c, uint64_t sequence)
{
    return sequence >= c->acked && sequence < MUTANT("channel.sent_early", c->produced, c->ready) ? c->frames[sequence & c->mask] : NULL;
}

/* A crash may have taken back what was acknowledged before, so older news is no fault. */
static int take_ack(struct channel *c, uint64_t durable, uint64_t datagrams)
{
    if (durable > c->ready || datagrams > c->datagrams_sent)
        return -EPROTO;
    trim(c, durable);
    FAULT("channel.acknowledged");
    if (datagrams > c->datagrams_acked)
        c->datagrams_acked = datagrams;
    return CHANNEL_DROP;
}

int channel_receive(struct channel *c, const struct wire_head *head, const void *body)
{
    if (head->kind == WIRE_ACK) {
        uint64_t datagrams;
        memcpy(&datagrams, body, sizeof datagrams);
        return take_ack(c, head->value, datagrams);
    }
    if (!wire_sequenced(head->kind) || head->sequence > c->expected)
        return -EPROTO;
    if (MUTANT("channel.no_deduplication", false, head->sequence < c->expected))
        return CHANNEL_DROP;
    c->expected++;
    FAULT("channel.received");
    if (head->kind == WIRE_BYE)
        c->finished = true;
    return CHANNEL_DELIVER;
}

void channel_hello(const struct channel *c, struct wire_hello *h)
{
    h->magic = WIRE_MAGIC;
    h->version = WIRE_VERSION;
    h->to = c->peer;
    h->durable = c->durable;
    h->retained = c->acked;
    h->produced = c->ready;
    h->datagrams_taken = c->datagrams_taken_durable;
}

void channel_ack(const struct channel *c, struct wire_head *head, uint64_t *body)
{
    *head = (struct wire_head){.body = sizeof *body, .kind = WIRE_ACK, .value = MUTANT("channel.acknowledged_early", c->expected, c->durable)};
    *body = c->datagrams_taken_durable;
}

int channel_connected(struct channel *c, const struct wire_hello *h, uint64_t *from)
{
    if (h->magic != WIRE_MAGIC || h->version != WIRE_VERSION || wire_no_id(&h->id))
        return -EPROTO;
    if (!wire_no_id(&c->peer) && !wire_same_id(&c->peer, &h->id))
        return -EPROTO;
    bool ahead = h->durable > c->ready || h->datagrams_taken > c->datagrams_sent; /* it has what was never sent */
    bool lost = h->retained > c->expected;  /* it forgot what is not here */
    bool behind = h->durable < c->acked;    /* it wants what is forgotten here */
    bool undone = h->produced < c->expected; /* it did not make what arrived here */
    /* Another transport of the same incarnation may have overtaken this hello. */
    if (ahead || lost || (c->epoch != h->epoch && (behind || undone)))
        return CHANNEL_REPLACED;
    c->peer = h->id;
    if (c->epoch != h->epoch)
        c->epoch = h->epoch;
    if (h->place && c->place != h->place)
        c->place = h->place;
    take_ack(c, h->durable, h->datagrams_taken);
    *from = c->acked;
    return 0;
}

void channel_abandon(struct channel *c, uint64_t durable)
{
    drop(c);
    c->acked = c->ready = c->produced = durable;
    c->datagrams_acked = c->datagrams_sent;
}

void channel_renew(struct channel *c)
{
    struct channel *next = c->next;
    struct wire_id peer = c->peer;
    uint64_t place = c->place;
    channel_close(c);
    channel_open(c, &peer);
    c->next = next;
    c->place = place;
}
