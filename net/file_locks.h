/* Record locks, of the process (POSIX) and of an open file (OFD). The kernel drops them with the process; they are read
 * from /proc/self/fdinfo before a commit, kept as the description's content, and taken again in the new process. Not
 * thread-safe: libken's lock. Locks by flock(2) are kept with the file's name (capture.c).
 */
#ifndef KEN_NET_FILE_LOCKS_H
#define KEN_NET_FILE_LOCKS_H

#include "net/fdtable.h"

/* The program has locked or unlocked a record through this description. */
void file_locks_changed(struct description *);

/* Before a commit: which there are. */
void file_locks_capture(int fd, struct description *);

/* Takes them again; somebody else's are waited for up to 5 s, then a line says that they are. */
void file_locks_reopen(int fd, const struct description *);

#endif
