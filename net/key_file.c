#include "net/key_file.h"
#include "heap/room.h"
#include "heap/say.h"
#include "heap/sys.h"

#include <fcntl.h>
#include <sodium.h>
#include <string.h>
#include <sys/stat.h>

static int check_file(int fd, const char **what)
{
    struct stat s;
    long r = sys(SYS_fstat, fd, &s);
    if (r < 0) {
        *what = "cannot be examined";
        return (int)r;
    }
    if (!S_ISREG(s.st_mode)) {
        *what = "is not a regular file";
        return -ENOTSUP;
    }
    if (s.st_uid != 0 && s.st_uid != (uid_t)sys(SYS_geteuid)) {
        *what = "belongs to another user; it must be yours or root's";
        return -EPERM;
    }
    if (s.st_mode & 077) {
        *what = "may be read or written by others; chmod 600 it, and make a new key if others could read it";
        return -EACCES;
    }
    return 0;
}

/* Until the end, or until it is too long. */
static long read_all(int fd, unsigned char *to, size_t room)
{
    size_t got = 0;
    while (got < room) {
        long n = sys(SYS_read, fd, to + got, room - got);
        if (n == -EINTR)
            continue;
        if (n < 0)
            return n;
        if (n == 0)
            break;
        got += (size_t)n;
    }
    return (long)got;
}

static int check_bytes(const unsigned char *bytes, long length, const char **what)
{
    if (length < 0) {
        *what = "cannot be read";
        return (int)length;
    }
    if (length < KEY_FILE_LEAST || length > KEY_FILE_MOST) {
        *what = length < KEY_FILE_LEAST ? "is too short; a key has at least 32 bytes: head -c 32 /dev/urandom"
                                        : "is too long; a key has at most 4096 bytes";
        return -ERANGE;
    }
    if (!memcmp(bytes, bytes + 1, (size_t)length - 1)) {
        *what = "holds the same byte throughout, which is no key";
        return -EINVAL;
    }
    return 0;
}

static int load(const char *path, struct auth_key *key, const char **what)
{
    unsigned char bytes[KEY_FILE_MOST + 1];
    /* Not blocking: a FIFO's open would wait. */
    long fd = sys_fd(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) {
        *what = "cannot be opened";
        return (int)fd;
    }
    int r = check_file((int)fd, what);
    if (r == 0) {
        long n = read_all((int)fd, bytes, sizeof bytes);
        r = check_bytes(bytes, n, what);
        if (r == 0)
            auth_make_key(key, bytes, (size_t)n);
        sodium_memzero(bytes, sizeof bytes);
    }
    sys(SYS_close, fd);
    return r;
}

int key_file_load(const char *path, struct auth_key *key, char *why, size_t why_size)
{
    const char *what = NULL;
    int r = load(path, key, &what);
    if (r < 0)
        say_format(why, why_size, "KEN_KEY_FILE %s: %s (%s)", path, what, say_error(r));
    return r;
}
