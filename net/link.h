/* A link: the byte stream under a transport, whatever carries it.
 *
 * Raw: an abstract UNIX socket, or TCP within this host; bytes go as they are. Sealed: TCP between hosts; the
 * authentication's handshake comes first, then all bytes go in its records. The transport above sees no difference:
 * link_send() and link_receive() behave like sendmsg(2) and recv(2) without blocking.
 * A struct link lies in its transport, in the window. It never waits. Not thread-safe.
 */
#ifndef KEN_NET_LINK_H
#define KEN_NET_LINK_H

#include "net/auth.h"

#include <sys/uio.h>

#define LINK_ROOM_LEAST AUTH_RECORD_MAX /* of link_receive() */

struct link {
    int fd; /* the link's; link_close() closes it */
    bool sealed;
    struct auth auth;
    uint32_t partial_used;            /* of a record that has not come whole */
    uint32_t out_used, out_done;      /* sealed bytes that the kernel has not taken yet */
    unsigned char partial[AUTH_RECORD_MAX];
    unsigned char out[AUTH_RECORD_MAX];
};

/* Over a connected socket, or one that connects meanwhile; non-blocking. */
void link_open_raw(struct link *, int fd);

/* With authentication. 0 or -errno (no random bytes): the descriptor stays the caller's then. */
int link_open_sealed(struct link *, int fd, enum auth_role, const struct auth_key *);

/* Closes it and forgets its keys. */
void link_close(struct link *);

/* True when bytes can be sent: always for a raw one; the handshake is done for a sealed one. */
bool link_ready(const struct link *);

/* Sends the beginning of the vector. Returns how many bytes of it were taken (they need not have left: see
 * link_pending()); -EAGAIN: call again when the descriptor is writable, or the handshake is done; or another -errno:
 * the link is broken, by the kernel or with an AUTH_E_ error. */
long link_send(struct link *, const struct iovec *, int count);

/* Moves bytes of a pipe on, whose pages then lie in the socket as they are. For a raw link over a UNIX socket. As link_send(). */
long link_splice(struct link *, int pipe, size_t bytes);

/* Takes what came. Returns how many bytes stand at `to`, room (at least LINK_ROOM_LEAST) at most; 0: the other side has
 * closed; -EAGAIN: nothing for the transport yet; or another -errno, as above. What it leaves in the kernel makes
 * the descriptor readable again. */
long link_receive(struct link *, void *to, size_t room);

/* Writes what link_send() took and the kernel did not, and what the handshake has to say. 0, -EAGAIN or -errno. */
long link_push(struct link *);

/* True when the descriptor is to be watched for POLLOUT, and link_push() to be called then. */
static inline bool link_pending(const struct link *l)
{
    return l->out_used != l->out_done;
}

#endif
