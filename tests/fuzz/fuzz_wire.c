/* Bytes of a peer: frames are parsed as a transport does it, and go into a channel that has frames of its own. */
#include "net/channel.h"
#include "net/pool.h"

#include <stdlib.h>

static void check(const struct channel *c)
{
    if (c->acked > c->ready || c->ready > c->produced || c->durable > c->expected ||
        c->produced - c->acked > CHANNEL_FRAMES)
        abort();
    for (uint64_t s = c->acked; s < c->ready; s++) {
        const struct frame *f = channel_frame(c, s);
        struct wire_head h;
        if (!f || wire_parse(f->wire, f->length, &h) != f->length || h.sequence != s)
            abort();
    }
}

static void produce(struct channel *c, unsigned n)
{
    static char text[256];
    struct iovec v = {text, sizeof text};
    for (unsigned i = 0; i < n; i++)
        channel_produce(c, (struct wire_head){.kind = WIRE_DATA, .stream = i}, NULL, 0, &v, 1, 0, i + 1);
    channel_committed(c);
}

static void take(struct channel *c, const struct wire_head *h, const unsigned char *body)
{
    struct wire_hello hello;
    uint64_t from = 0;
    if (h->kind != WIRE_HELLO) {
        int r = channel_receive(c, h, body);
        if (r != CHANNEL_DELIVER && r != CHANNEL_DROP && r != -EPROTO)
            abort();
        return;
    }
    memcpy(&hello, body, sizeof hello);
    int r = channel_connected(c, &hello, &from);
    if (r == CHANNEL_REPLACED)
        channel_renew(c);
    else if (r == 0 && (from < c->acked || from > c->produced))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct channel c = {0};
    struct wire_id id = {{1}};
    struct wire_head h;
    if (!size)
        return 0;
    channel_open(&c, &id);
    produce(&c, data[0] % 16);
    for (data++, size--; size;) {
        /* In memory of its own length, so that a read behind it is seen. */
        unsigned char *bytes = malloc(size);
        memcpy(bytes, data, size);
        long n = wire_parse(bytes, size, &h);
        if (n > (long)size || (n > 0 && (size_t)n != sizeof h + h.body) || (n < 0 && n != -EPROTO))
            abort();
        if (n > 0) {
            take(&c, &h, bytes + sizeof h);
            check(&c);
        }
        free(bytes);
        if (n <= 0)
            break;
        data += n;
        size -= (size_t)n;
        if (c.expected & 1)
            channel_committed(&c);
    }
    channel_close(&c);
    return 0;
}
