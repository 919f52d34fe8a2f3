/* The turn: what the program does between two blocking receives.
 *
 * A handler that is about to wait for the outside:
 *
 *     try without blocking; anything but "would block" is the answer
 *     turn_end()                    commit, release outputs; after a crash and a restore it returns *here*
 *     wait_begin() / block in the kernel / wait_end()
 *
 * Handlers run with `inside` raised: the program's signal handlers are deferred until the handler
 * leaves or begins to wait, so that libken's state is never seen half changed.
 */
#ifndef KEN_SHIM_TURN_H
#define KEN_SHIM_TURN_H

#include "shim/call.h"

enum turn_reason {
    TURN_WAIT,  /* about to block; may be put off for a moment if nothing waits to leave */
    TURN_FLUSH, /* outputs must leave now (a descriptor closes, the outbox is full, ...) */
    TURN_EXIT,  /* the last one */
};

/* Ends the turn: commits what changed and lets the held outputs go. Returns after the outputs left,
 * in this process or in any later incarnation of it. It never fails: a store that cannot be written
 * makes it wait (full disk) or die (EIO). */
void turn_end(enum turn_reason);

/* The last turn: commits, releases, and marks the store finished with the exit status. The caller exits. */
void turn_finish(int status);

/* Takes the mark back: an exec failed, the program runs on. */
void turn_go_on(void);

/* True once, after turn_end() returned in a new incarnation rather than in the one that called it. */
bool turn_resumed(void);

/* How long the turn may stay open for a thread that is about to wait; 0: it is to be ended now. Turns without outputs share a
 * commit for a moment. Held outputs leave when the last thread of the program comes to rest, or after this time. A thread
 * that waited for so long, in a wait that a commit can save, ends the turn if turn_number() is still the same. */
int64_t turn_grace_ns(void);
#define TURN_GROUP_NS 200000L /* how long outputs wait for other threads to come to rest */

/* True when a program that is busy with input, sleeps for moments, or looks without ever waiting, and emits nothing, is to be
 * committed all the same. To be asked at each such call; a sixteenth of them look at the clock. */
bool turn_overdue(void);

/* Which turn this is; counts from 1, rises with each commit. */
uint64_t turn_number(void);

#endif
