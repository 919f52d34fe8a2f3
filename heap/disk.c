#define _GNU_SOURCE
#include "heap/disk.h"
#include "heap/proc.h"
#include "heap/room.h"
#include "heap/say.h"
#include "heap/sys.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define HIGH_ROOM 256 /* what the program may have opened since, and was not told of */
#define WRITE_MAX (1UL << 30) /* the kernel takes at most 2 GiB - 4 KiB in one call */

/* Code addresses, hence not in the window. Only tests set them. */
static disk_hook *hook;
static void *hook_context;
static disk_death *death;

static long high_fd; /* 0: not known yet */
static long never_below; /* those numbers are the program's */

void disk_set_hook(disk_hook *h, void *context)
{
    hook = h;
    hook_context = context;
}

void disk_set_death(disk_death *d)
{
    death = d;
}

long disk_ask(enum disk_op op, int fd, const char *path, const void *data, size_t bytes, uint64_t offset)
{
    if (!hook)
        return 0;
    struct disk_event event = {op, fd, path, data, bytes, offset};
    return hook(hook_context, &event);
}

void disk_stay_above(long fd, bool strictly)
{
    long start = room_start();
    high_fd = fd + HIGH_ROOM < start ? start : fd + HIGH_ROOM;
    never_below = strictly ? fd + 1 : 0;
}

long disk_high_fd(long fd)
{
    if (!high_fd)
        high_fd = room_start();
    if (fd < 0 || fd >= high_fd)
        return fd;
    long high = room_move(fd, high_fd);
    high = sys_failed(high) ? fd : high;
    if (high >= never_below)
        return high;
    sys(SYS_close, high);
    return -EMFILE;
}

long disk_open(int directory, const char *path, int flags, unsigned mode)
{
    long asked = disk_ask(DISK_OPEN, directory, path, NULL, 0, (uint64_t)flags);
    if (asked < 0)
        return asked;
    long fd;
    do
        fd = sys_fd(SYS_openat, directory, path, flags | O_CLOEXEC, mode);
    while (fd == -EINTR);
    return disk_high_fd(fd);
}

void disk_close(int *fd)
{
    if (*fd >= 0)
        sys(SYS_close, *fd);
    *fd = -1;
}

long disk_read(int fd, void *data, size_t bytes, uint64_t offset)
{
    long asked = disk_ask(DISK_READ, fd, NULL, NULL, bytes, offset);
    if (asked < 0)
        return asked;
    size_t done = 0;
    while (done < bytes) {
        size_t part = bytes - done < WRITE_MAX ? bytes - done : WRITE_MAX;
        long n = sys(SYS_pread64, fd, (char *)data + done, part, offset + done);
        if (n == -EINTR)
            continue;
        if (n < 0)
            return n;
        if (n == 0)
            break;
        done += (size_t)n;
    }
    return (long)done;
}

static int write_all(int fd, const char *data, size_t bytes, uint64_t offset, int flags)
{
    while (bytes) {
        struct iovec part = {(void *)data, bytes < WRITE_MAX ? bytes : WRITE_MAX};
        long n = flags ? sys(SYS_pwritev2, fd, &part, 1, offset, 0, flags)
                       : sys(SYS_pwrite64, fd, data, part.iov_len, offset);
        if (n == -EINTR)
            continue;
        if (n <= 0)
            return n ? (int)n : -EIO;
        data += n;
        bytes -= (size_t)n;
        offset += (size_t)n;
    }
    return 0;
}

/* What the hook leaves of a write: it goes on (0), fails at once, or fails after a part. */
static int write_asked(enum disk_op op, int fd, const void *data, size_t bytes, uint64_t offset)
{
    long asked = disk_ask(op, fd, NULL, data, bytes, offset);
    if (asked <= 0)
        return (int)asked;
    write_all(fd, data, (size_t)asked < bytes ? (size_t)asked : bytes, offset, 0);
    return -ENOSPC;
}

int disk_write(int fd, const void *data, size_t bytes, uint64_t offset)
{
    int r = hook ? write_asked(DISK_WRITE, fd, data, bytes, offset) : 0;
    return r ? r : write_all(fd, data, bytes, offset, 0);
}

int disk_write_durable(int fd, const void *data, size_t bytes, uint64_t offset)
{
    int r = hook ? write_asked(DISK_WRITE_DURABLE, fd, data, bytes, offset) : 0;
    if (!r)
        r = write_all(fd, data, bytes, offset, RWF_DSYNC);
    if (r != -EOPNOTSUPP && r != -ENOSYS)
        return r;
    r = write_all(fd, data, bytes, offset, 0);
    return r ? r : (int)sys(SYS_fdatasync, fd);
}

/* In one call; where that does not do all of it, part by part. */
int disk_write_durable_vector(int fd, const struct iovec *v, int count, uint64_t offset)
{
    long n = hook || count == 1 ? -EINTR : sys(SYS_pwritev2, fd, v, count, offset, 0, RWF_DSYNC);
    size_t bytes = 0;
    for (int i = 0; i < count; i++)
        bytes += v[i].iov_len;
    if (n == (long)bytes)
        return 0;
    int r = n >= 0 || n == -EINTR || n == -EOPNOTSUPP || n == -ENOSYS ? 0 : (int)n;
    for (int i = 0; !r && i < count; offset += v[i++].iov_len)
        r = disk_write_durable(fd, v[i].iov_base, v[i].iov_len, offset);
    return r;
}

