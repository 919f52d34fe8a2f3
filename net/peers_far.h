/* Peers on other hosts: which address a channel is dialed at, and where we are dialed.
 *
 * The addresses lie in the image, with the channels; who is listed (remote.h) lies in the window. Not thread-safe.
 */
#ifndef KEN_NET_PEERS_FAR_H
#define KEN_NET_PEERS_FAR_H

#include "net/peers.h"

/* Listed in KEN_PEERS, and not a loopback address. */
bool far_listed(const struct wire_address *);

/* Where the channel's peer is dialed; NULL: it is in this network namespace, or always the one who dials. */
const struct wire_address *far_address(const struct channel *);
void far_note(struct channel *, const struct wire_address *);
void far_forget(const struct channel *);

/* A new process: peers that were listed by name are dialed where their names lead now. What the program sends to an address
 * of before goes to the same peer still. */
void far_follow(void);

/* The socket has an address: listed peers connect to it by TCP as well. */
void far_publish(int fd, const struct fd_socket *, const struct wire_address *);
/* A stream socket before it is bound: what peers send never comes to it (remote_steer.h). */
void far_prepare(int fd, const struct fd_socket *);
void far_unpublish(const struct wire_address *);

#endif
