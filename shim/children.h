/* The program's children, and waiting for them.
 *
 * Children are plain processes. Those that run when the process dies are nobody's afterwards: in
 * the next incarnation wait4() reports each as killed by SIGKILL.
 */
#ifndef KEN_SHIM_CHILDREN_H
#define KEN_SHIM_CHILDREN_H

#include "shim/call.h"

#define CHILDREN_MAX 256

/* The core's fork handler calls it in the parent. When the table is full, further children are not
 * known after a restart: wait4 says ECHILD then. */
void children_add(long pid);

/* Called when one was reported as ended. */
void children_remove(long pid);

/* In a child of fork: they are its parent's. */
void children_forked(void);

/* In the new process: all are dead. `ignored`: the program lets the kernel reap, so forget them.
 * True when the program should hear a SIGCHLD. */
bool children_resume(bool ignored);

/* Whether some child may be alive. */
bool children_any(void);

/* Whether that is one, alive or to be reported. */
bool children_has(long pid);

/* The pid of a dead one that waits to be reported: this one, or any for -1; 0: there is none. */
long children_dead(long pid);

/* Whether one that lives has begun a session of its own, as daemons do, or one that ended in order has and nobody knows whom
 * it left there; waits a moment for it. */
bool children_daemon(void);

call_handler call_wait4, call_waitid;

#endif
