/* A stream, and its doorbell: shared by the files of streams. */
#ifndef KEN_NET_STREAM_BELL_H
#define KEN_NET_STREAM_BELL_H

#include "net/stream.h"

#include <fcntl.h>
#include <sys/socket.h>

/* Bytes that wait for the program. */
struct chunk {
    struct chunk *next;
    uint32_t length, at; /* [at, length) are unread */
    char *bytes;         /* landing.h */
};

struct stream {
    struct stream *next, *before; /* of all */
    struct stream *same;          /* of those with the same place in the index */
    struct channel *channel; /* NULL: the peer is gone */
    uint32_t id;
    bool opened_here;
    bool ended;      /* the peer writes no more */
    bool deaf;       /* the peer reads no more */
    bool failed;     /* reset, or refused */
    uint8_t state;   /* enum stream_state */
    int32_t error;   /* to be told once */
    int32_t of;      /* description; -1: not accepted yet */
    int32_t listener; /* that of the listener that it waits at; -1 */
    uint32_t waited;  /* ticks, there */
    int32_t bell;    /* libken's end of the doorbell, of this incarnation; -1 */
    uint32_t rings;  /* bytes in the doorbell */
    uint32_t rang;   /* at which look at what came in: once at each is enough */
    bool full;       /* the program's end takes nothing more */
    bool awaited;    /* connect() has not told yet that it is open */
    bool moved;      /* the first who was asked listens there no more: another one is */
    bool uncalled;   /* the peer does not know of it yet: nobody knows who that is (stream_call.c) */
    struct wire_address local, remote;
    struct loan *loans; /* to children of fork (stream_loan.c) */
    struct chunk *first, *last;
    size_t unread;
    uint64_t taken, granted; /* bytes that the program consumed; that the peer may have sent */
    uint64_t sent, limit;    /* bytes that went; that may have gone */
    uint64_t window;         /* how many more than `taken` are granted the next time */
};

extern struct stream *stream_first; /* those that were accepted last come first */

struct stream *stream_of(const struct description *);
struct stream *stream_make(struct channel *, uint32_t id, bool opened_here);
void stream_destroy(struct stream *);
void stream_called(struct stream *); /* or given up */
void stream_refused(struct stream *);

/* It is made to a plain process instead, by the kernel, under the same numbers. False: that cannot be; nothing has changed. */
bool stream_connect_plain(struct stream *);
int stream_tell(struct stream *, enum wire_kind, uint64_t value); /* 0 or -errno: the channel is full */
void stream_fail(struct stream *, int error);

/* Nothing will come, and nothing may be written: what poll() calls hung up. */
bool stream_over(const struct stream *);

void stream_consume(struct stream *, size_t bytes);
size_t stream_room(const struct stream *); /* how many bytes may be sent now */
int stream_put(struct stream *, const struct iovec *, int count, size_t skip, size_t length); /* 0 or -ENOBUFS */

/* What waits goes to the child that has the connection for its own, as far as that takes it; nothing when there is none. */
void stream_hand_in(struct stream *);
void stream_window_opened(struct stream *);

/* It waits at the listener no longer. */
void stream_not_pending(struct stream *, struct description *listener);

/* A new incarnation: the children are nobody's now. */
void stream_loans_lost(void);

/* Moves a descriptor of libken's out of the program's way: the new one, or -EMFILE; closes `fd`. */
long bell_high(int fd);
void bell_close(int fd);

/* Makes the pair; returns the program's end. */
long bell_make(struct stream *);

/* Puts the program's end at every number of the description, keeping its flags; bell_replace(): and its interest lists. */
int bell_put(const struct description *, int made);
int bell_replace(const struct description *, int made);

void bell_ring(struct stream *);          /* input came */
void bell_hush(struct stream *, int fd);  /* no input is left */
void bell_end(struct stream *, bool both); /* no more input will come; both: nor will output be taken */
void bell_break(struct stream *, int fd);  /* reset: nothing is left, and poll() tells of an error */
void bell_forgive(struct stream *);        /* the error was told */
int bell_number(int description);          /* a descriptor that leads to it, or -1 */
void bell_full(struct stream *, int fd);  /* nothing can be written */
void bell_drain(struct stream *);         /* something can */
void bell_remove(struct stream *);

#endif
