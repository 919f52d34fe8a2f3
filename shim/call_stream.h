/* The handlers' side of TCP connections between peers (net/stream.h): what read, write, connect, accept and the others do
 * when the socket is one. */
#ifndef KEN_SHIM_CALL_STREAM_H
#define KEN_SHIM_CALL_STREAM_H

#include "net/fdtable.h"
#include "shim/call.h"

#include <sys/uio.h>

/* True when the descriptor is such a connection. */
static inline bool stream_is(const struct description *d)
{
    return d && d->kind == FD_SOCKET && d->socket && d->socket->stream;
}

/* Read and write with flags of MSG_; the whole rhythm. */
long stream_receive(struct call *, int fd, struct description *, const struct iovec *, int count, long flags);
long stream_send(int fd, struct description *, const struct iovec *, int count, long flags);

#define STREAM_PATIENT (1L << 40) /* flag of stream_send(): waits even if the descriptor does not */

/* How many bytes it takes now; waits for some, unless it is not to (`hurried`, or the descriptor does not). -EAGAIN, -EPIPE (with
 * SIGPIPE), -ECONNRESET, -EINTR. */
long stream_space(int fd, struct description *, bool hurried);

/* splice() with a connection at one end or at both; sendfile(). NULL: not open. */
long splice_peer(struct call *, struct description *from, struct description *to);
long sendfile_to_peer(struct call *, struct description *peer, struct description *from);
long sendfile_from_peer(struct call *, struct description *peer, struct description *to);

/* ioctl(), but for what is the descriptor's and not the connection's. */
long stream_control(struct call *, struct description *);

/* recvmsg() and its like fill in the rest of the message. */
long stream_receive_message(struct call *, int fd, struct description *, void *message, long flags);

/* connect(): *plain when the address is not a peer's, and the kernel is to do it. */
long stream_dial(struct call *, int fd, struct description *, bool *plain);

/* A connection of a peer that waits at the listener: its new descriptor, all done; -EAGAIN. */
long stream_take(struct call *, struct description *listener, long flags);

#endif
