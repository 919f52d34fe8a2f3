/* The channel: one ordered sequence of frames each way between two processes, through crashes of either.
 *
 * A pure state machine, without system calls. All of it lies in the image: it is committed and rolled back with the
 * program, and needs no other recovery than one handshake, local to the pair (channel_connected()).
 *
 *   out   acked <= ready <= produced        below acked: forgotten, durable at the peer
 *                                           below ready: of committed turns, may be sent, kept for a peer that lost them
 *                                           from ready on: of this turn, kept back
 *   in    durable <= expected               below durable: the turn that took them in is committed, may be acknowledged
 *                                           below expected: taken in; a repetition is dropped
 *
 * Why it is exact: what a crash takes back at the receiver was never acknowledged, hence is still retained at the
 * sender; what a crash takes back at the sender was never sent.
 * Source: Yoo et al., "Composable Reliability for Asynchronous Systems", USENIX ATC 2012, section 3.2.
 * Not thread-safe.
 */
#ifndef KEN_NET_CHANNEL_H
#define KEN_NET_CHANNEL_H

#include "net/wire.h"

#include <sys/uio.h>

#define CHANNEL_FRAMES 32768u            /* retained at most; the last 1024 are kept for libken's own frames */
#define CHANNEL_PIECE 32728u             /* bytes of a stream in one frame, if there are as many */
#define CHANNEL_DATAGRAMS (4UL << 20)    /* bytes of datagrams on their way or unread at the peer */

/* A retained frame, as it goes over the wire: head and body in one piece. */
struct frame {
    uint32_t length, capacity;
    unsigned char wire[];
};

struct channel {
    struct channel *next; /* of all channels; the owner's */
    struct wire_id peer;  /* zero: not known yet */
    uint64_t epoch, place; /* of its last hello */
    uint64_t acked, ready, produced;
    uint64_t expected, durable;
    struct frame **frames; /* [sequence & mask] for sequences in [acked, produced) */
    uint32_t mask;
    bool finished;         /* the peer said WIRE_BYE */
    bool gone;             /* and WIRE_GONE: it needs no answer any more */
    bool former;           /* a former run's (former.h) */
    uint64_t datagrams_sent, datagrams_acked;           /* bytes; the peer's program consumed so many */
    uint64_t datagrams_taken, datagrams_taken_durable; /* bytes; ours did */
};

enum channel_verdict {
    CHANNEL_DELIVER = 1,  /* the next frame: act on it */
    CHANNEL_DROP = 2,     /* seen before, or an acknowledgement */
    CHANNEL_REPLACED = 3, /* the peer lost its state, or we did: see channel_renew() */
};

/* A channel in which nothing was ever sent. */
void channel_open(struct channel *, const struct wire_id *peer);

/* Gives its memory back (the struct itself is the caller's). */
void channel_close(struct channel *);

/* Appends a frame: sequence and body are filled in; the body is `front` (front_length bytes; may be 0), then `length`
 * bytes of the vector from `skip` on. Bytes that continue the stream of the last frame join it while it is kept back.
 * Returns 0, or -ENOBUFS: nothing was done; end the turn, wait for acknowledgements. */
int channel_produce(struct channel *, struct wire_head head, const void *front, size_t front_length,
                    const struct iovec *, int count, size_t skip, size_t length);

/* How many bytes of a stream are best produced next: what the last frame has room for, or a whole one's. */
size_t channel_piece(const struct channel *, const struct wire_head *);

/* How many more frames of the program it takes. */
uint32_t channel_room(const struct channel *);

/* How long a datagram may be sent now, at most. */
size_t channel_datagram_room(const struct channel *);

/* The turn is durable: what it produced may be sent, what it took in may be acknowledged. */
void channel_committed(struct channel *);

/* The frame of that sequence, if it may be sent; NULL otherwise. */
const struct frame *channel_frame(const struct channel *, uint64_t sequence);

/* One frame that came in (wire_parse() took it; not WIRE_HELLO). enum channel_verdict, or -EPROTO: a gap, or an
 * acknowledgement of what was not sent: drop the transport. */
int channel_receive(struct channel *, const struct wire_head *, const void *body);

/* What this side has to say in a handshake and in an acknowledgement. */
void channel_hello(const struct channel *, struct wire_hello *);
void channel_ack(const struct channel *, struct wire_head *, uint64_t *body);

/* The peer's hello: forgets what is durable there, and tells through *from the first frame to send over this transport.
 * 0, -EPROTO (not of this protocol or version, or of another peer) or CHANNEL_REPLACED: its sequences and ours
 * have no common past; nothing was changed. A hello of a process that died meanwhile can look like that: believe it
 * when the same epoch says so again. */
int channel_connected(struct channel *, const struct wire_hello *, uint64_t *from);

/* After CHANNEL_REPLACED: the channel begins anew, as after channel_open(). The other side finds that its own past has
 * no match then, and does the same at the next handshake. */
void channel_renew(struct channel *);

/* The peer's run is over: what it did not take is forgotten. It may come back from a crash in its last moments, to hear
 * that all of its frames are here; `durable` is what it then says it has. */
void channel_abandon(struct channel *, uint64_t durable);

/* True when the peer does not have everything yet. */
static inline bool channel_busy(const struct channel *c)
{
    return c->acked != c->produced;
}

#endif
