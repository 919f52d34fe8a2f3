/* Where the bytes of peers wait for the program: outside of the image as long as the turn lasts.
 *
 * Most of them are read in the turn that they came in. What the program copied them to is logged then, they themselves are not: they
 * lie in the window. Only what is unread when a turn is captured moves into the image (the pool), and stays there.
 *
 *   landing_keep()      into the window; into the pool when that is full
 *   landing_settle()    before memory is captured: all that is left in the window goes into the pool, its owners are told
 *
 * A crash before the commit takes back what was kept since the last one, which the peer has as well. Not thread-safe.
 */
#ifndef KEN_NET_LANDING_H
#define KEN_NET_LANDING_H

#include <stdbool.h>
#include <stddef.h>

/* Keeps a copy of the bytes; *owner, which lies in the image, tells where, now and whenever they move, until landing_drop().
 * False: out of memory, nothing was done. */
bool landing_keep(char **owner, const void *bytes, size_t length);

/* They were read. */
void landing_drop(char *bytes);

/* Before the image is captured. Ends the process with a line when there is no memory for what is unread. */
void landing_settle(void);

/* A new process: the window is empty. */
void landing_boot(void);

#endif
