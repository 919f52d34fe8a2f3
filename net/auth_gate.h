/* How many handshakes may be half-open: a flood of connections costs neither memory nor the others' time.
 *
 * A handshake takes a place when its connection is accepted and leaves it when it is done or the connection is closed.
 * Who does not finish within AUTH_DEADLINE_MS loses the place, and the owner closes the connection. One address has
 * only some of the places, so that it cannot keep the others out; and only so many begin in a second.
 * Pure: the caller tells the time (any clock that does not go back, in ms). No pointers; lies in the window.
 * Not thread-safe.
 */
#ifndef KEN_NET_AUTH_GATE_H
#define KEN_NET_AUTH_GATE_H

#include "net/wire.h"

#define AUTH_PLACES 64
#define AUTH_PLACES_OF_ONE 16   /* of one address */
#define AUTH_DEADLINE_MS 5000u
#define AUTH_PER_SECOND 512u

struct auth_gate {
    struct {
        uint8_t address[16];
        uint64_t until; /* 0: free */
        uint32_t ticket;
    } places[AUTH_PLACES];
    uint32_t tickets;
    uint32_t begun;       /* in this second */
    uint64_t second_ends;
    uint64_t refused;     /* since the beginning; for the operator */
};

/* Takes a place for a connection from that host. Returns a ticket > 0 to leave with, or -EUSERS (all places are
 * taken), -EDQUOT (that host has its share) or -EBUSY (too many in this second): close the connection, unheard. */
long auth_gate_enter(struct auth_gate *, const struct wire_address *from, uint64_t now_ms);

/* The handshake is done, or the connection closed. A ticket that was lost to its deadline may be given as well. */
void auth_gate_leave(struct auth_gate *, long ticket);

/* False: its time is over; close the connection. */
bool auth_gate_admits(const struct auth_gate *, long ticket, uint64_t now_ms);

#endif
