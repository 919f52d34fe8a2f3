/* The modes that the program has set on a terminal (raw, without echo, ...). They are the terminal's, not the process's:
 * a shell sets its own as soon as a killed program is gone, so that they must be set again. They are kept with the
 * description, as its content. Not thread-safe: libken's lock.
 */
#ifndef KEN_NET_TERMINAL_H
#define KEN_NET_TERMINAL_H

#include "net/fdtable.h"

/* Whether an ioctl sets a terminal's modes. */
bool terminal_sets(unsigned request);

/* The program has set some through `fd`. */
void terminal_set(int fd, struct description *);

/* In a new process: sets them again, unless another job has the terminal. */
void terminal_reopen(int fd, const struct description *);

/* True once, after terminal_reopen() set some: what is on the screen is not what the program takes to be there. */
bool terminal_reopened(void);

#endif
