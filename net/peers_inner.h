/* What the files of peers share: peers.c who they are, peers_names.c where, peers_turn.c what a turn says, peers_end.c the last words of a run. */
#ifndef KEN_NET_PEERS_INNER_H
#define KEN_NET_PEERS_INNER_H

#include "net/peers.h"

#define RETRY_MS 20 /* how often a peer that went away is looked for */

/* In the image. */
struct peers {
    struct wire_id self;
    uint64_t place;
    bool on;
    struct channel *channels;
    unsigned retries;
    uint64_t suspect; /* the epoch of a hello that did not fit */
    uint64_t said;    /* bytes that this turn sent */
    uint64_t served;  /* `said` when peers were served last */
    uint64_t run;     /* bytes that the turns before sent, as long as each was heavy */
    uint64_t taken;   /* bytes that it gave to the program */
    uint32_t heard;   /* frames that it took in */
    bool unsent;      /* the store may have a file of what former runs left, or this one leaves */
};

extern struct peers peers;

/* False: there is no store. */
bool peers_know_self(void);

/* The channel with the peer of that identity, or NULL; a new one, NULL: out of memory. */
struct channel *peers_channel(const struct wire_id *);
struct channel *peers_make_channel(const struct wire_id *);

/* The peer's run is over: nothing is to be sent to it, and its addresses may be somebody else's. */
void peers_retire(struct channel *);

/* Of the channels of runs that are over only so many are kept. */
void peers_remove_finished(void);

/* Listed, and not an address of this host: it is asked over TCP. */
bool peers_is_far(const struct wire_address *);

/* Makes a transport, now or a little later, unless there is one; not while a former run is to be heard first. */
void peers_reach(struct channel *);
bool peers_wants_transport(const struct channel *);
void peers_reach_for_formers(void);

/* Up to `most` addresses that led to the peer; how many. */
struct unsent_address;
/* Asks who has the address, on this host: NULL when no peer answers. */
struct channel *peers_ask_at(enum protocol, const struct wire_address *);

unsigned peers_addresses(const struct channel *, struct unsent_address *, unsigned most);

long peers_now_ms(void); /* CLOCK_MONOTONIC */

#endif
