/* Surroundings of the process that the program may change: working directory, umask, limits, its
 * name. */
#ifndef KEN_SHIM_CALL_LIMITS_H
#define KEN_SHIM_CALL_LIMITS_H

#include "shim/call.h"

/* Notes the directory and the umask that the program starts with, and leaves room for libken's descriptors (heap/room.h). */
void limits_boot(void);

/* The working directory may be called otherwise now. */
void limits_moved(void);

void limits_capture(void); /* before each commit; costs nothing unless the directory changed */

/* In the new process, after descriptors are restored (a limit on their number may be low). `files`: that limit, as the process
 * was started with, or 0: it is in force. A directory that is gone is said on stderr; the process then stays where it was
 * started. */
void limits_resume(uint64_t files);

/* The program's own limit on descriptors, for what is no longer protected; and back. */
void limits_give_back(void);
void limits_take_back(void);

call_handler call_umask, call_chdir, call_getrlimit, call_setrlimit, call_prlimit64, call_prctl;

#endif
