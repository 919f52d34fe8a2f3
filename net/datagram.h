/* Datagrams to and from peers. Those that came wait in the image, in a queue for each socket, until the program takes
 * them; the socket's descriptor goes on to serve plain processes. Not thread-safe. */
#ifndef KEN_NET_DATAGRAM_H
#define KEN_NET_DATAGRAM_H

#include "net/peers.h"

#include <sys/socket.h>

struct mail;

/* Sends to a peer. 1: taken; 0: not a peer's address, send it as ever; -ENOBUFS: the channel is full, end the turn and
 * wait for the peer. The socket is bound. NULL for the address: where it is connected to. */
int datagram_send(int fd, struct description *, const struct wire_address *source, const void *address, size_t address_length,
                  const struct iovec *,
                  int count, size_t total);

/* The socket's queue is made, so that datagrams of peers find it. Harmless when there is one. */
void datagram_attach(struct description *);
void datagram_detach(struct fd_socket *);

/* Takes the first datagram: recvmsg() with these flags, without waiting. -EAGAIN when there is none. */
long datagram_take(struct description *, struct msghdr *, long flags);

/* True when it has one; its length in *bytes, if that is not NULL. */
bool datagram_waiting(const struct description *, size_t *bytes);

/* True when any socket has one. */
bool datagram_any(void);

/* The channel is gone: what it brought stays. */
void datagram_orphan(const struct channel *);

/* From the channel: false when out of memory. */
bool datagram_deliver(struct channel *, const struct wire_head *, const unsigned char *body);

/* One of ours found nobody there. On this host it is sent once more, as a plain one: who has taken the port meanwhile gets it, and where
 * nobody has the kernel tells the socket so, in all the ways that it has. To another host nothing plain may go (refusal.h). */
void datagram_returned(struct channel *, const struct wire_head *, const unsigned char *body);

#endif
