/* What the handlers of descriptors share. */
#ifndef KEN_SHIM_CALL_NET_H
#define KEN_SHIM_CALL_NET_H

#include "net/fdtable.h"
#include "shim/call.h"
#include "shim/handlers.h"

#include <sys/uio.h>

/* Reads through the description's inbox. */
long read_journal(int fd, struct description *, const struct iovec *, int count, bool nonblocking);

/* One send of `total` bytes (at the vector) to an external descriptor: checked, then held. `c` is the call that stands
 * for it when it cannot be held. Flags are MSG_*. */
long send_held(struct call *c, int fd, struct description *, const struct iovec *, int count, long flags,
               const void *address, size_t address_length);

/* The bytes of a vector, or -EINVAL. */
long vector_bytes(const struct iovec *, long count);

/* The call as it is: an attempt for descriptors that do not block. */
long call_attempt(struct call *);

#endif
