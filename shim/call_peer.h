/* What the handlers of sockets do for those that talk to peers (net/peers.h): small hooks, all of them no-ops in a process
 * without peers. */
#ifndef KEN_SHIM_CALL_PEER_H
#define KEN_SHIM_CALL_PEER_H

#include "net/fdtable.h"
#include "net/wire.h"
#include "shim/call.h"

#include <poll.h>
#include <sys/socket.h>

/* True when datagrams of peers may come to this socket. */
bool peer_receives(const struct description *);

/* Takes what a peer sent: recvmsg() without waiting; -EAGAIN when there is nothing, then the kernel is asked. */
long peer_receive(struct description *, struct msghdr *, long flags);

/* The same for recvfrom(). */
long peer_receive_from(struct description *, struct call *);

/* Sends a datagram to a peer: its length, -errno, or 0 with *plain set: it is not for a peer. `source`: the address that it is to
 * come from, NULL or the wildcard: the socket's. */
long peer_send(int fd, struct description *, const struct wire_address *source, const void *address, size_t address_length,
               const struct iovec *,
               int count, size_t total, long flags, bool *plain);

/* True when the descriptor has input of a peer: poll and its like report it. */
bool peer_readable(const struct description *);

/* FIONREAD: the length of the first datagram of a peer, if there is one. */
void peer_count(const struct description *, int *bytes);

/* True when there are peers to serve; sleeps until the clock's deadline (as the kernel has it) and serves them meanwhile:
 * 0, -EINTR, or SIGNAL_AGAIN: end the turn, then go on. */
bool peer_awake(void);
long peer_sleep(long clock, int64_t deadline);

/* True when any has. */
bool peer_any(void);

#endif
