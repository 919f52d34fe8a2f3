/* How a connection between peers stands, in TCP's words. */
#include "net/pool.h"
#include "net/stream_bell.h"

#include <netinet/tcp.h>

#define SEGMENT 65483 /* what a connection within a host sends at a time */

int stream_tcp_state(const struct description *d)
{
    const struct stream *s = stream_of(d);
    bool finished = d->socket->shut & 2;
    if (s->failed)
        return TCP_CLOSE;
    if (s->state == STREAM_CONNECTING)
        return TCP_SYN_SENT;
    if (s->ended)
        return finished ? TCP_CLOSE : TCP_CLOSE_WAIT;
    return finished ? TCP_FIN_WAIT2 : TCP_ESTABLISHED;
}

size_t stream_unsent(const struct description *d)
{
    const struct stream *s = stream_of(d);
    const struct channel *c = s->channel;
    size_t bytes = 0;
    for (uint64_t n = c ? c->acked : 0; c && n < c->produced; n++) {
        const struct frame *f = c->frames[n & c->mask];
        struct wire_head h;
        memcpy(&h, f->wire, sizeof h);
        if (h.kind == WIRE_DATA && h.stream == s->id && !(h.flags & WIRE_OPENER) == !s->opened_here)
            bytes += h.body;
    }
    return bytes;
}

void stream_info(const struct description *d, struct tcp_info *info)
{
    info->tcpi_state = (uint8_t)stream_tcp_state(d);
    info->tcpi_unacked = (uint32_t)((stream_unsent(d) + SEGMENT - 1) / SEGMENT);
}
