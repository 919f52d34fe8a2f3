/* Where the simulated disk keeps what lies far out in the image, which is a hole for the most part. It may use three parts of its
 * length, which are kept side by side: LOW_BYTES at its beginning, one block of the sums of its first slots, and these slots. */
#ifndef KEN_TESTS_POWER_FOLD_H
#define KEN_TESTS_POWER_FOLD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define LOW_BYTES (68u << 10)

/* Files that are shorter than the image's metadata are kept as they are. */
uint64_t fold(uint64_t offset);
uint64_t fold_size(uint64_t bytes);
uint64_t unfold_size(uint64_t kept);

/* Whether that is the image's to use. */
bool fold_holds(uint64_t offset, uint64_t bytes);

/* Reads or writes what is kept of an image, from its beginning on. */
bool fold_read(int fd, uint8_t *kept, uint64_t bytes);
bool fold_write(int fd, const uint8_t *kept, uint64_t bytes);

#endif
