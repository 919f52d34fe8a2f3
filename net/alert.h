/* What one thread took in for another that waits.
 *
 * Whichever thread of the program wakes first takes in what peers sent, for all. Where the kernel does not tell the one that waits
 * for it, as it does of bytes in a connection (stream_bell.h), this does: each thread that waits watches a descriptor of its own.
 * They lie in the window, and are of this incarnation. Lock held; threads are numbered from 0 on.
 */
#ifndef KEN_NET_ALERT_H
#define KEN_NET_ALERT_H

#include <stdbool.h>

#define ALERT_THREADS 4096

/* To be watched for POLLIN while the thread waits; -1: there are too many threads. */
int alert_fd(unsigned thread);

/* The thread looks at everything now. */
void alert_heard(unsigned thread);

/* All but this one have something to look at. */
void alert_others(unsigned thread);

bool alert_owns(int fd);
void alert_boot(void);
void alert_forked(void); /* closes them: for a child of fork */

#endif
