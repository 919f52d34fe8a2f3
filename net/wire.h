/* What travels between two processes under libken: frames, and nothing else.
 *
 * A transport is a byte stream of frames: a head, then `body` bytes. Each side says WIRE_HELLO first. A frame of the
 * channel carries a sequence, 1, 2, 3, ... for each direction of a process pair, over all transports that the pair ever
 * had; WIRE_HELLO, WIRE_ACK and WIRE_GONE carry none. Little endian, as the machines are.
 * A frame is valid if and only if wire_parse() takes it.
 */
#ifndef KEN_NET_WIRE_H
#define KEN_NET_WIRE_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define WIRE_MAGIC 0x315249574e454bUL /* "KENWIR1" */
#define WIRE_VERSION 3u          /* 2: WIRE_WINDOW tells the end of the window; 3: WIRE_RETURN */
#define WIRE_DATA_MAX 65536u          /* bytes of the program in one frame */

enum wire_kind {
    WIRE_NONE,
    WIRE_HELLO,    /* struct wire_hello */
    WIRE_ACK,      /* value: all frames below it are durable here; a body of 8 bytes: see datagrams_taken */
    WIRE_GONE,     /* the sender has finished, and will never come back to ask anything */
    WIRE_DATAGRAM, /* struct wire_route, then the message */
    WIRE_OPEN,     /* struct wire_route: a stream begins; value: its window */
    WIRE_ACCEPT,   /* value: the window of the side that accepts */
    WIRE_REFUSE,   /* nobody listens there */
    WIRE_DATA,     /* bytes of a stream */
    WIRE_WINDOW,   /* value: how many bytes of the stream may be sent, since its beginning */
    WIRE_SHUTDOWN, /* the sender writes no more */
    WIRE_RESET,    /* the stream was torn down */
    WIRE_CLOSE,    /* the sender neither writes nor reads any more */
    WIRE_BYE,      /* the sender's run has finished; nothing follows */
    WIRE_RETURN,   /* a datagram that came, as it came: nobody has that address here */
    WIRE_KINDS
};

/* A stream is named by the side that opened it; both sides count for themselves. */
#define WIRE_OPENER 1u /* flag: the sender of this frame opened the stream */

struct wire_head {
    uint32_t body; /* bytes that follow */
    uint16_t kind;
    uint16_t flags;
    uint32_t stream;
    uint32_t reserved; /* 0 */
    uint64_t sequence; /* 0: not of the channel */
    uint64_t value;
};

struct wire_id {
    uint8_t bytes[16];
};

struct wire_hello {
    uint64_t magic;
    uint32_t version;
    uint16_t door;         /* TCP port at which the sender is found on its host whatever its program does; 0: none. Network order */
    uint16_t reserved;
    struct wire_id id;     /* of the store: the same for all incarnations of a run */
    uint64_t epoch;        /* which incarnation; random */
    uint64_t place;        /* where the store lies: a new run in the same place replaces the one before; 0: not told */
    struct wire_id to;     /* whom the sender takes the other for; zero: it does not know yet */
    uint64_t durable;      /* all of the other's frames below it are durable here */
    uint64_t retained;     /* the first frame that the sender can still send */
    uint64_t produced;     /* the first one that it has not made yet */
    uint64_t datagrams_taken; /* bytes of datagrams that the program has consumed, since the beginning */
};

/* An internet address: IPv4 ones are mapped into IPv6. */
struct wire_address {
    uint8_t bytes[16];
    uint16_t port; /* network order */
    uint16_t door; /* 1: of a process's door (peers_far.h), where who is dialed speaks first; 0 in frames */
};

struct wire_route {
    struct wire_address from, to;
};

#define WIRE_BODY_MAX (WIRE_DATA_MAX + sizeof(struct wire_route))

_Static_assert(sizeof(struct wire_head) == 32, "a frame's head is 32 bytes");
_Static_assert(sizeof(struct wire_hello) == 96, "");
_Static_assert(sizeof(struct wire_route) == 40, "");

static inline bool wire_sequenced(unsigned kind)
{
    return kind > WIRE_GONE && kind < WIRE_KINDS;
}

/* How long the body may be. */
static inline void wire_limits(unsigned kind, uint32_t *least, uint32_t *most)
{
    *least = *most = 0;
    switch (kind) {
    case WIRE_HELLO:
        *least = *most = sizeof(struct wire_hello);
        break;
    case WIRE_ACK:
        *least = *most = sizeof(uint64_t);
        break;
    case WIRE_DATAGRAM:
    case WIRE_RETURN:
        *least = sizeof(struct wire_route);
        *most = WIRE_BODY_MAX;
        break;
    case WIRE_OPEN:
        *least = *most = sizeof(struct wire_route);
        break;
    case WIRE_DATA:
        *least = 1;
        *most = WIRE_DATA_MAX;
        break;
    default:
        break;
    }
}

/* Looks for a frame at the beginning of `bytes`. Returns its length, head and body; 0: there is not enough of it yet;
 * -EPROTO: no frame begins like this. The head is copied, the body starts sizeof(struct wire_head) further on. */
static inline long wire_parse(const void *bytes, size_t length, struct wire_head *head)
{
    if (length < sizeof *head)
        return 0;
    memcpy(head, bytes, sizeof *head);
    uint32_t least, most;
    if (head->kind <= WIRE_NONE || head->kind >= WIRE_KINDS || head->reserved || (head->flags & ~WIRE_OPENER) ||
        wire_sequenced(head->kind) != (head->sequence != 0))
        return -EPROTO;
    wire_limits(head->kind, &least, &most);
    if (head->body < least || head->body > most)
        return -EPROTO;
    return length < sizeof *head + head->body ? 0 : (long)(sizeof *head + head->body);
}

static inline bool wire_same_id(const struct wire_id *a, const struct wire_id *b)
{
    return !memcmp(a, b, sizeof *a);
}

static inline bool wire_no_id(const struct wire_id *a)
{
    static const struct wire_id none;
    return wire_same_id(a, &none);
}

static inline bool wire_same_address(const struct wire_address *a, const struct wire_address *b)
{
    return !memcmp(a, b, sizeof *a);
}

#endif
