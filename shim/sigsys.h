/* The net: Syscall User Dispatch turns every system call made outside of libken's text into SIGSYS.
 * Source: Documentation/admin-guide/syscall-user-dispatch.rst (Linux 5.11).
 */
#ifndef KEN_SHIM_SIGSYS_H
#define KEN_SHIM_SIGSYS_H

#include <stdbool.h>
#include <ucontext.h>

/* Spreads the net: installs the handler, for all threads, and turns it on for the calling one. False when this
 * kernel has none; nothing was changed then. */
bool sigsys_on(void);

/* The handler alone, anew: what altstack_flag() says has changed. */
bool sigsys_install(void);

/* For a new thread, when it is on for others: each thread has its own. */
bool sigsys_thread_on(void);

/* For the calling thread, in a child that is a plain process from now on. The others' goes at their next call. */
void sigsys_thread_off(void);

/* True when the interrupted code is libken's own. */
bool sigsys_is_ours(const ucontext_t *);

#endif
