/* The heir: a child of fork that carries the program on when its parent exits. So daemons begin.
 *
 * Whether a child is the heir shows only later, so each child of a plain fork starts as a candidate: its calls are
 * followed as its parent's are, but it commits nothing, and nothing of the store is its own.
 *
 *   candidate ──execs, or ends a turn before setsid()──▶ plain: unprotected and unhindered, as other children are
 *       │ setsid()
 *       ▼
 *    leader ──its parent exits with status 0──▶ heir: takes the store's lock, commits all that it is in one record
 *       │ exits with status 0, and has a candidate of its own: that one goes on as the leader (a second fork)
 *
 * The commit is where the program passes over. Before it, the store holds the parent before the fork: a crash brings
 * that back, which forks again. So the parent commits no turn that emitted nothing while it waits for a candidate, what
 * the child emits is held, and a leader whose parent is killed ends as well. The parent exits when the heir has
 * committed; only then does what it said last leave.
 *
 * Exact rules, for parents that wait for their daemon (for its exit, a byte in a pipe, a signal):
 *   - a leader that has forked is settled when it waits (then it goes on itself, and its child only if that one called setsid(), too) or
 *     exits; a signal that comes between, or something it says, settles nothing: it may be about to exit;
 *   - a leader that is about to wait lets go what it holds after HEIR_HOLD_MS, uncommitted;
 *   - who comes to its parent from a program under libken for the first time waits for HEIR_PEERS_MS, for the daemon;
 *   - connections with peers go over with the channels, which are as the fork left them: so the parent rests (transport_hold_while()),
 *     a candidate that would talk to a peer waits for its parent's end if it leads, and is plain if not;
 *   - a parent that goes about its own business (HEIR_OUTPUTS turns that emitted something), or lives for HEIR_YEARS_MS,
 *     has no heir; nor has one that exits with another status than 0, or talks to peers.
 *
 * The two tell each other in a page that they share. Lock of threads.h held, except for heir_signalled().
 */
#ifndef KEN_SHIM_HEIR_H
#define KEN_SHIM_HEIR_H

#include "shim/call.h"
#include "shim/turn.h"

#define HEIR_HOLD_MS 100
#define HEIR_PEERS_MS 1000
#define HEIR_SETSID_MS 50 /* who has peers does not hear them for so long after a fork, unless its child calls setsid() */
#define HEIR_OUTPUTS 3
#define HEIR_YEARS_MS 60000
#define HEIR_UNCOMMITTED_MS 10000 /* the parent's turns without outputs are not committed for at most so long */

/* True in a candidate, and in a process that has one. */
extern bool heir_concerned;

/* True in a candidate only. */
extern bool heir_candidate;

/* Makes the page, in the window: at a fresh start, and in each incarnation. */
void heir_boot(void);

/* Around a fork: whether the child begins as a candidate; then its pid (or error), in the parent. */
bool heir_before_fork(void);
void heir_after_fork(long pid);

/* In the child that is one; and in one that is not. */
void heir_begin(void);
void heir_not(void);

/* setsid() succeeded. */
void heir_leads(void);

/* A turn is about to end. False: there is nothing to commit. True in a candidate: it is the heir now. */
bool heir_turn(enum turn_reason);

/* It was committed, and what it emitted has left. */
void heir_turned(void);

/* A candidate that waits is to end its turn at once, and begin its wait anew. */
bool heir_due(void);

/* In a candidate, before a call. True: it was for peers, and the process is plain now; the call is the kernel's. */
bool heir_settle(const struct call *);

/* Before an exec: a candidate is plain from now on, and so is that of this process. */
void heir_decline(void);

/* PR_SET_PDEATHSIG is the program's own from now on. */
void heir_mourns_itself(void);

/* exit_group(status). Returns when this process is the last of the program: finish the run. */
void heir_exit(int status);

/* Whether the last child, or a child of that, lives in a session of its own: a daemon that was declined. */
bool heir_went_on(void);

/* Whether that child was a candidate to its end: heir_went_on() knows whom it left. */
bool heir_followed(long pid);

/* THREADS_SIGNAL, from another process. */
void heir_signalled(ucontext_t *);

#endif
