/* Closing and duplicating descriptors. libken's own are neither seen nor touched. */
#define _GNU_SOURCE
#include "net/file_locks.h"
#include "shim/call_net.h"
#include "shim/call_wait.h"
#include "shim/turn.h"

#include <fcntl.h>
#include <linux/close_range.h>

long call_close(struct call *c)
{
    int fd = (int)c->arg[0];
    if (fd_is_ours(fd))
        return -EBADF;
    if (fd_peek(fd))
        wait_close(fd);
    long r = call_raw(c);
    if (r != -EBADF)
        fd_forget(fd);
    return r;
}

/* From the lowest to the highest, in stretches between libken's. */
long call_close_range(struct call *c)
{
    unsigned first = (unsigned)c->arg[0], last = (unsigned)c->arg[1];
    unsigned flags = (unsigned)c->arg[2];
    if (first > last || (flags & ~(unsigned)(CLOSE_RANGE_UNSHARE | CLOSE_RANGE_CLOEXEC)))
        return -EINVAL;
    bool only_mark = flags & CLOSE_RANGE_CLOEXEC;
    for (unsigned fd = first; fd <= last && (int)fd <= fd_highest; fd++) {
        if (!only_mark && fd_peek((int)fd))
            wait_close((int)fd);
    }
    unsigned from = first;
    for (unsigned fd = first; fd <= last && fd < 1U << 16; fd++) {
        if (!fd_is_ours((int)fd))
            continue;
        if (fd > from)
            sys(SYS_close_range, from, fd - 1, flags);
        from = fd + 1;
    }
    long r = from <= last ? sys(SYS_close_range, from, last, flags) : 0;
    for (unsigned fd = first; r == 0 && fd <= last && (int)fd <= fd_highest; fd++) {
        if (only_mark)
            fd_set_close_on_exec((int)fd, true);
        else
            fd_forget((int)fd);
    }
    return r;
}

long call_dup(struct call *c)
{
    int from = (int)c->arg[0];
    if (fd_is_ours(from))
        return -EBADF;
    long to = call_raw(c);
    if (to >= 0)
        fd_duplicate(from, (int)to, false);
    return to;
}

static long duplicate_over(struct call *c, bool close_on_exec)
{
    int from = (int)c->arg[0], to = (int)c->arg[1];
    if (fd_is_ours(from))
        return -EBADF;
    if (fd_is_ours(to))
        return -EBUSY;
    if (from != to && fd_peek(to))
        wait_close(to);
    long r = call_raw(c);
    if (r >= 0)
        fd_duplicate(from, to, close_on_exec);
    return r;
}

long call_dup2(struct call *c)
{
    return duplicate_over(c, false);
}

long call_dup3(struct call *c)
{
    return duplicate_over(c, c->arg[2] & O_CLOEXEC);
}

static long set_flags(struct call *c, struct description *d)
{
    long r = call_raw(c);
    if (r == 0 && d) {
        uint32_t settable = O_APPEND | O_ASYNC | O_DIRECT | O_NOATIME | O_NONBLOCK;
        d->flags = (d->flags & ~settable) | ((uint32_t)c->arg[2] & settable);
    }
    return r;
}

/* A record lock that is held by someone else is waited for like any input. */
static long wait_lock(struct call *c)
{
    struct call attempt = *c;
    attempt.arg[1] = c->arg[1] == F_OFD_SETLKW ? F_OFD_SETLK : F_SETLK;
    long r = call_raw(&attempt);
    if (r != -EAGAIN && r != -EACCES)
        return r;
    turn_end(TURN_WAIT);
    return wait_kernel(c);
}

static long lock_record(struct call *c)
{
    bool waits = c->arg[1] == F_SETLKW || c->arg[1] == F_OFD_SETLKW;
    long r = waits ? wait_lock(c) : call_raw(c);
    struct description *d = r == 0 ? fd_find((int)c->arg[0]) : NULL;
    if (d && d->kind == FD_FILE)
        file_locks_changed(d);
    return r;
}

long call_fcntl(struct call *c)
{
    int fd = (int)c->arg[0];
    if (fd_is_ours(fd))
        return -EBADF;
    long r;
    switch (c->arg[1]) {
    case F_DUPFD:
    case F_DUPFD_CLOEXEC:
        r = call_raw(c);
        if (r >= 0)
            fd_duplicate(fd, (int)r, c->arg[1] == F_DUPFD_CLOEXEC);
        return r;
    case F_SETFD:
        r = call_raw(c);
        if (r == 0)
            fd_set_close_on_exec(fd, c->arg[2] & FD_CLOEXEC);
        return r;
    case F_SETFL:
        return set_flags(c, fd_find(fd));
    case F_SETLK:
    case F_OFD_SETLK:
    case F_SETLKW:
    case F_OFD_SETLKW:
        return lock_record(c);
    case F_SETPIPE_SZ:
        r = call_raw(c);
        if (r > 0 && fd_find(fd))
            fd_pipe_size(fd_find(fd), r);
        return r;
    default:
        return call_raw(c);
    }
}
