/* Complaints about peers: one line for each host in a minute, however often it misbehaves.
 *
 * When very many hosts misbehave at once, the lines are limited to COMPLAINT_HOSTS in a minute altogether.
 * The table is part of the window; the caller tells the time (ms, a clock that does not go back). Not thread-safe.
 */
#ifndef KEN_NET_COMPLAINT_H
#define KEN_NET_COMPLAINT_H

#include "net/wire.h"

#define COMPLAINT_HOSTS 64
#define COMPLAINT_MS 60000u

struct complaints {
    struct {
        uint8_t address[16];
        uint64_t until;   /* silent so long; 0: free */
        uint32_t unsaid;  /* since its last line */
    } hosts[COMPLAINT_HOSTS];
};

/* Whether a line about that host is due now. *unsaid: how many were not written since the last one. */
bool complaint_due(struct complaints *, const struct wire_address *about, uint64_t now_ms, unsigned *unsaid);

/* Writes the line, when it is due: `peer ADDRESS: the connection was dropped: WHY`. */
void complaint_say(struct complaints *, const struct wire_address *about, uint64_t now_ms, const char *why);

#endif
