/* XXH3-64 of what is long or often summed: records of the log, pages of the image. By 32 bytes at a time where the processor can,
 * with the same result. Thread-safe; nothing allocates.
 *
 * Which way is taken is asked once, and is part of the image: a store is resumed only where the processor has what it had before. */
#ifndef KEN_HEAP_CHECKSUM_H
#define KEN_HEAP_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

uint64_t checksum_of(const void *, size_t bytes);

/* That of the parts, one behind the other, but for the first `skip` bytes of the first one. */
uint64_t checksum_of_parts(const struct iovec *, unsigned count, size_t skip);

/* The two ways; the wide one only where checksum_wide_runs(). */
uint64_t checksum_plain(const void *, size_t bytes);
uint64_t checksum_wide(const void *, size_t bytes);
uint64_t checksum_plain_parts(const struct iovec *, unsigned count, size_t skip);
uint64_t checksum_wide_parts(const struct iovec *, unsigned count, size_t skip);
int checksum_wide_runs(void);

#endif
