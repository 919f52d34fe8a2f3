/* Making every descriptor again, in a new process that holds the old memory.
 *
 * The order: the inherited descriptors of the new process get duplicates out of the way; each description is made once
 * and put at every number that leads to it, over whatever is there; numbers that the program does not use are closed;
 * interest lists come last. Messages can be written all the time: 2 is replaced in one step.
 */
#define _GNU_SOURCE
#include "net/reopen.h"
#include "net/pidfd.h"
#include "heap/fault.h"
#include "net/adopt.h"
#include "net/file_locks.h"
#include "net/inbox.h"
#include "net/landing.h"
#include "net/nameless.h"
#include "net/pool.h"
#include "net/stream.h"
#include "net/terminal.h"
#include "net/trouble.h"
#include "net/progress.h"
#include "heap/say.h"
#include "heap/sys.h"

#include <fcntl.h>
#include <sys/file.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define INHERITED_MAX 64 /* numbers that may be inherited again */

static int parked[INHERITED_MAX]; /* where the new process's inherited descriptors wait; -1: none */

static bool inherits(int number)
{
    for (int i = 0; i < fd_descriptions(); i++) {
        struct description *d = fd_description(i);
        if (d->kind != FD_FREE && (d->bits & FD_INHERITED) && d->origin == number)
            return true;
    }
    return false;
}

static void close_foreign(int fd, void *context)
{
    if (!fd_is_ours(fd) && !fd_peek(fd))
        sys(SYS_close, fd);
}

/* Parked above every number that the program uses. */
static int park(void)
{
    for (int number = 0; number < INHERITED_MAX; number++) {
        parked[number] = -1;
        if (fd_is_ours(number) || !inherits(number))
            continue;
        long at = sys(SYS_fcntl, number, F_DUPFD_CLOEXEC, fd_highest + 1 > 3 ? fd_highest + 1 : 3);
        if (at == -EBADF)
            continue;
        if (at < 0) {
            say("no room for descriptors: %s", say_error(at));
            return (int)at;
        }
        parked[number] = (int)at;
    }
    return 0;
}

/* The same file goes on where it was; anything else is what the new process was given. */
static long adopt_again(struct description *d)
{
    int fd = d->origin >= 0 && d->origin < INHERITED_MAX ? parked[d->origin] : -1;
    struct stat s;
    long r = fd < 0 ? -EBADF : sys(SYS_fstat, fd, &s);
    if (trouble_is(r))
        return r;
    if (r < 0)
        return sys(SYS_open, "/dev/null", O_RDWR | O_CLOEXEC, 0);
    parked[d->origin] = -1;
    d->bits &= (uint16_t)~FD_WIDENED;
    enum fd_kind kind = fd_kind_of(fd, &s);
    bool same = kind == FD_FILE && d->kind == FD_FILE && d->file && d->file->device == s.st_dev &&
                d->file->inode == s.st_ino;
    /* Others may write to a file that was handed down, stderr above all: for output it goes back only if the program
     * wrote to it itself. */
    bool moves = (d->bits & FD_USED) || (d->flags & O_ACCMODE) != O_WRONLY;
    if (same && moves && !(d->bits & FD_EXEMPT))
        sys(SYS_lseek, fd, d->offset, SEEK_SET);
    d->flags = (uint32_t)sys(SYS_fcntl, fd, F_GETFL, 0) | (d->flags & O_NONBLOCK);
    if (kind != d->kind) {
        pool_give(d->content);
        d->content = NULL;
        d->content_bytes = 0;
    }
    if (kind != d->kind && d->kind != FD_SOCKET && kind != FD_SOCKET) {
        d->kind = (uint8_t)kind;
        d->file = NULL;
        d->bits &= (uint16_t)~FD_NAMED;
    } else if (kind != d->kind) {
        d->socket = NULL;
        d->kind = (uint8_t)kind;
        d->bits &= (uint16_t)~FD_NAMED;
    }
    if (kind == FD_SOCKET)
        fd_read_socket(fd, d);
    if (d->flags & O_NONBLOCK)
        sys(SYS_fcntl, fd, F_SETFL, d->flags);
    fd_touch(d);
    return fd;
}

long reopen_whole(int fd, long r)
{
    if (!trouble_is(r))
        return fd;
    sys(SYS_close, fd);
    return r;
}

long reopen_nothing(void)
{
    return sys(SYS_open, "/", O_PATH | O_CLOEXEC, 0);
}

static long lock_again(int fd, const struct description *d)
{
    for (int attempt = 0; d->file->lock && attempt < 500; attempt++) {
        long r = sys(SYS_flock, fd, d->file->lock | LOCK_NB);
        if (r != -EAGAIN)
            return trouble_is(r) ? r : 0;
        struct timespec moment = {0, 10000000};
        sys(SYS_nanosleep, &moment, NULL);
    }
    if (d->file->lock)
        say("%s is locked by another process now", d->file->path);
    return 0;
}

