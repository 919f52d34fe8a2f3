#include "shim/config_path.h"
#include "heap/say.h"
#include "heap/sys.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <limits.h>
#include <string.h>

/* Each string with its terminator, so that ("ab", "c") and ("a", "bc") differ. */
static uint64_t hash_command(const char *executable, char *const argv[])
{
    XXH3_state_t state;
    XXH3_INITSTATE(&state);
    XXH3_64bits_reset(&state);
    XXH3_64bits_update(&state, executable, strlen(executable) + 1);
    for (size_t i = 1; argv[0] && argv[i]; i++)
        XXH3_64bits_update(&state, argv[i], strlen(argv[i]) + 1);
    return XXH3_64bits_digest(&state);
}

static long own_executable(char *buffer, size_t size)
{
    long length = sys(SYS_readlink, "/proc/self/exe", buffer, size - 1);
    if (!sys_failed(length))
        buffer[length] = '\0';
    return length;
}

long config_store_path(char *buffer, size_t size, const char *executable, char *const argv[])
{
    char own[PATH_MAX];
    if (!executable) {
        long length = own_executable(own, sizeof own);
        if (sys_failed(length))
            return length;
        executable = own;
    }

    long used = sys(SYS_getcwd, buffer, size);
    if (sys_failed(used))
        return used == -ERANGE ? -ENAMETOOLONG : used;
    used--; /* the kernel counts the terminator */
    if (used == 1)
        used = 0; /* the root: no double slash */

    const char *slash = strrchr(executable, '/');
    const char *program = slash ? slash + 1 : executable;
    uint64_t hash = hash_command(executable, argv);
    char digits[17];
    for (int i = 0; i < 16; i++)
        digits[i] = "0123456789abcdef"[hash >> (60 - 4 * i) & 15];
    digits[16] = '\0';

    size_t room = size - (size_t)used;
    if (strlen("/.ken/-") + strlen(program) + sizeof digits > room)
        return -ENAMETOOLONG;
    return used + (long)say_format(buffer + used, room, "/.ken/%s-%s", program, digits);
}
