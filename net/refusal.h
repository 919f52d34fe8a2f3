/* A datagram to a port that a peer on another host has closed is refused as on this host: ECONNREFUSED by the next call, poll(), SO_ERROR.
 *
 * Only the kernel can make a socket readable for an error, and nothing plain may go to the other host: so the datagram is sent to a
 * port of this host that takes nothing. (In the error queue of IP_RECVERR, the address that it went to is that one.)
 */
#ifndef KEN_NET_REFUSAL_H
#define KEN_NET_REFUSAL_H

#include "net/fdtable.h"
#include "net/wire.h"

/* `own`: the address of this host that the datagram came from. As the kernel's answers do, it may get lost. */
void refusal_cause(int fd, const struct description *, const struct wire_address *own, const void *text, size_t length);

#endif
