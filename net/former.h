/* Former runs of this store that peers have not heard out: this run stands in for them.
 *
 * A former run is a channel under the identity that it had, with the frames that its peer has not taken, good-bye last.
 * To the peer it looks like a restart of that run. What the peer still sends to it is taken and forgotten, as the run is
 * over. Until it has everything, this run's own channel with the same peer waits, and peers are not told that this run
 * came in the former one's place: so nothing new overtakes what was left.
 * They lie in the image. Not thread-safe; for peers.c.
 */
#ifndef KEN_NET_FORMER_H
#define KEN_NET_FORMER_H

#include "net/unsent.h"

struct former {
    struct channel channel; /* first: .former is set */
    struct wire_id self;
    struct wire_address far, door; /* without ports: in this network namespace */
    unsigned dials;
};

/* Takes in one channel of what was left. 0 or -ENOMEM. */
int former_inherit(const struct unsent_channel *);

/* The first of them; the next is its next. NULL: none. */
struct channel *former_first(void);

/* The identity that the channel speaks under when it is a former run's; else NULL. */
const struct wire_id *former_self(const struct channel *);
const struct wire_address *former_far(const struct channel *);
const struct wire_address *former_door(const struct channel *);
const struct wire_address *former_next(struct channel *); /* as far_next() */

/* True when a former run has to be heard by that peer first; also: not by this one, but one before it. */
bool former_waits(const struct wire_id *peer, const struct channel *before);

/* Forgets it, with a line that says why when something was left. */
void former_drop(struct channel *, const char *why);

#endif
