/* Finding out what a descriptor is that nobody told us about: shared by adopt, capture and reopen. */
#ifndef KEN_NET_ADOPT_H
#define KEN_NET_ADOPT_H

#include "net/fdtable.h"

struct stat;

/* What the kernel's object is. */
enum fd_kind fd_kind_of(int fd, const struct stat *);

/* Says what does not come back of a device that something outside is behind; nothing of all else. */
void fd_tell_device(int fd, enum fd_kind, const struct stat *);

/* The text of /proc/self/fdinfo/N, terminated and cut to fit; returns its length. Ends the process when the machine is in trouble. */
size_t fd_info(int fd, char *text, size_t size);

/* Fills the socket part from what the kernel tells. */
void fd_read_socket(int fd, struct description *);

/* Calls visit() for each descriptor that is open in the process, ours included. */
void fd_each_open(void (*visit)(int fd, void *context), void *context);

#endif
