/* Making one descriptor again: each returns the new kernel descriptor (any number) or -errno, after a message where the
 * program gets less than it had. Shared by the reopen*.c files. */
#ifndef KEN_NET_REOPEN_H
#define KEN_NET_REOPEN_H

#include "net/fdtable.h"

long reopen_file(struct description *);
long reopen_socket(struct description *);
long reopen_event(struct description *); /* eventfd, timerfd, signalfd, inotify, memfd, epoll */

/* Both ends at once: ends[0] is d's, ends[1] that of its pair (the caller closes it when there is none). */
long reopen_pipe(struct description *d, int ends[2]);
long reopen_socketpair(struct description *d, int ends[2]);

/* The options that were set, in that order. 0, what the last one met, or trouble (net/trouble.h). */
long reopen_options(int fd, const struct fd_socket *);

/* The interest lists, when all descriptors are in place. */
int reopen_watches(void);

/* Something that answers every use with EBADF, for what cannot be made again. */
long reopen_nothing(void);

/* `fd`, or, when `r` is trouble (net/trouble.h), that error; then `fd` is closed. */
long reopen_whole(int fd, long r);

/* Closes what reopen_socket() kept for several sockets. */
void reopen_socket_done(void);

#endif
