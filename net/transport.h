/* Transports: the kernel's connections that carry channels, of this incarnation only.
 *
 * All of it lies in the window, not in the image: a new process begins with none. One epoll descriptor watches them
 * all, so that whoever waits has one descriptor more to look at; there is none as long as the process has no peers.
 * Abstract UNIX stream sockets within one network namespace; both sides must belong to the same user.
 * Not thread-safe.
 */
#ifndef KEN_NET_TRANSPORT_H
#define KEN_NET_TRANSPORT_H

#include "net/channel.h"

#include <netinet/in.h>

#define TRANSPORT_NAME 80 /* bytes of a listener's name, terminator included */

struct transport;

/* A new process: nothing is open. `epoch` is made anew. */
void transport_boot(void);

/* Closes everything: for a child of fork. */
void transport_forked(void);

/* The descriptor to watch for POLLIN while waiting; -1: there are no peers. */
int transport_fd(void);

bool transport_owns(int fd);

/* Listens on an abstract name. 0 (also when it does already) or -errno. */
int transport_listen(const char *name);

/* Names that a killed process before us may still have, for a moment: they are waited for while this is on. */
void transport_inherit(bool on);

void transport_unlisten(const char *name);

/* It is open who this process is, as long as a child may take its place: who comes to its names waits there, for so long at most.
 * 0: no longer. */
void transport_hold(unsigned ms);

/* The same as long as `undecided` says so, which is asked every few milliseconds; and who is connected waits, too: nothing is taken in
 * that the child would not know of. NULL: no longer. */
void transport_hold_while(bool (*undecided)(void));

/* A connection to who listens there: descriptor or -errno (-ECONNREFUSED: nobody; -EPERM: another user). */
long transport_dial(const char *name);

/* Makes a transport of one: says the channel's hello. 0 or -errno. */
int transport_connect(const char *name, struct channel *);

/* Beyond this network namespace, over TCP (remote.h): the same for addresses. Asking tells peers_introduced(). */
int transport_listen_far(const struct wire_address *, bool v6_only);
void transport_unlisten_far(const struct wire_address *);
void transport_unlisten_far_port(in_port_t); /* at all addresses */
int transport_connect_far(const struct wire_address *, struct channel *);

/* A door (peers_far.h) at that port, in network order; 0: at any. Returns its port, or -errno. */
long transport_listen_door(uint16_t port);
int transport_ask_far(unsigned protocol, const struct wire_address *);

/* The transport that a channel uses; NULL when it has none that is ready. */
struct transport *transport_of(const struct channel *);

/* True when one is being greeted or ready. */
bool transport_pending(const struct channel *);

/* Acts on everything that is ready. True when frames of channels were taken in. A process that only has names to be
 * found by is not asked for it each time: until transport_wake() it mostly returns at once, without a system call. */
bool transport_pump(void);

/* Something came that another thread may wait for, and the kernel tells it nothing of that. */
void transport_arrived(void);

/* Counts the calls that looked, in this process. */
uint32_t transport_looks(void);

/* The descriptor of transport_fd() was waited for, or is ready. */
void transport_wake(void);

/* Sends what may be sent, to all, and what is to be acknowledged. */
void transport_flush(void);

/* The process has finished: says so to all who have everything, and hangs up. */
void transport_farewell(void);

/* The same on one channel alone. */
void transport_dismiss(const struct channel *);

/* No longer carries that channel: all of its transports are closed. */
void transport_drop(const struct channel *);

/* A descriptor to be looked at by stream_look_at_loans(); operation and events as for epoll_ctl(). */
void transport_watch_loan(int operation, int fd, uint32_t events);

/* Asks for a turn of peers_tick() after some milliseconds; 0: never mind. */
void transport_alarm(unsigned ms);
bool transport_alarmed(void);

uint64_t transport_epoch(void);

/* The room above answers (peers.c). */
void peers_fill_hello(const struct channel *, struct wire_hello *);

/* The other side said who it is: the channel that carries on with it and the first frame to send, or NULL to hang up. */
struct channel *peers_greeted(const struct wire_hello *, struct channel *wanted, uint64_t *from);

/* Who has that address on another host. */
void peers_introduced(unsigned protocol, const struct wire_address *, const struct wire_hello *);

/* A transport of that channel leads to that address on another host; its hello told of a door. */
void peers_met_far(struct channel *, const struct wire_address *, uint16_t door);

/* One frame, in order, once. False: out of memory, it is to come again. */
bool peers_deliver(struct channel *, const struct wire_head *, const unsigned char *body);
void peers_lost(struct channel *); /* its last transport is gone */
void peers_gone(struct channel *); /* its process will not come back */
void stream_look_at_loans(void); /* a child did something to a connection */
void peers_tick(void);
void peers_pumped(void); /* after each look at what came in */

#endif
