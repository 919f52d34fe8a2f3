/* The net: Syscall User Dispatch turns every system call made outside of libken's text into SIGSYS.
 * Source: Documentation/admin-guide/syscall-user-dispatch.rst (Linux 5.11).
 */
#ifndef KEN_SHIM_SIGSYS_H
#define KEN_SHIM_SIGSYS_H

#include <stdbool.h>

/* Spreads the net for the calling thread. False when this kernel has none; nothing was changed then. */
bool sigsys_on(void);

/* Takes it in again. */
void sigsys_off(void);

#endif
