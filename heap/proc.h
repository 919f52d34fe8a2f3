/* /proc as it was when libken came: a program may change its root directory to one that has none, or mount over it.
 *
 * Names are given without "/proc/". Allocates nothing; safe in every thread and signal handler.
 */
#ifndef KEN_HEAP_PROC_H
#define KEN_HEAP_PROC_H

#include <stddef.h>

/* Opens the directory, O_PATH: the descriptor, the caller's, or -errno. */
long proc_find(void);

/* What is used from now on, in each incarnation anew; before, and for -1, it is the path. */
void proc_use(int directory);

/* As open(2), close-on-exec; below the program's numbers (sys_fd). */
long proc_open(const char *name, int flags);

/* The whole text, as much as fits, terminated: its length, or -errno with an empty text. */
long proc_read(const char *name, char *text, size_t size);

/* Where the descriptor leads, terminated: its length (at most size - 1), or -errno with an empty text. */
long proc_fd_path(int fd, char *text, size_t size);

/* Whether the path, in the present root directory, leads to the file that is open: 1, 0, or -errno. */
long proc_fd_is_at(int fd, const char *path);

/* Gives the open file another name, also one that has none: 0 or -errno. */
long proc_fd_link(int fd, int directory, const char *name);

#endif
