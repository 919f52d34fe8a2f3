/* Peers on other hosts: which address a channel is dialed at, and where we are dialed.
 *
 * A peer is dialed where the program reaches it. But the program there may have closed that socket, as one does that takes
 * one connection only; and who only ever dialed has none. So each process with peers on other hosts has a door: a listener
 * of libken's own, at a port that the kernel chose and that it keeps through its incarnations. Hellos tell it, and either side
 * dials the other's when the program's address does not answer. KEN_PEERS and KEN_KEY_FILE hold at a door as anywhere; and
 * who comes to one keeps silent until the other side has proven the key.
 * The addresses lie in the image, with the channels; who is listed (remote.h) lies in the window. Not thread-safe.
 */
#ifndef KEN_NET_PEERS_FAR_H
#define KEN_NET_PEERS_FAR_H

#include "net/peers.h"

/* Listed in KEN_PEERS, and not a loopback address. */
bool far_listed(const struct wire_address *);

/* Where the program reaches the channel's peer; NULL: it is in this network namespace, or always the one who connects. */
const struct wire_address *far_address(const struct channel *);

/* Its door; NULL: none is known. */
const struct wire_address *far_door(const struct channel *);

/* Where it is to be dialed next; NULL: in this network namespace. */
const struct wire_address *far_next(struct channel *);
const struct wire_address *far_choose(const struct wire_address *at, const struct wire_address *door, unsigned *dials);

/* The door that it told. */
void far_note_door(struct channel *, const struct wire_address *);

/* The port of our own, network order; 0: there is none. It is made when the first peer on another host is noted. */
uint16_t far_own_door(void);

/* A new process, or the one that took over: the door is made again. */
void far_resume(void);
void far_note(struct channel *, const struct wire_address *);
void far_forget(const struct channel *);

/* A new process: peers that were listed by name are dialed where their names lead now. What the program sends to an address
 * of before goes to the same peer still. */
void far_follow(void);

/* A socket has that port: listed peers connect to it by TCP as well, whatever it is. */
void far_publish(in_port_t);
void far_unpublish(const struct fd_socket *);

/* A stream socket before it is bound: what peers send never comes to it (remote_steer.h). A listener for a datagram socket with the
 * port makes room until this one listens, is gone, or could not be bound (far_publish()): it must be the first of the two. */
void far_prepare(int fd, const struct fd_socket *, const void *address, size_t length);

#endif