long reopen_file(struct description *d)
{
    if (!d->file || !d->file->path)
        return reopen_nothing();
    uint32_t flags = d->flags & ~(uint32_t)(O_CREAT | O_EXCL | O_TRUNC | O_TMPFILE);
    if (d->kind == FD_DIR)
        flags |= O_DIRECTORY;
    bool fifo = d->kind == FD_FIFO && (flags & O_ACCMODE) != O_RDWR;
    if (fifo && (flags & O_ACCMODE) == O_WRONLY)
        flags = (flags & ~(uint32_t)O_ACCMODE) | O_RDWR; /* never waits for a reader */
    uint32_t manner = flags | O_CLOEXEC | O_NOCTTY | (fifo ? (uint32_t)O_NONBLOCK : 0);
    long fd = d->file->deleted       ? nameless_open(d->file, manner)
              : d->kind == FD_FILE ? nameless_find(d->file, manner)
                                     : sys(SYS_open, d->file->path, manner, 0);
    if (trouble_is(fd))
        return fd;
    if (fd < 0) {
        say(d->file->deleted ? "%s was deleted while open; it reads as closed now (%s)"
                             : "cannot open %s again: %s; it reads as closed now",
            d->file->path, say_error(fd));
        return reopen_nothing();
    }
    struct stat s;
    long r = sys(SYS_fstat, fd, &s);
    if (r == 0 && (s.st_ino != d->file->inode || s.st_dev != d->file->device)) {
        if (d->kind == FD_FILE)
            say("%s is another file now", d->file->path);
        d->file->inode = s.st_ino;
        d->file->device = s.st_dev;
    }
    if (fifo && !(d->flags & O_NONBLOCK))
        sys(SYS_fcntl, fd, F_SETFL, d->flags);
    if (d->kind == FD_FILE || d->kind == FD_DIR)
        sys(SYS_lseek, fd, MUTANT("reopen.no_offset", 0, d->offset), SEEK_SET);
    if (!trouble_is(r))
        r = lock_again((int)fd, d);
    return reopen_whole((int)fd, r);
}

static long make(struct description *d, int ends[2])
{
    if (d->bits & FD_INHERITED)
        return adopt_again(d);
    switch (d->kind) {
    case FD_FILE:
    case FD_DIR:
    case FD_DEVICE:
    case FD_TTY:
    case FD_FIFO:
        return reopen_file(d);
    case FD_PIPE:
        return reopen_pipe(d, ends);
    case FD_SOCKET:
        if (d->socket && d->socket->stream)
            return stream_reopen(d);
        return d->bits & FD_INTERNAL ? reopen_socketpair(d, ends) : reopen_socket(d);
    case FD_EPOLL:
    case FD_EVENT:
    case FD_TIMER:
    case FD_SIGNAL:
    case FD_INOTIFY:
    case FD_MEMFD:
        return reopen_event(d);
    case FD_PIDFD:
        return d->event ? pidfd_reopen(d) : reopen_nothing();
    default:
        say("a descriptor of an unknown kind cannot be made again; it reads as closed now");
        return reopen_nothing();
    }
}

/* Puts the new descriptor at every number of its description. */
static int place(const struct description *d, int made)
{
    int index = fd_index(d) + 1;
    bool at_home = false;
    for (int fd = 0; fd <= fd_highest; fd++) {
        if (fd_slots[fd].description != index)
            continue;
        uint32_t closing = fd_slots[fd].close_on_exec;
        long r;
        if (fd == made) {
            r = sys(SYS_fcntl, fd, F_SETFD, closing ? FD_CLOEXEC : 0);
            at_home = true;
        } else {
            r = sys(SYS_dup3, made, fd, closing ? O_CLOEXEC : 0);
        }
        if (r < 0) {
            say("descriptor %d cannot be made again: %s", fd, say_error(r));
            return (int)r;
        }
    }
    if (!at_home)
        sys(SYS_close, made);
    return 0;
}

/* A new descriptor may have got a number at which another one, made before it, belongs: never, since those are taken; or
 * one that belongs to a later one: that one replaces it after this one has moved on. But the second end of a pair
 * waits for its turn, so it is moved above all numbers. */
static long above(long fd)
{
    long high = sys(SYS_fcntl, fd, F_DUPFD_CLOEXEC, fd_highest + 1);
    if (high >= 0)
        sys(SYS_close, fd);
    return high;
}

static int remake(struct description *d)
{
    int ends[2] = {-1, -1};
    struct description *other = d->pair >= 0 ? fd_description(d->pair) : NULL;
    long made = make(d, ends);
    if (made < 0)
        return (int)made;
    terminal_reopen((int)made, d);
    if (ends[1] >= 0) {
        long high = above(ends[1]);
        int r = high < 0 ? (int)high : place(d, (int)made);
        if (r == 0 && other && other->kind != FD_FREE)
            return place(other, (int)high);
        if (high >= 0)
            sys(SYS_close, high);
        return r;
    }
    return place(d, (int)made);
}

/* Last: the process loses its locks on a file whenever it closes any descriptor of it. */
static void lock_records(void)
{
    int32_t last = 0;
    for (int fd = 0; fd <= fd_highest; fd++) {
        struct description *d = fd_peek(fd);
        if (d && d->kind == FD_FILE && fd_slots[fd].description != last)
            file_locks_reopen(fd, d);
        last = fd_slots[fd].description;
    }
}

int fd_reopen(void)
{
    transport_boot();
    landing_boot();
    stream_boot();
    peers_announce_again();
    progress_reopen();
    outbox_reopen();
    int r = inbox_reopen();
    if (r == 0)
        r = park();
    FAULT("reopen.parked");
    for (int i = 0; r == 0 && i < fd_descriptions(); i++) {
        struct description *d = fd_description(i);
        bool second = d->kind != FD_FREE && d->pair >= 0 && d->pair < i;
        if (d->kind != FD_FREE && !second)
            r = remake(d);
        FAULT("reopen.descriptor");
    }
    reopen_socket_done();
    fd_each_open(close_foreign, NULL); /* the rest of the parked ones, too */
    if (r == 0)
        r = reopen_watches();
    if (r == 0)
        lock_records();
    FAULT("reopen.watches");
    if (r == 0)
        nameless_reopened();
    if (r == 0)
        peers_resume();
    return r;
}
