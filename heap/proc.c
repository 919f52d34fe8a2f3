#define _GNU_SOURCE
#include "heap/proc.h"
#include "heap/room.h"
#include "heap/say.h"
#include "heap/sys.h"

#include <fcntl.h>
#include <sys/stat.h>

static int proc = -1;

long proc_find(void)
{
    return sys_fd(SYS_open, "/proc", O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
}

void proc_use(int directory)
{
    proc = directory;
}

/* What the *at calls are to begin with, and the name for them. */
static int begin(const char *name, char *path, size_t size)
{
    say_format(path, size, proc >= 0 ? "%s" : "/proc/%s", name);
    return proc >= 0 ? proc : AT_FDCWD;
}

static int begin_at(int fd, char *path, size_t size)
{
    char name[32];
    say_format(name, sizeof name, "self/fd/%d", fd);
    return begin(name, path, size);
}

long proc_open(const char *name, int flags)
{
    char path[64];
    int from = begin(name, path, sizeof path);
    return sys_fd(SYS_openat, from, path, flags | O_CLOEXEC, 0);
}

long proc_read(const char *name, char *text, size_t size)
{
    size_t used = 0;
    long fd = proc_open(name, O_RDONLY), n = fd;
    while (!sys_failed(fd) && used < size - 1) {
        n = sys(SYS_read, fd, text + used, size - 1 - used);
        if (n <= 0 && n != -EINTR)
            break;
        used += n > 0 ? (size_t)n : 0;
    }
    if (!sys_failed(fd))
        sys(SYS_close, fd);
    if (sys_failed(n))
        used = 0;
    text[used] = '\0';
    return sys_failed(n) ? n : (long)used;
}

long proc_fd_path(int fd, char *text, size_t size)
{
    char path[64];
    int from = begin_at(fd, path, sizeof path);
    long n = sys(SYS_readlinkat, from, path, text, size - 1);
    text[n < 0 ? 0 : n] = '\0';
    return n;
}

long proc_fd_is_at(int fd, const char *path)
{
    struct stat open, there;
    long r = sys(SYS_fstat, fd, &open);
    if (sys_failed(r) || sys_failed(r = sys(SYS_stat, path, &there)))
        return r;
    return open.st_ino == there.st_ino && open.st_dev == there.st_dev;
}

long proc_fd_link(int fd, int directory, const char *name)
{
    char path[64];
    int from = begin_at(fd, path, sizeof path);
    return sys(SYS_linkat, from, path, directory, name, AT_SYMLINK_FOLLOW);
}
