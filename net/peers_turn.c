/* What a turn says to its peers, hears of them and takes, and what its commit lets go. */
#include "net/bulk.h"
#include "net/datagram.h"
#include "net/former.h"
#include "net/outbox.h"
#include "net/peers_inner.h"
#include "net/stream.h"
#include "net/transport.h"
#include "heap/fault.h"

#define HEAVY_SAID (1UL << 20)
#define HEAVY_TAKEN (2UL << 20) /* a quarter of STREAM_WINDOW_MOST, and half of CHANNEL_DATAGRAMS */
#define LONG_RUN (16UL << 20)   /* who has said so much without a pause may say twice as much in a turn */
#define SERVE_BYTES (64UL << 10)
#define HEAVY_FRAMES (CHANNEL_FRAMES / 4)

bool peers_deliver(struct channel *c, const struct wire_head *h, const unsigned char *body)
{
    if (c->former)
        return true; /* that run is over */
    peers.heard++;
    switch (h->kind) {
    case WIRE_DATAGRAM:
        return datagram_deliver(c, h, body);
    case WIRE_RETURN:
        datagram_returned(c, h, body);
        return true;
    case WIRE_BYE:
        peers_retire(c);
        return true;
    default:
        return stream_deliver(c, h, body);
    }
}

int peers_produce(struct channel *c, struct wire_head head, const void *front, size_t front_length,
                  const struct iovec *v, int count, size_t skip, size_t length)
{
    int r = channel_produce(c, head, front, front_length, v, count, skip, length);
    if (r == 0) {
        outbox.frames++;
        peers.said += length;
    }
    return r;
}

void peers_took(size_t bytes)
{
    peers.taken += bytes;
}

void peers_serve(void)
{
    if (peers.said - peers.served < SERVE_BYTES)
        return;
    peers.served = peers.said;
    transport_pump();
}

static bool said_much(void)
{
    return peers.said >= (peers.run < LONG_RUN ? HEAVY_SAID : 2 * HEAVY_SAID);
}

bool peers_heavy(void)
{
    return said_much() || peers.taken >= HEAVY_TAKEN || peers.heard >= HEAVY_FRAMES;
}

void peers_committed(void)
{
    outbox.frames = 0;
    if (peers.said || peers.run)
        peers.run = said_much() ? peers.run + peers.said : peers.run / 2;
    if (peers.said || peers.taken || peers.heard)
        peers.said = peers.served = peers.taken = peers.heard = 0;
    bulk_committed();
    if (!peers.channels && !former_first())
        return;
    bool finished = false;
    for (struct channel *c = former_first(); c; c = c->next)
        channel_committed(c);
    for (struct channel *c = peers.channels; c; c = c->next) {
        channel_committed(c);
        finished |= c->finished;
        if (!transport_alarmed() && !transport_pending(c) && peers_wants_transport(c))
            peers_reach(c);
    }
    FAULT("channel.committed");
    transport_flush();
    FAULT("channel.sent");
    if (finished)
        peers_remove_finished();
}

bool peers_spoke(void)
{
    return outbox.frames || peers.said || peers.taken || peers.heard || peers_owe();
}

bool peers_owe(void)
{
    for (const struct channel *c = former_first(); c; c = c->next)
        if (c->expected != c->durable)
            return true;
    for (const struct channel *c = peers.channels; c; c = c->next)
        if (c->expected != c->durable)
            return true;
    return false;
}
