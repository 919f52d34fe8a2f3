/* Pins: the files a saved process has mapped, kept against package upgrades.
 *
 * A name is 16 hex digits that tell files apart (device, inode, size, time of change), a dot, and 14 that
 * tell whether the pinned file is still what it was (size, time of change): a hard link does not protect
 * from being written in place.
 */
#define _GNU_SOURCE
#define XXH_INLINE_ALL
#include "heap/disk.h"
#include "heap/fault.h"
#include "heap/say.h"
#include "heap/store.h"
#include "heap/sys.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/stat.h>
#include <xxhash.h>

#define PATH_OF_PIN_BYTES (STORE_PIN_BYTES + 16)

static void hex(char *text, uint64_t value, unsigned digits)
{
    for (unsigned i = 0; i < digits; i++, value <<= 4)
        text[i] = "0123456789abcdef"[value >> 60];
    text[digits] = '\0';
}

/* 14 digits and the terminating zero. */
static void stamp(char text[15], const struct stat *status)
{
    uint64_t key[3] = {(uint64_t)status->st_size, (uint64_t)status->st_mtim.tv_sec,
                       (uint64_t)status->st_mtim.tv_nsec};
    hex(text, XXH3_64bits(key, sizeof key), 14);
}

static void make_name(char name[STORE_PIN_BYTES], const struct stat *status)
{
    uint64_t key[5] = {status->st_dev, status->st_ino, (uint64_t)status->st_size,
                       (uint64_t)status->st_mtim.tv_sec, (uint64_t)status->st_mtim.tv_nsec};
    hex(name, XXH3_64bits(key, sizeof key), 16);
    name[16] = '.';
    stamp(name + 17, status);
}

static bool matches_name(const char *name, const struct stat *status)
{
    char now[15];
    stamp(now, status);
    return S_ISREG(status->st_mode) && strlen(name) == STORE_PIN_BYTES - 1 && !strcmp(name + 17, now);
}

static void pin_path(char path[PATH_OF_PIN_BYTES], const char *name, const char *suffix)
{
    say_format(path, PATH_OF_PIN_BYTES, "pin/%s%s", name, suffix);
}

/* A shared extent where the file system has them, else copied in the kernel, else by hand. */
static int copy_contents(int to, int from, uint64_t bytes)
{
    if (!sys(SYS_ioctl, to, FICLONE, from))
        return 0;
    uint64_t done = 0;
    for (long n = 1; n > 0 && done < bytes; done += n > 0 ? (uint64_t)n : 0)
        n = sys(SYS_copy_file_range, from, NULL, to, NULL, bytes - done, 0);
    while (done < bytes) {
        char buffer[8192];
        long n = disk_read(from, buffer, sizeof buffer, done);
        if (n <= 0)
            return n ? (int)n : -ESTALE; /* it was cut meanwhile */
        int r = disk_write(to, buffer, (size_t)n, done);
        if (r)
            return r;
        done += (uint64_t)n;
    }
    return 0;
}

static int copy_pin(struct store *s, int from, const struct stat *status, const char *name, const char *path)
{
    char part[PATH_OF_PIN_BYTES];
    pin_path(part, name, ".tmp");
    int to = (int)disk_open(s->directory_fd, part, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, 0700);
    if (to < 0)
        return to;
    int r = copy_contents(to, from, (uint64_t)status->st_size);
    FAULT("pin.copied");
    struct timespec times[2] = {status->st_mtim, status->st_mtim};
    if (!r)
        r = (int)sys(SYS_utimensat, to, NULL, times, 0);
    if (!r)
        r = disk_sync(to);
    disk_close(&to);
    FAULT("pin.rename");
    if (!r)
        r = disk_rename(s->directory_fd, part, path);
    if (r)
        disk_unlink(s->directory_fd, part);
    return r;
}

static int pin_file(struct store *s, int fd, const struct stat *status, const char *name)
{
    struct stat there;
    char path[PATH_OF_PIN_BYTES];
    pin_path(path, name, "");
    if (!sys(SYS_newfstatat, s->directory_fd, path, &there, AT_SYMLINK_NOFOLLOW)) {
        if (matches_name(name, &there))
            return 0;
        disk_unlink(s->directory_fd, path);
    }
    FAULT("pin.link");
    /* The link is refused across file systems, for files of others, without /proc, ... */
    int r = disk_link(fd, s->directory_fd, path);
    if (r && r != -EIO && r != -ENOSPC && r != -EDQUOT)
        r = copy_pin(s, fd, status, name, path);
    s->pins_dirty |= !r;
    return r;
}

int store_pin(struct store *s, const char *path, uint64_t device, uint64_t inode,
              char name[STORE_PIN_BYTES])
{
    struct stat status;
    int fd = (int)disk_open(AT_FDCWD, path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0);
    if (fd < 0)
        return fd == -ENOENT ? -ESTALE : fd;
    int r = (int)sys(SYS_fstat, fd, &status);
    if (!r && (status.st_ino != inode || (device && status.st_dev != device) || !S_ISREG(status.st_mode)))
        r = -ESTALE;
    if (!r) {
        make_name(name, &status);
        r = pin_file(s, fd, &status, name);
    }
    disk_close(&fd);
    return r;
}

int store_sync_pins(struct store *s)
{
    if (!s->pins_dirty)
        return 0;
    int fd = (int)disk_open(s->directory_fd, "pin", O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0)
        return fd;
    int r = disk_sync(fd);
    disk_close(&fd);
    FAULT("pin.synced");
    if (!r)
        s->pins_dirty = false;
    return r;
}

long store_pin_open(const struct store *s, const char *name)
{
    struct stat status;
    char path[PATH_OF_PIN_BYTES];
    pin_path(path, name, "");
    long fd = disk_open(s->directory_fd, path, O_RDONLY | O_NOFOLLOW, 0);
    if (fd < 0)
        return fd;
    long r = sys(SYS_fstat, fd, &status);
    if (!r && !matches_name(name, &status))
        r = -ESTALE;
    if (!r)
        return fd;
    int file = (int)fd;
    disk_close(&file);
    return r;
}
