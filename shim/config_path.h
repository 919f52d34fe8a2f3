/* Where the store of a command is when nobody says.
 *
 * Shared by libken (which asks about itself) and kenctl (which asks about a command to come), so
 * that kenrun and libken always mean the same directory. No allocation, no libc beyond mem* and str*.
 */
#ifndef KEN_SHIM_CONFIG_PATH_H
#define KEN_SHIM_CONFIG_PATH_H

#include <stddef.h>

/* Writes `<cwd>/.ken/<program>-<hash>` into buffer, terminated, and returns its length or
 * -errno (-ENAMETOOLONG: it does not fit). <program> is the last part of the executable's real path, <hash>
 * 16 hexadecimal digits over that path and the arguments after argv[0]: how the command was
 * spelled (`./app`, `/opt/app`, by PATH) makes no difference, other arguments are another store.
 *
 * `executable` is that real path, or NULL for this process's own (/proc/self/exe); `argv` ends
 * with NULL. Needs 8 KiB of stack. */
long config_store_path(char *buffer, size_t size, const char *executable, char *const argv[]);

#endif
