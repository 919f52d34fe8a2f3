/* Who this process is, and whether it can become what a store holds. */
#ifndef KEN_SHIM_IDENTITY_H
#define KEN_SHIM_IDENTITY_H

#include "heap/layout_meta.h"
#include "heap/store.h"

/* Fills in build, CPU, executable and command; `command` is the buffer the strings point into. */
void identity_birth(struct store_birth *, char **argv, char *command, size_t bytes);

/* False, with a line that names the difference and what to do, when the image cannot be resumed here. Says
 * (and goes on) when the program's executable has changed: the pinned one is resumed. */
bool identity_matches(const struct super *, char *line, size_t bytes);

/* The executable's last name part. */
void identity_program(char *name, size_t bytes);

/* What prctl(PR_SET_MM_MAP) wants, from /proc/self/stat. */
void identity_memory_map(struct meta *);

/* kenctl beside the library, or where `meson install` puts it; "" when neither is there. */
void identity_find_kenctl(char *path, size_t bytes, const char *library);

#endif
