/* TCP connections between peers. Their bytes travel in the pair's channel and wait in the image; neither side notices
 * that the other one was away.
 *
 * The program's descriptor is one end of a UNIX socketpair, the doorbell: a byte in it means input, its end means the
 * end of input, a full one means that the peer's window is closed; so poll, select and epoll work as on any socket.
 * The other end is libken's. Doorbells are made again in a new process. Not thread-safe.
 */
#ifndef KEN_NET_STREAM_H
#define KEN_NET_STREAM_H

#include "net/peers.h"

#define STREAM_WINDOW (256UL << 10)    /* bytes on their way or unread, for each direction of each connection */
#define STREAM_WINDOW_MOST (8UL << 20) /* the same where the program reads as fast as they come */
#define STREAM_WINDOW_SOON (2UL << 20) /* so wide it gets at once; beyond that not wider than a quarter of what was read so far */
#define STREAM_WIDENED (32UL << 20)    /* what all connections have beyond STREAM_WINDOW, together */

struct stream;

enum stream_state { STREAM_CONNECTING, STREAM_OPEN, STREAM_FAILED };

/* Connects to a peer. 0: the descriptor is a doorbell now, and the connection is on its way (stream_state()); 1: the
 * address is not a peer's; or -errno. */
int stream_connect(int fd, struct description *, const void *address, size_t length);

/* connect() with AF_UNSPEC, and before one that was refused connects to a plain process: it is reset, and the descriptor is an
 * unconnected socket of the kernel's. 0 or -errno. */
int stream_dissolve(struct description *);

enum stream_state stream_state(const struct description *);

/* Open, and connect() says so: true once. */
bool stream_announce(const struct description *);

/* A connection that a peer opened to this listener: a new descriptor, -EAGAIN when there is none. The caller enters it
 * and calls stream_adopt(). */
long stream_accept(const struct description *listener, struct stream **);
void stream_adopt(struct description *, struct stream *);
bool stream_pending(const struct description *listener);
bool stream_any_pending(void); /* at any listener */

/* Reads (MSG_PEEK, MSG_TRUNC) without waiting: bytes, 0 at the end, -EAGAIN, -ECONNRESET. */
long stream_read(int fd, struct description *, const struct iovec *, int count, long flags);

/* Writes up to `length` bytes from `skip` on: how many, -EAGAIN (the window is closed), -EPIPE, -ECONNRESET. */
long stream_write(int fd, struct description *, const struct iovec *, int count, size_t skip, size_t length);

/* Bytes that can be written at once. */
size_t stream_writable(const struct description *);

/* Bytes that can be read at once. */
size_t stream_unread(const struct description *);

/* How it stands in TCP's words: one of the states of netinet/tcp.h; bytes that the peer has not acknowledged; all that
 * getsockopt(TCP_INFO) may be asked of it, over what an unconnected socket says. */
struct tcp_info;
int stream_tcp_state(const struct description *);
size_t stream_unsent(const struct description *);
void stream_info(const struct description *, struct tcp_info *);

/* As the system calls. */
int stream_shutdown(struct description *, int how);
int stream_take_error(struct description *);
size_t stream_name(const struct description *, bool peer, void *to, size_t room);

/* The last descriptor is gone; a listener is gone. */
void stream_closed(struct fd_socket *);
void stream_listener_closed(int description);

/* In a new process: makes the doorbell again; the descriptor or -errno. stream_boot() comes before the first. */
void stream_boot(void);
long stream_reopen(struct description *);
bool stream_owns(int fd);

/* Around a fork: connections are made ready for the child; in the child, they are put in place; in the parent, which carries
 * their bytes from now on (`child`: there is one). See stream_loan.c. */
void stream_lend(void);
void stream_forked(void);
void stream_spawned(void); /* in one that borrows its parent's memory: nothing is written but the stack */
void stream_lent(bool child);

/* In a child that may become the program: what its parent lent to others is not its own. When it is, its connections, which were
 * lent to it, are doorbells again. */
void stream_stand_by(void);
void stream_take_over(void);

/* At each tick, and when somebody was introduced: connections to peers that had not answered are opened. True: some still wait. */
bool stream_call_again(void);
bool stream_any_uncalled(void);

/* At each tick: connections that wait at listeners which children have as well. True: there are some. */
bool stream_pass_on(void);

/* From peers.c. */
bool stream_deliver(struct channel *, const struct wire_head *, const unsigned char *body);
bool stream_any(const struct channel *); /* some connection lasts */
void stream_close_all(void);             /* the process exits */
void stream_peer_gone(struct channel *);

#endif
