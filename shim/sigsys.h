/* The net: Syscall User Dispatch turns every system call made outside of libken's text into SIGSYS.
 * Source: Documentation/admin-guide/syscall-user-dispatch.rst (Linux 5.11).
 */
#ifndef KEN_SHIM_SIGSYS_H
#define KEN_SHIM_SIGSYS_H

#include <stdbool.h>

/* Spreads the net: installs the handler, for all threads, and turns it on for the calling one. False when this
 * kernel has none; nothing was changed then. */
bool sigsys_on(void);

/* For a new thread, when it is on for others: each thread has its own. */
bool sigsys_thread_on(void);

#endif
