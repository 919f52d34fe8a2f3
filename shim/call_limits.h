/* Surroundings of the process that the program may change: working directory, umask, limits, its
 * name. */
#ifndef KEN_SHIM_CALL_LIMITS_H
#define KEN_SHIM_CALL_LIMITS_H

#include "shim/call.h"

void limits_boot(void);    /* notes the directory and the umask that the program starts with */
void limits_capture(void); /* before each commit; costs nothing unless the directory changed */

/* In the new process, after descriptors are restored (a limit on their number may be low). A
 * directory that is gone is said on stderr; the process then stays where it was started. */
void limits_resume(void);

call_handler call_umask, call_chdir, call_setrlimit, call_prlimit64, call_prctl;

#endif
