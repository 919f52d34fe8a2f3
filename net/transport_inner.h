/* What the files of transports share: transport.c the table, _dial and _listen how one begins, _send, _lend and _receive its
 * bytes. All of it lies in the window of this incarnation. */
#ifndef KEN_NET_TRANSPORT_INNER_H
#define KEN_NET_TRANSPORT_INNER_H

#include "net/remote.h"
#include "net/transport.h"

#include <sys/socket.h>

#define TRANSPORTS 1024
#define LISTENERS 4096
#define IN_BYTES (192UL << 10) /* more than the longest frame */

enum state { STATE_FREE, STATE_GREETING, STATE_READY };

struct transport {
    int fd;
    uint8_t state;
    bool wants_out;
    bool retired; /* a newer one carries the channel; this one only receives */
    bool accepted;
    bool far;                    /* over TCP, to another host */
    bool asks;                   /* dialed only to learn who has the address */
    long overdue_ms;             /* dialed at a door that has said nothing yet: when to give it up; 0: never */
    uint8_t protocol;            /* of it */
    long ticket;                 /* its place at the gate */
    struct wire_address other;   /* far: where it leads */
    struct link *link;

    struct channel *channel; /* in the image; NULL: not known before it greets */
    uint64_t cursor;         /* the frame to send next */
    uint32_t done;           /* bytes of it that left */
    uint64_t lends_from;     /* what comes before that frame is copied */
    uint64_t told_durable, told_datagrams;
    unsigned char out[160];  /* hello or acknowledgement */
    uint32_t out_used, out_done;
    unsigned char *in;
    uint32_t in_used;
};

struct listener {
    int fd;
    bool far, door;
    in_port_t port; /* far: of the program's */
    char name[TRANSPORT_NAME];
};

/* The pipe through which frames are lent (transport_lend.c). */
struct lending {
    int pipe[2]; /* valid while `open` */
    bool open, refused; /* copying is better here */
    struct transport *to; /* whose bytes are in it; NULL: nobody's */
    size_t bytes;
};

struct table {
    int epoll, timer;
    unsigned alarm_ms;
    unsigned open;   /* transports in use */
    unsigned passed; /* pumps that looked at nothing */
    uint32_t looks;  /* and those that did */
    bool awake;
    bool arrived; /* something that other threads may wait for */
    bool held; /* the listeners are not watched */
    bool (*undecided)(void); /* nor are the transports, until this says no; NULL: they are */
    bool leaving; /* the run is over */
    uint64_t epoch;
    struct lending lending;
    unsigned used, listeners; /* high-water marks */
    struct transport transports[TRANSPORTS];
    struct listener listening[LISTENERS];
};

struct sockaddr_un;

extern struct table *transport_table; /* in the window; NULL: none yet */

/* What epoll tells: a transport, a listener, the timer, or the other end of a child's connection. */
enum { TAG_TRANSPORT, TAG_LISTENER, TAG_TIMER, TAG_LOAN };

bool transport_open_table(void);
void transport_watch(int operation, int fd, uint32_t events, uint32_t tag, uint32_t index);

/* A place for one more; its link is to be opened, then comes transport_start(). NULL: there are too many. */
struct transport *transport_take_slot(struct channel *, bool accepted);
void transport_start(struct transport *);

/* Closes it; the others also tell peers_lost() when it was the channel's last one. */
void transport_close(struct transport *);
void transport_hang_up(struct transport *);
void transport_fail(struct transport *, long error); /* the link broke */
void transport_hang_up_overdue(void);

/* Puts hello in front of what is to be sent. */
void transport_put_hello(struct transport *);

/* Sends what may be sent. The transport may be free afterwards. */
void transport_send(struct transport *);

/* The channel goes on over this transport. */
void transport_begin_lending(struct transport *);

/* How many pieces from the vector's beginning on are of one kind: to be lent, or not. */
int transport_lendable(const struct transport *, const struct iovec *, int count, bool *lendable);

/* As link_send(), of pieces that are to be lent. 0: they have to be copied. */
long transport_lend(struct transport *, const struct iovec *, int count);

/* Sends what was taken and has not left: as link_push(). */
long transport_push(struct transport *);

static inline bool transport_behind(const struct transport *t)
{
    return link_pending(t->link) || transport_table->lending.to == t;
}

/* What this transport (NULL: any) had in the pipe is forgotten. */
void transport_end_lending(const struct transport *);
bool transport_owns_pipe(int fd);

/* Has it watched (EPOLL_CTL_ADD, EPOLL_CTL_MOD) for what it wants, unless all transports rest. */
void transport_watch_one(const struct transport *, int operation);

/* Whether transport_send() is to be called when there is room. */
void transport_want_out(struct transport *, bool on);

/* Takes in what has arrived, a part of it when that is much. True when frames of the channel were taken in. */
bool transport_receive(struct transport *);

/* Lets in who waits there. Without a descriptor for it the listeners rest a moment: epoll would tell of it again and again. */
void transport_accept(const struct listener *);
void transport_accept_far(const struct listener *);

/* The abstract UNIX address of that name; its length. */
socklen_t transport_abstract(struct sockaddr_un *, const char *name);

/* The other end of the socket belongs to our user. */
bool transport_same_user(int fd);

#endif
