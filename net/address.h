/* Addresses and the names made of them: shared by the files that find peers. */
#ifndef KEN_NET_ADDRESS_H
#define KEN_NET_ADDRESS_H

#include "net/peers.h"

bool address_is_v4(const struct wire_address *);
bool address_is_loopback(const struct wire_address *);

/* Where a datagram to that address goes: the wildcard means this host. */
struct wire_address address_target(const struct wire_address *);

/* The wildcard of a family, with the port of `a`. */
struct wire_address address_any(const struct wire_address *a, bool v4);

/* The abstract name of who has the address; TRANSPORT_NAME bytes. */
void address_name(char *to, enum protocol, const struct wire_address *);

/* Some socket of this network namespace has the address, or its wildcard: it listens there, or takes datagrams. Also true when
 * nobody can tell. */
bool address_is_held(enum protocol, const struct wire_address *);

/* The number of the interface that has the address; 0: none. */
unsigned address_interface(const struct wire_address *);

/* Asks who listens at a name: its channel, NULL when nobody does or it is not a peer. */
struct channel *peers_ask(const char *name);

/* Listens at the name that is made of this process's identity: whoever knows it finds us again. */
void peers_listen(void);

/* Nothing leads to that channel any more. */
void peers_forget(const struct channel *);

/* The peer said that nobody has that address: the next time it is asked for anew who has. True: it is on another host. */
bool peers_refused_by(enum protocol, const struct wire_address *, const struct channel *);

#endif
