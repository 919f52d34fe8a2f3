/* Copying out of a vector, for whoever holds bytes back: the outbox and the channel. */
#ifndef KEN_NET_GATHER_H
#define KEN_NET_GATHER_H

#include <string.h>
#include <sys/uio.h>

/* Copies `length` bytes from `skip` on; the vector must reach that far. Async-signal-safe. */
static inline void gather(void *destination, const struct iovec *v, int count, size_t skip, size_t length)
{
    char *to = destination;
    for (int i = 0; i < count && length; i++) {
        if (skip >= v[i].iov_len) {
            skip -= v[i].iov_len;
            continue;
        }
        size_t n = v[i].iov_len - skip < length ? v[i].iov_len - skip : length;
        memcpy(to, (const char *)v[i].iov_base + skip, n);
        to += n;
        length -= n;
        skip = 0;
    }
}

#endif
