/* The mappings of the process, as the kernel lists them in /proc/self/maps.
 *
 * Parsed without libc and without allocating (an allocation would change what is being read).
 * Source: proc(5), "/proc/[pid]/maps".
 */
#ifndef KEN_HEAP_MAPPING_H
#define KEN_HEAP_MAPPING_H

#include "heap/layout_meta.h"

#include <stddef.h>
#include <stdint.h>

/* One line of /proc/self/maps. `name` points into the reader's buffer and is not terminated. */
struct mapping_line {
    uint64_t start, end, offset;
    uint64_t device, inode;
    uint32_t prot; /* PROT_* */
    bool shared;
    const char *name;
    size_t name_length;
};

/* Reads all of the file behind `maps_fd` (from its beginning) into `buffer` and returns the number of
 * bytes, or -errno; -ENOBUFS when `size` does not suffice. */
long mapping_read(int maps_fd, char *buffer, size_t size);

/* Parses the line at *cursor and moves *cursor behind it; false at the end of the text. */
bool mapping_next(const char **cursor, const char *end, struct mapping_line *line);

bool mapping_named(const struct mapping_line *line, const char *name);

#endif
