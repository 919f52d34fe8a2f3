/* Peers on other hosts: who they are (KEN_PEERS), how they prove it (KEN_KEY_FILE), and the sockets that lead to them.
 *
 * A listed address speaks Ken over TCP at the same address and port, whatever the program uses there. Beyond this
 * host that needs a key; without one such a connection is neither made nor taken, and a line says what to set.
 * All of it lies in the window and is made by each incarnation from its own environment, before the image is mapped: the
 * key is never in an image, and names are resolved anew. No pointers. Not thread-safe.
 */
#ifndef KEN_NET_REMOTE_H
#define KEN_NET_REMOTE_H

#include "net/address_list.h"
#include "net/auth_gate.h"
#include "net/complaint.h"
#include "net/link.h"

struct remote {
    bool has_key;
    struct auth_key key;
    struct address_list list;
    struct auth_gate gate;
    struct complaints complaints;
};

/* From the values of KEN_PEERS and KEN_KEY_FILE; NULL or "": not set. `getent` resolves names (ADDRESS_GETENT).
 * 0; or -errno with one line for the operator in `why`: a list or a key that is wrong. Do not start then: half a list
 * would send raw bytes to listed peers. The struct is zeroed memory before. */
int remote_open(struct remote *, const char *peers, const char *key_file, const char *getent, char *why, size_t why_size);

/* True when there are listed peers at all. */
static inline bool remote_any(const struct remote *r)
{
    return r && r->list.entries;
}

/* Begins to connect to a listed address, or to a door (to->door). 0: the link is open; push it when the descriptor is
 * writable. -ENOKEY: not without a key (the line was written); else an error of the kernel's. At a door this side says
 * nothing before the other has proven the key: the port may be a plain process's by now. */
int remote_dial(struct remote *, const struct wire_address *to, struct link *);

/* A listening TCP socket of libken's own at an address that the program uses, for UDP or, `beside` it, for TCP. Returns its descriptor or -errno
 * (-EADDRINUSE: some program has it). */
long remote_listen(const struct wire_address *at, bool v6_only, bool beside);

/* Takes the next connection, to a door or not: 0, the link open, *from who it is, and *ticket to be left at the gate when link_ready()
 * or closed. -EAGAIN: there is none. Other errors: one was dropped; call again. Who is not listed is reset, unheard. */
int remote_accept(struct remote *, int listener, bool door, struct link *, struct wire_address *from, long *ticket);

/* The time of the gate and of complaints. */
uint64_t remote_now_ms(void);

/* A link broke: says why, once in a while, if it was by the peer's doing (an AUTH_E_ error). */
void remote_complain(struct remote *, const struct wire_address *about, long error);

#endif
