/* The names in a directory. */
#ifndef KEN_HEAP_ENTRIES_H
#define KEN_HEAP_ENTRIES_H

/* Calls `visit` with each name that is left to be read of the open directory ("." and ".." too), until it returns something other
 * than 0: that is the result. Else 0 or -errno. Allocates nothing. */
long entries_each(int fd, long (*visit)(void *context, const char *name), void *context);

#endif
