#define _GNU_SOURCE
#include "net/file_locks.h"
#include "net/adopt.h"
#include "net/pool.h"
#include "heap/fault.h"
#include "heap/say.h"
#include "heap/sys.h"

#include <fcntl.h>
#include <string.h>
#include <time.h>

#define LOCKS_MAX 128
#define ATTEMPTS 500 /* of 10 ms */

struct lock {
    int64_t start, length; /* 0: to the end, however long the file becomes */
    int16_t type;          /* F_RDLCK, F_WRLCK */
    bool of_file;          /* OFD */
};

void file_locks_changed(struct description *d)
{
    d->bits |= FD_LOCKED;
    fd_touch(d);
}

static const char *word(const char *p, const char *end)
{
    while (p < end && *p != ' ' && *p != '\t')
        p++;
    while (p < end && (*p == ' ' || *p == '\t'))
        p++;
    return p;
}

static bool begins(const char *p, const char *end, const char *text)
{
    size_t length = strlen(text);
    return (size_t)(end - p) > length && !memcmp(p, text, length);
}

/* A number, or "EOF": -1. */
static int64_t number(const char *p)
{
    int64_t n = 0;
    if (*p < '0' || *p > '9')
        return -1;
    while (*p >= '0' && *p <= '9')
        n = n * 10 + (*p++ - '0');
    return n;
}

/* `lock: 1: POSIX  ADVISORY  WRITE 1234 08:01:5678 10 14`; false for one that is none of ours. */
static bool read_line(const char *p, const char *end, struct lock *lock)
{
    if (!begins(p, end, "lock:"))
        return false;
    const char *kind = word(word(p, end), end), *type = word(word(kind, end), end);
    const char *from = word(word(word(type, end), end), end), *to = word(from, end);
    bool of_file = begins(kind, end, "OFDLCK");
    if ((!of_file && !begins(kind, end, "POSIX")) || to == end)
        return false;
    int64_t first = number(from), last = number(to);
    *lock = (struct lock){.start = first, .length = last < 0 ? 0 : last - first + 1,
                          .type = begins(type, end, "WRITE") ? F_WRLCK : F_RDLCK, .of_file = of_file};
    return true;
}

void file_locks_capture(int fd, struct description *d)
{
    static char text[16384];
    struct lock locks[LOCKS_MAX];
    size_t count = 0;
    const char *end = text + fd_info(fd, text, sizeof text);
    for (const char *p = text, *next; p < end && count < LOCKS_MAX; p = next) {
        const char *stop = memchr(p, '\n', (size_t)(end - p));
        stop = stop ? stop : end;
        next = stop + 1;
        memset(&locks[count], 0, sizeof locks[count]);
        count += read_line(p, stop, &locks[count]);
    }
    pool_give(d->content);
    d->content = count ? pool_copy(locks, count * sizeof *locks) : NULL;
    d->content_bytes = d->content ? (uint32_t)(count * sizeof *locks) : 0;
    if (!count)
        d->bits &= (uint16_t)~FD_LOCKED;
}

static long take(int fd, const struct lock *lock)
{
    struct flock wanted = {.l_type = lock->type, .l_whence = SEEK_SET, .l_start = lock->start, .l_len = lock->length};
    struct timespec moment = {0, 10000000};
    for (int attempt = 0;; attempt++) {
        long r = sys(SYS_fcntl, fd, lock->of_file ? F_OFD_SETLK : F_SETLK, &wanted);
        if ((r != -EAGAIN && r != -EACCES) || attempt == ATTEMPTS)
            return r;
        sys(SYS_nanosleep, &moment, NULL);
    }
}

void file_locks_reopen(int fd, const struct description *d)
{
    struct lock lock;
    for (uint32_t at = 0; (d->bits & FD_LOCKED) && at < d->content_bytes; at += sizeof lock) {
        memcpy(&lock, d->content + at, sizeof lock);
        long r = MUTANT("locks.lost", 0, take(fd, &lock));
        if (r < 0)
            say("%s cannot be locked again at byte %ld: %s", d->file ? d->file->path : "a file", lock.start, say_error(r));
    }
}