int disk_write_vector(int fd, struct iovec *v, int count, uint64_t offset)
{
    for (int i = 0; hook && i < count; i++) {
        uint64_t at = offset;
        for (int k = 0; k < i; k++)
            at += v[k].iov_len;
        int r = write_asked(DISK_WRITE, fd, v[i].iov_base, v[i].iov_len, at);
        if (r)
            return r;
    }
    while (count) {
        long n = sys(SYS_pwritev, fd, v, count, offset, 0);
        if (n == -EINTR)
            continue;
        if (n <= 0)
            return n ? (int)n : -EIO;
        offset += (size_t)n;
        for (; count && (size_t)n >= v->iov_len; v++, count--)
            n -= (long)v->iov_len;
        if (count) {
            v->iov_base = (char *)v->iov_base + n;
            v->iov_len -= (size_t)n;
        }
    }
    return 0;
}

int disk_sync(int fd)
{
    long r = disk_ask(DISK_SYNC, fd, NULL, NULL, 0, 0);
    while (!r && (r = sys(SYS_fsync, fd)) == -EINTR)
        r = 0;
    return (int)r;
}

int disk_truncate(int fd, uint64_t bytes)
{
    long r = disk_ask(DISK_TRUNCATE, fd, NULL, NULL, bytes, 0);
    return (int)(r ? r : sys(SYS_ftruncate, fd, bytes));
}

int disk_allocate(int fd, uint64_t offset, uint64_t bytes)
{
    long r = disk_ask(DISK_ALLOCATE, fd, NULL, NULL, bytes, offset);
    while (!r && (r = sys(SYS_fallocate, fd, 0, offset, bytes)) == -EINTR)
        r = 0;
    return r == -EOPNOTSUPP || r == -ENOSYS ? 0 : (int)r;
}

int disk_write_zeros(int fd, uint64_t offset, uint64_t bytes)
{
    static const char zeros[16384];
    struct iovec v[64];
    int r = 0;
    while (bytes && !r) {
        int count = 0;
        uint64_t at = offset;
        for (; count < 64 && bytes; count++) {
            size_t part = bytes < sizeof zeros ? bytes : sizeof zeros;
            v[count] = (struct iovec){(void *)zeros, part};
            offset += part;
            bytes -= part;
        }
        r = disk_write_vector(fd, v, count, at);
    }
    return r;
}

int disk_punch(int fd, uint64_t offset, uint64_t bytes)
{
    long r = disk_ask(DISK_PUNCH, fd, NULL, NULL, bytes, offset);
    while (!r && (r = sys(SYS_fallocate, fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, bytes)) == -EINTR)
        r = 0;
    if (r != -EOPNOTSUPP && r != -ENOSYS)
        return (int)r;
    /* Beyond its end a file is zero already. */
    int64_t size = disk_size(fd);
    if (size < 0 || (uint64_t)size <= offset)
        return size < 0 ? (int)size : 0;
    uint64_t room = (uint64_t)size - offset;
    return disk_write_zeros(fd, offset, bytes < room ? bytes : room);
}

int64_t disk_size(int fd)
{
    struct stat status;
    long r = sys(SYS_fstat, fd, &status);
    return r ? r : status.st_size;
}

int disk_rename(int directory, const char *from, const char *to)
{
    long r = disk_ask(DISK_RENAME, directory, from, NULL, 0, 0);
    return (int)(r ? r : sys(SYS_renameat, directory, from, directory, to));
}

int disk_unlink(int directory, const char *path)
{
    long r = disk_ask(DISK_UNLINK, directory, path, NULL, 0, 0);
    return (int)(r ? r : sys(SYS_unlinkat, directory, path, 0));
}

int disk_link(int fd, int directory, const char *path)
{
    long r = disk_ask(DISK_LINK, directory, path, NULL, 0, 0);
    if (r)
        return (int)r;
    /* This very file, and not what its path leads to by now. */
    return (int)proc_fd_link(fd, directory, path);
}

int disk_mkdir(int directory, const char *path, unsigned mode)
{
    long r = disk_ask(DISK_MKDIR, directory, path, NULL, 0, 0);
    return (int)(r ? r : sys(SYS_mkdirat, directory, path, mode));
}

void disk_pause(unsigned milliseconds)
{
    if (disk_ask(DISK_PAUSE, -1, NULL, NULL, milliseconds, 0))
        return;
    struct timespec time = {milliseconds / 1000, (long)(milliseconds % 1000) * 1000000};
    sys(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, &time, 0);
}

_Noreturn void disk_die(const char *action, const char *store, long error)
{
    char line[512];
    say_format(line, sizeof line, "%s %s failed: %s; what was committed before is safe, start the same command again", action,
               store, say_error(error));
    if (death)
        death(line);
    say_die_of(error, "%s", line);
}

#ifndef STATX_MNT_ID_UNIQUE
#define STATX_MNT_ID_UNIQUE 0x4000u
#endif

uint64_t disk_mount(int fd)
{
    /* struct statx with stx_mnt_id, which the libc's headers may lack. */
    union {
        struct statx known;
        uint64_t words[32];
    } s = {0};
    enum { MOUNT_ID_WORD = 144 / 8 };
    if (sys_failed(sys(SYS_statx, fd, "", AT_EMPTY_PATH, STATX_MNT_ID_UNIQUE, &s)) ||
        !(s.known.stx_mask & STATX_MNT_ID_UNIQUE))
        return 0;
    return s.words[MOUNT_ID_WORD];
}
