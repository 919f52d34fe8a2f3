/* Opening files, offsets, locks, device control. */
#define _GNU_SOURCE
#include "net/adopt.h"
#include "heap/say.h"
#include "net/inbox.h"
#include "net/nameless.h"
#include "net/trouble.h"
#include "net/terminal.h"
#include "shim/call_names.h"
#include "shim/call_net.h"
#include "shim/call_peer.h"
#include "shim/call_stream.h"
#include "shim/call_wait.h"
#include "shim/turn.h"

#include <asm/ioctls.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/file.h>
#include <sys/stat.h>

/* With O_EXCL a file without a name could not be linked into the store. Nothing else comes of it. */
static void make_linkable(long *flags)
{
    if ((*flags & O_TMPFILE) == O_TMPFILE)
        *flags &= ~(long)O_EXCL;
}

/* Opening a FIFO waits for its other end. */
static bool opens_fifo(long directory, const char *path, uint64_t flags)
{
    struct stat s;
    if ((flags & (O_NONBLOCK | O_PATH)) || (flags & O_ACCMODE) == O_RDWR || (uintptr_t)path < PAGE_BYTES)
        return false;
    return sys(SYS_newfstatat, directory, path, &s, 0) == 0 && S_ISFIFO(s.st_mode);
}

static long entered(long fd, uint64_t flags)
{
    struct stat s;
    if (fd < 0 || trouble_none(sys(SYS_fstat, fd, &s), "look at what was opened") < 0)
        return fd;
    struct description *d = fd_enter((int)fd, fd_kind_of((int)fd, &s), (uint32_t)flags);
    if (!d)
        return fd;
    fd_touch(d);
    fd_tell_device((int)fd, d->kind, &s);
    if ((flags & O_TMPFILE) == O_TMPFILE)
        nameless_born((int)fd, d);
    if (d->kind == FD_FIFO || d->kind == FD_TTY)
        inbox_attach(d, (int)fd);
    return fd;
}

static long open_as(struct call *c, long directory, const char *path, uint64_t flags)
{
    bool new = (flags & O_CREAT) && (flags & O_TMPFILE) != O_TMPFILE && names_making((int)directory, path, false);
    if (new || !opens_fifo(directory, path, flags)) {
        long fd = entered(call_raw(c), flags);
        if (new && fd < 0)
            names_not_made((int)directory, path);
        return fd;
    }
    turn_end(TURN_WAIT);
    return entered(wait_kernel(c), flags);
}

long call_open(struct call *c)
{
    make_linkable(&c->arg[1]);
    return open_as(c, AT_FDCWD, (const char *)c->arg[0], (uint64_t)(unsigned)c->arg[1]);
}

long call_openat(struct call *c)
{
    make_linkable(&c->arg[2]);
    return open_as(c, c->arg[0], (const char *)c->arg[1], (uint64_t)(unsigned)c->arg[2]);
}

long call_openat2(struct call *c)
{
    const struct open_how *how = (const struct open_how *)c->arg[2];
    if ((uintptr_t)how < PAGE_BYTES)
        return call_raw(c);
    return open_as(c, c->arg[0], (const char *)c->arg[1], how->flags);
}

long call_creat(struct call *c)
{
    return open_as(c, AT_FDCWD, (const char *)c->arg[0], O_CREAT | O_WRONLY | O_TRUNC);
}

static void touch(int fd)
{
    struct description *d = fd_find(fd);
    if (d && !(d->bits & FD_TOUCHED))
        fd_touch(d);
}

long call_lseek(struct call *c)
{
    touch((int)c->arg[0]);
    return call_raw(c);
}

long call_getdents64(struct call *c)
{
    touch((int)c->arg[0]);
    return call_raw(c);
}

long call_flock(struct call *c)
{
    struct call attempt = *c;
    attempt.arg[1] |= LOCK_NB;
    long r = call_raw(&attempt);
    if (r == -EAGAIN && !(c->arg[1] & LOCK_NB)) {
        turn_end(TURN_WAIT);
        r = wait_kernel(c);
    }
    struct description *d = r == 0 ? fd_find((int)c->arg[0]) : NULL;
    if (d && (d->kind == FD_FILE || d->kind == FD_DIR))
        fd_note_lock((int)c->arg[0], d, c->arg[1] & ~LOCK_NB);
    return r;
}

static long set_nonblocking(struct call *c, struct description *d)
{
    long r = call_raw(c);
    if (r == 0 && d && (uintptr_t)c->arg[2] >= PAGE_BYTES)
        d->flags = *(const int *)c->arg[2] ? d->flags | O_NONBLOCK : d->flags & ~(uint32_t)O_NONBLOCK;
    return r;
}

/* What was said before goes to the terminal as it was. */
static long set_terminal(struct call *c, struct description *d)
{
    wait_drain((int)c->arg[0]);
    long r = call_raw(c);
    if (r == 0 && d)
        terminal_set((int)c->arg[0], d);
    return r;
}

long call_ioctl(struct call *c)
{
    int fd = (int)c->arg[0];
    if (fd_is_ours(fd))
        return -EBADF;
    struct description *d = fd_find(fd);
    long r;
    if (terminal_sets((unsigned)c->arg[1]))
        return set_terminal(c, d);
    switch ((unsigned)c->arg[1]) {
    case FIONBIO:
        return set_nonblocking(c, d);
    case FIONREAD:
        if (stream_is(d))
            return stream_control(c, d);
        r = call_raw(c);
        if (r == 0 && d && d->inbox)
            *(int *)c->arg[2] += (int)inbox_unread(d->inbox);
        if (r == 0 && d && peer_receives(d))
            peer_count(d, (int *)c->arg[2]);
        return r;
    case FIOCLEX:
    case FIONCLEX:
        r = call_raw(c);
        if (r == 0)
            fd_set_close_on_exec(fd, (unsigned)c->arg[1] == FIOCLEX);
        return r;
    default:
        return stream_is(d) ? stream_control(c, d) : call_raw(c);
    }
}

long call_io_uring_setup(struct call *c)
{
    static bool told;
    if (!told)
        say("io_uring is refused: what passes through it cannot be held back; the program falls back, or fails");
    told = true;
    return -ENOSYS;
}
