/* The peers: other processes under libken that this one talks to, and how they are found.
 *
 * Who binds an address listens on an abstract UNIX socket named after it as well (`ken/udp/127.0.0.1:7001`); to connect
 * there tells within microseconds whether a peer or a plain process has the address. Every process that has peers also
 * listens at a name made of its identity, by which it is found again after a crash of either side.
 * The channels and the addresses that led to them lie in the image. Not thread-safe; handlers call with the lock held.
 */
#ifndef KEN_NET_PEERS_H
#define KEN_NET_PEERS_H

#include "net/channel.h"
#include "net/fdtable.h"
#include "net/transport.h"

#include <netinet/in.h>

enum protocol { PROTOCOL_UDP, PROTOCOL_TCP };

/* A new process, its descriptors made again, at the last commit: names are listened at again, peers are told. */
void peers_resume(void);

/* The same in a child that is the program now: what it has to say is in no commit yet. */
void peers_inherit_all(void);

/* True when there is any, or was lately. */
bool peers_any(void);

/* A child of fork that may become the program: as long as it is not, there are no peers, and it has no names. */
void peers_stand_by(bool on);
bool peers_stands_by(void);

/* After each commit: what the turn produced leaves, what it took in is acknowledged. */
void peers_committed(void);

/* The last turn: says good-bye on every channel (before the commit). After it peers_linger() waits a moment for the peers
 * to take everything; false: they have, or the time is up. *until is 0 at first. Between two of them what came in is to
 * be committed: others wait for it in the same way. */
void peers_farewell(void);
bool peers_linger(long *until, unsigned linger_ms);

/* What the peers have not taken after that goes into the store, for the next run (unsent.h). peers_leaves(): there is
 * something; it notes that in the image, which is to be committed then. peers_leave() writes the file, or removes one
 * that is of no use any more: 0 or -errno. Nothing may come in between it and the commit that finishes the run. */
bool peers_leaves(void);
int peers_leave(unsigned linger_ms);

/* A fresh run: takes in what unsent_map() found. 0 or -ENOMEM. */
int peers_inherit(const void *unsent);

/* True when frames were taken in that no commit covers yet. */
bool peers_owe(void);

/* The turn has said something to peers, heard of them, or taken what had come. */
bool peers_spoke(void);

/* The turn carries so much that it is to be ended: whoever it came from, or goes to, need not wait for the program to come to
 * rest, and while the one side commits the other one has something to do. */
bool peers_heavy(void);

/* The program goes on saying things: what the kernel had no room for before may leave now, and peers may have answered. To be
 * called at each piece; it looks at them now and then only. */
void peers_serve(void);

/* The program consumed bytes of a peer's. */
void peers_took(size_t bytes);

/* The peer that has the address, or NULL: it is a plain process's, or nobody's. May exchange a greeting. */
struct channel *peers_find(enum protocol, const struct wire_address *);

/* An address that is under libken for certain (KEN_PEERS), whose process has not answered yet: peers_find() has asked. Wait, and
 * find it again; nothing may be sent to it as it is. An address of this host is not when a plain process has it. */
bool peers_awaited(enum protocol, const struct wire_address *);

/* address_source(), for other hosts as well. */
struct wire_address peers_source(const struct wire_address *local, const struct wire_address *to);

/* What came over that channel came from that address: answers go there. */
void peers_learn(enum protocol, const struct wire_address *, struct channel *);

/* channel_produce(), with the turn told that an output waits. */
int peers_produce(struct channel *, struct wire_head, const void *front, size_t front_length,
                  const struct iovec *, int count, size_t skip, size_t length);

/* The socket has an address now (bound, or listening): peers may find it. */
void peers_publish(int fd, struct description *);
void peers_unpublish(const struct fd_socket *);

/* How well a socket that is bound to `local`, and published, fits what comes to that address, as the kernel has it: 0 not at all; its
 * address before the wildcard, and that before the one of IPv6, if that takes IPv4, too. */
int peers_fit(const struct fd_socket *, const struct wire_address *local, const struct wire_address *to);

/* Before a socket is bound or listens, and before sockets are made again: whoever finds the address in the kernel finds its name,
 * too, and takes it for no plain process. */
void peers_announce(int fd, struct description *, const struct wire_address *);
void peers_renounce(int fd, struct description *, const struct wire_address *); /* it did not come to that */
void peers_announce_again(void);

/* Addresses. False: not an internet address. */
bool address_read(struct wire_address *, const void *sockaddr, size_t length);

/* Writes it as a socket of that domain sees it; returns the length of a whole one. `room` bytes at most are written. */
size_t address_write(const struct wire_address *, int domain, void *to, size_t room);

bool address_is_wildcard(const struct wire_address *);
bool address_is_group(const struct wire_address *); /* multicast, broadcast */

/* What the other side sees as the source of what goes from a socket bound to `local` to `to`. */
struct wire_address address_source(const struct wire_address *local, const struct wire_address *to);

#endif
