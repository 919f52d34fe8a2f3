/* Alternate signal stacks: the program's, as it set them, and which of them libken's own handlers
 * use.
 *
 * A signal's frame takes some KiB of the stack that it interrupts, and the net (sigsys.h) is a
 * signal at each call. Programs that run code where there is no such room, Go's routines for one,
 * give every thread an alternate stack and every handler SA_ONSTACK; so libken's handlers use it as
 * well, if all that there are have room for libken. Where one is small (a guard against overflows),
 * they stay on the stack that was interrupted. libken goes on standing on the alternate stack while
 * it commits or waits: a turn may begin and end there.
 *
 * While the first thread has none the kernel has one of libken's, so that an overflow can be
 * reported.
 */
#ifndef KEN_SHIM_ALTSTACK_H
#define KEN_SHIM_ALTSTACK_H

#include "shim/call.h"

#include <stdbool.h>

/* Adopts what the calling thread has. */
void altstack_boot(void);

/* In a new incarnation, for the calling thread: the kernel is told. */
void altstack_resume(void);

/* The calling thread ends, and what it had counts no more. */
void altstack_exit(void);

/* SA_ONSTACK or 0, for libken's own handlers. */
unsigned long altstack_flag(void);

/* True when some thread has one: else the program's SA_ONSTACK means nothing. */
bool altstack_any(void);

/* Whether the caller runs on the program's. */
bool altstack_in_use(void);

call_handler call_sigaltstack;

#endif
