/* pidfds: a descriptor that stands for a process, for ever, and is readable when that has ended.
 *
 * In a new process one of the program's own process leads to the new one, one of a child to a child that has ended (they died with
 * the program; shim/children.h), one of another process to that, if it is still the same. Not thread-safe; callers hold signals off.
 */
#ifndef KEN_NET_PIDFD_H
#define KEN_NET_PIDFD_H

#include "net/fdtable.h"

/* Which process it stands for, by the number that the program knows; 0: look. */
void pidfd_learn(int fd, struct description *, long pid);

/* That process, as the program knows it; 0: none, or no pidfd. */
long pidfd_process(const struct description *);

/* It, in a new process: descriptor or -errno. */
long pidfd_reopen(const struct description *);

/* One of some process that has ended: descriptor or -errno. */
long pidfd_of_ended(uint32_t flags);

#endif
