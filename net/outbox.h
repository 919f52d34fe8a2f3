/* The outbox: outputs of the turn, held until the state that produced them is durable.
 *
 * Entries in the order of the program's calls, the data behind them; all of it in the image, so that a crash between
 * the commit and the release lets the next incarnation finish. Small outputs to the same stream are joined.
 *
 *   entries   | released, done | tails: committed, the kernel's buffer was full | new: of this turn |
 *             0                                                     committed               count
 *
 * Not thread-safe; callers hold signals off.
 */
#ifndef KEN_NET_OUTBOX_H
#define KEN_NET_OUTBOX_H

#include "net/fdtable.h"

#include <sys/uio.h>

#define OUTBOX_ENTRIES 992         /* one page of progress tells about each */
#define OUTBOX_SMALL 2048
#define OUTBOX_BYTES (8UL << 20)   /* a turn that emits more ends early */
#define OUTBOX_STREAM (1UL << 20)  /* what a non-blocking stream may have unreleased */

enum output_kind {
    OUTPUT_WRITE,    /* write(2): pipes, terminals */
    OUTPUT_STREAM,   /* send(2) */
    OUTPUT_DATAGRAM, /* sendto(2): message boundaries are kept */
};

struct output {
    char *data; /* the address, then the bytes */
    int32_t fd;
    uint32_t length;
    uint32_t done; /* bytes that left */
    int32_t flags; /* MSG_* of the call */
    uint8_t kind;
    uint8_t finished;
    uint8_t stuck;  /* the kernel would not take it just now */
    uint8_t orphan; /* the program closed the descriptor; `fd` is libken's duplicate */
    uint16_t address_length;
};

struct outbox {
    uint32_t count, committed;
    uint32_t tails;      /* committed entries that are not finished */
    uint32_t small_used; /* of `small` */
    size_t large_used, large_ready;
    size_t fresh_bytes;  /* held by this turn */
    uint32_t frames;     /* of channels, produced by this turn (peers.c): they wait for the commit, too */
    int64_t first_ns;    /* when the first of them was held; 0: not asked yet */
    char *large;         /* reserved when the built-in data do not suffice */
    char small[OUTBOX_SMALL]; /* the bytes of a turn that emits little: one page with the first entries */
    struct output entries[OUTBOX_ENTRIES];
};

extern struct outbox outbox;

/* What this turn holds: 0 when nothing, else at least 1 for each entry. */
size_t outbox_bytes(void);

/* True when outputs wait for a commit. Tails do not: they wait for the kernel's buffers. */
static inline bool outbox_held(void)
{
    return outbox.count > outbox.committed || outbox.frames;
}

/* How many bytes one entry may take now; 0: the turn is to be ended first. */
size_t outbox_room(void);

/* Copies `length` bytes from `skip` on of the vector, and the address, into a new entry (or joins them to the last
 * one). `length` is at most outbox_room(). Returns 0, or -ENOBUFS: nothing was held, end the turn and try again. */
int outbox_hold(int fd, struct description *, enum output_kind, int flags, const void *address,
                size_t address_length, const struct iovec *, int count, size_t skip, size_t length);

/* Before a commit: entries that left are dropped, the rest moves to the front. */
void outbox_compact(void);

/* After the commit is durable: everything goes out, in order. Never blocks: what a full descriptor does not take stays as
 * a tail, which the waits serve (call_wait.h). Behind a tail of a descriptor that blocks everything stays, as the program
 * would have stood still there; behind that of a non-blocking one only the same descriptor's entries do. In a new
 * incarnation it goes on behind what the last one released. */
void outbox_release(void);

/* Waits until the tails have left, too: before the process exits. Non-blocking ones that do not move get 5 seconds. */
void outbox_drain(void);

/* The program closes a socket whose tail has not left: it leaves by a duplicate, in the background. */
void outbox_orphan(int fd);

/* In a child of fork: what has not left is its parent's. */
void outbox_forked(void);

/* In a new process: sockets that were closed before are gone. */
void outbox_reopen(void);

/* True for the duplicates of orphans. */
bool outbox_owns(int fd);

/* `bytes` more of the entry left; the entry is done with, whatever remains of it. For release.c and progress.c. */
void outbox_left(struct output *, uint32_t bytes);
void outbox_settle(struct output *);

/* Tries the tails again; never blocks. Returns true when one of them moved. */
bool outbox_retry(void);

/* The descriptors that tails wait for, at most `most`; returns how many. */
int outbox_tails(int *fds, int most);

/* True when the descriptor has entries that have not left. */
bool outbox_holds(int fd);

#endif
