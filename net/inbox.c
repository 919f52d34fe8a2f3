#define _GNU_SOURCE
#include "net/inbox.h"
#include "heap/fault.h"
#include "net/host.h"
#include "net/pool.h"
#include "heap/room.h"
#include "heap/say.h"
#include "heap/disk.h"
#include "heap/sys.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <poll.h>
#include <sys/stat.h>

#define PUNCH_BYTES (1L << 20) /* give back in strides of this many */
#define FULL_PAUSE_MS 200

static struct inbox *inboxes;
static struct inbox *closed; /* their files go when the turn is durable */
static bool full;            /* and it was said */

static bool wants_inbox(const struct description *d)
{
    if (MUTANT("inbox.none", true, false) || (d->flags & O_ACCMODE) == O_WRONLY || (d->bits & FD_INTERNAL))
        return false;
    if (d->kind == FD_FIFO || d->kind == FD_TTY)
        return true;
    return d->kind == FD_SOCKET && (d->bits & FD_INHERITED) && d->socket &&
           d->socket->type == SOCK_STREAM && d->socket->state == SOCK_CONNECTED;
}

static long open_journal(struct inbox *in)
{
    int directory = session_store_dirfd();
    if (directory < 0)
        return -ENOENT;
    long fd = sys_fd(SYS_openat, directory, in->name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return fd;
    struct stat s;
    long r = sys(SYS_fstat, fd, &s);
    in->end = r < 0 ? 0 : s.st_size;
    if (r == 0 && in->end < in->position) {
        r = sys(SYS_ftruncate, fd, in->position);
        in->end = in->position;
    }
    if (r < 0) {
        sys(SYS_close, fd);
        return r;
    }
    return fd_move_high((int)fd);
}

/* The store's disk failed while a journal was used: waits a while when it is full, saying so once, and ends the process of all
 * else. What is not in the journal yet is still where it came from, or in the caller's hands. */
static void wait_for_room(const char *name, long error)
{
    if (error != -ENOSPC && error != -EDQUOT)
        say_die_of(error, "cannot use %s in the store: %s; what was committed before is safe, start the same command again",
                   name, say_error(error));
    if (!full)
        say("no room for %s in the store; waiting for room", name);
    full = true;
    disk_pause(FULL_PAUSE_MS);
}

static void found_room(void)
{
    if (full)
        say("the disk of the store has room again; going on");
    full = false;
}

/* An inherited descriptor's journal is found by its number; any other by the serial of its description, which is
 * rolled back with the program, and by the FIFO's inode. */
static void name_journal(struct inbox *in, const struct description *d, int fd)
{
    struct stat s = {0};
    if (d->bits & FD_INHERITED) {
        say_format(in->name, sizeof in->name, "inbox-%d", d->origin);
        return;
    }
    sys(SYS_fstat, fd, &s);
    say_format(in->name, sizeof in->name, "inbox-%u-%lx", d->serial, (unsigned long)s.st_ino);
}

void inbox_attach(struct description *d, int fd)
{
    if (d->inbox || session_store_dirfd() < 0 || !wants_inbox(d))
        return;
    struct inbox *in = pool_take(sizeof *in);
    if (!in)
        return;
    *in = (struct inbox){.no_splice = d->kind == FD_TTY};
    name_journal(in, d, fd);
    long file;
    while ((file = open_journal(in)) < 0)
        wait_for_room(in->name, file);
    found_room();
    in->file = (int32_t)file;
    in->next = inboxes;
    inboxes = in;
    d->inbox = in;
    d->bits |= FD_JOURNAL;
}

void inbox_close(struct inbox *in)
{
    if (!in)
        return;
    for (struct inbox **link = &inboxes; *link; link = &(*link)->next)
        if (*link == in) {
            *link = in->next;
            break;
        }
    sys(SYS_close, in->file);
    in->file = -1;
    in->next = closed;
    closed = in;
}

size_t inbox_unread(const struct inbox *in)
{
    return (size_t)(in->end - in->position);
}

void inbox_grown(struct inbox *in, long bytes)
{
    if (bytes > 0)
        in->end += bytes;
}

/* The kernel has no splice for it: read a piece, then append it. */
static long read_and_append(struct inbox *in, int fd, size_t bytes)
{
    char piece[4096];
    struct pollfd ready = {fd, POLLIN, 0};
    long r;
    while ((r = sys(SYS_poll, &ready, 1, 0)) == -EINTR)
        ; /* it did not wait: that is no answer for the program */
    if (r <= 0)
        return r ? r : -EAGAIN;
    while ((r = sys(SYS_read, fd, piece, bytes < sizeof piece ? bytes : sizeof piece)) == -EINTR)
        ;
    for (long done = 0; r > 0 && done < r;) {
        long w = sys(SYS_pwrite64, in->file, piece + done, r - done, in->end + done);
        if (w == -EINTR)
            continue;
        if (w <= 0)
            wait_for_room(in->name, w ? w : -EIO);
        else
            done += w;
    }
    found_room();
    inbox_grown(in, r);
    return r;
}

long inbox_fill(struct inbox *in, int fd, size_t bytes)
{
    if (bytes > 1 << 20)
        bytes = 1 << 20;
    while (!in->no_splice) {
        int64_t at = in->end;
        long r = sys(SYS_splice, fd, NULL, in->file, &at, bytes, SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
        if (r == -EINTR)
            continue;
        if (r == -ENOSPC || r == -EDQUOT || r == -EIO || r == -ENOMEM) { /* the journal's: nothing was taken */
            wait_for_room(in->name, r);
            continue;
        }
        if (r != -EINVAL && r != -ENOSYS) {
            found_room();
            FAULT("inbox.spliced");
            inbox_grown(in, r);
            return r;
        }
        in->no_splice = true;
    }
    return read_and_append(in, fd, bytes);
}

long inbox_take(struct inbox *in, const struct iovec *v, int count)
{
    long total = 0;
    size_t done = 0; /* of v[i] */
    for (int i = 0; i < count && inbox_unread(in);) {
        size_t room = v[i].iov_len - done, n = room < inbox_unread(in) ? room : inbox_unread(in);
        long r = n ? sys(SYS_pread64, in->file, (char *)v[i].iov_base + done, n, in->position) : 0;
        if (r == -EINTR)
            continue;
        if (r < 0 && (total || r == -EFAULT))
            return total ? total : r;
        if (r < 0) {
            wait_for_room(in->name, r);
            continue;
        }
        if (n && !r)
            break;
        in->position += r;
        FAULT("inbox.taken");
        total += r;
        done += (size_t)r;
        if (done == v[i].iov_len) {
            done = 0;
            i++;
        }
    }
    return total;
}

static void punch(struct inbox *in)
{
    int64_t to = in->position & ~(int64_t)(PAGE_BYTES - 1);
    if (to - in->punched < PUNCH_BYTES)
        return;
    sys(SYS_fallocate, in->file, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, in->punched,
        to - in->punched);
    FAULT("inbox.punched");
    in->punched = to;
}

void inbox_committed(void)
{
    for (struct inbox *in = inboxes; in; in = in->next)
        punch(in);
    while (closed) {
        struct inbox *in = closed;
        closed = in->next;
        sys(SYS_unlinkat, session_store_dirfd(), in->name, 0);
        FAULT("inbox.removed");
        pool_give(in);
    }
}

int inbox_reopen(void)
{
    for (struct inbox *in = inboxes; in; in = in->next) {
        long file;
        while ((file = open_journal(in)) < 0)
            wait_for_room(in->name, file);
        found_room();
        in->file = (int32_t)file;
        in->position = MUTANT("inbox.position_lost", in->end, in->position);
    }
    return 0;
}

void inbox_forked(void)
{
    for (struct inbox *in = inboxes, *next; in; in = next) {
        next = in->next;
        sys(SYS_close, in->file);
        pool_give(in);
    }
    inboxes = closed = NULL;
}

void inbox_begin_here(struct inbox *in)
{
    in->position = in->end;
}

bool inbox_owns(int fd)
{
    for (const struct inbox *in = inboxes; in; in = in->next)
        if (in->file == fd)
            return true;
    return false;
}

bool inbox_any(void)
{
    for (const struct inbox *in = inboxes; in; in = in->next)
        if (inbox_unread(in))
            return true;
    return false;
}
