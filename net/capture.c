/* Before a commit: what the kernel knows about touched descriptors is written down. */
#define _GNU_SOURCE
#include "net/adopt.h"
#include "net/file_locks.h"
#include "net/host.h"
#include "net/landing.h"
#include "net/nameless.h"
#include "net/outbox.h"
#include "net/pool.h"
#include "net/trouble.h"
#include "heap/digits.h"
#include "heap/room.h"
#include "heap/say.h"
#include "heap/sys.h"

#include <asm/ioctls.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <time.h>

static int32_t touched[256]; /* descriptions; beyond that all are looked at */
static uint32_t touched_count;

void fd_touch(struct description *d)
{
    if (d->bits & FD_TOUCHED)
        return;
    d->bits |= FD_TOUCHED;
    if (touched_count < sizeof touched / sizeof *touched)
        touched[touched_count] = fd_index(d);
    touched_count++;
}

void fd_note_lock(int fd, struct description *d, long operation)
{
    file_learn(fd, d);
    if (d->file)
        d->file->lock = operation == 8 /* LOCK_UN */ ? 0 : (uint8_t)operation;
}

static void capture_file(int fd, struct description *d)
{
    file_learn(fd, d);
    if (d->bits & FD_LOCKED)
        file_locks_capture(fd, d);
    long at = sys(SYS_lseek, fd, 0, SEEK_CUR);
    if (at < 0)
        return;
    if (d->offset != at)
        d->bits |= FD_USED;
    d->offset = at;
}

static void keep_content(struct description *d, const void *bytes, size_t count)
{
    pool_give(d->content);
    d->content = count ? pool_copy(bytes, count) : NULL;
    d->content_bytes = d->content ? (uint32_t)count : 0;
    if (count && !d->content)
        say("%lu bytes in a pipe are too many to be kept; a restart loses them", (unsigned long)count);
}

/* One end that a child may have as well is kept only with the other: else it is the child's. */
static bool is_kept(const struct description *d)
{
    return (d->bits & FD_INTERNAL) && (!(d->bits & FD_SHARED) || d->pair >= 0);
}

/* tee(2) copies a pipe's pages into another pipe without consuming them. Packets (O_DIRECT) have their lengths before them; a
 * read returns one. Returns how many of the `waiting` bytes were got; *used are those of the buffer. */
static long look_into_pipe(int fd, char *buffer, int waiting, size_t head, size_t *used)
{
    int scratch[2];
    long done = 0, n = trouble_none(sys_fd(SYS_pipe2, scratch, O_NONBLOCK | O_CLOEXEC), "look into a pipe");
    if (n < 0)
        return n;
    trouble_none(sys(SYS_fcntl, scratch[1], F_SETPIPE_SZ, sys(SYS_fcntl, fd, F_GETPIPE_SZ, 0)), "look into a pipe");
    n = trouble_none(sys(SYS_tee, fd, scratch[1], waiting, SPLICE_F_NONBLOCK), "look into a pipe");
    for (long part = n; part > 0 && done < n; done += part > 0 ? part : 0) {
        part = trouble_none(sys(SYS_read, scratch[0], buffer + *used + head, n - done), "look into a pipe");
        uint32_t length = part > 0 ? (uint32_t)part : 0;
        memcpy(buffer + *used, &length, length ? head : 0);
        *used += length ? head + length : 0;
    }
    sys(SYS_close, scratch[0]);
    sys(SYS_close, scratch[1]);
    return done;
}

static void capture_pipe(int fd, struct description *d)
{
    int waiting = 0;
    if ((d->flags & O_ACCMODE) != O_RDONLY || !is_kept(d))
        return;
    sys(SYS_ioctl, fd, FIONREAD, &waiting);
    if (!waiting) {
        keep_content(d, NULL, 0);
        return;
    }
    size_t head = d->flags & O_DIRECT ? sizeof(uint32_t) : 0, used = 0;
    char *buffer = pool_take((size_t)waiting * (head + 1)); /* a packet has a byte at least */
    long n = buffer ? look_into_pipe(fd, buffer, waiting, head, &used) : 0;
    if (n < waiting)
        say("cannot keep %ld bytes of a pipe; a restart loses them", waiting - (n > 0 ? n : 0));
    keep_content(d, buffer, used);
    pool_give(buffer);
}

/* One end of a socketpair. Of a datagram pair every message is kept with its length before it. */
static void capture_socket(int fd, struct description *d)
{
    int waiting = 0, offset = 0;
    if (!is_kept(d) || !d->socket)
        return;
    sys(SYS_ioctl, fd, FIONREAD, &waiting);
    if (!waiting) {
        keep_content(d, NULL, 0);
        return;
    }
    size_t room = POOL_BLOCK_MAX, used = 0;
    char *buffer = pool_take(room);
    if (!buffer)
        return;
    bool stream = d->socket->type == SOCK_STREAM;
    trouble_none(sys(SYS_setsockopt, fd, SOL_SOCKET, SO_PEEK_OFF, &offset, sizeof offset), "look into a socketpair");
    while (used + 4 < room) {
        size_t head = stream ? 0 : 4;
        long n = sys(SYS_recvfrom, fd, buffer + used + head, room - used - head,
                     MSG_PEEK | MSG_DONTWAIT, NULL, NULL);
        if (trouble_none(n, "look into a socketpair") <= 0)
            break;
        uint32_t length = (uint32_t)n;
        if (head)
            memcpy(buffer + used, &length, sizeof length);
        used += head + (size_t)n;
    }
    offset = -1;
    trouble_none(sys(SYS_setsockopt, fd, SOL_SOCKET, SO_PEEK_OFF, &offset, sizeof offset), "look into a socketpair");
    keep_content(d, buffer, used);
    pool_give(buffer);
}

/* A field of /proc/self/fdinfo/N, hexadecimal. */
static uint64_t fdinfo_hex(int fd, const char *field)
{
    char text[1024];
    fd_info(fd, text, sizeof text);
    const char *p = strstr(text, field);
    for (p = p ? p + strlen(field) : ""; *p == ' ' || *p == '\t'; p++)
        ;
    return digits_hex(&p, 16);
}

int64_t fd_timer_now(const struct description *d)
{
    int clock = d->event->option;
    bool wall = clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_ALARM;
    return sys_clock_ns(clock) + (wall ? 0 : turn_clock_offset_ns());
}

/* A timer is kept as the time at which it is due, by the program's view of its clock. */
static void capture_timer(int fd, struct description *d)
{
    struct itimerspec t;
    struct fd_event *e = fd_event(d);
    if (!e || sys(SYS_timerfd_gettime, fd, &t) < 0)
        return;
    int64_t left = t.it_value.tv_sec * 1000000000L + t.it_value.tv_nsec;
    e->interval_ns = t.it_interval.tv_sec * 1000000000L + t.it_interval.tv_nsec;
    e->due_ns = left ? fd_timer_now(d) + left : 0;
    e->count = fdinfo_hex(fd, "ticks:");
}

static void capture_memfd(int fd, struct description *d)
{
    struct stat s;
    d->offset = sys(SYS_lseek, fd, 0, SEEK_CUR);
    if (trouble_none(sys(SYS_fstat, fd, &s), "look at a memfd") < 0)
        return;
    if ((size_t)s.st_size > POOL_BLOCK_MAX) {
        if (!(d->bits & FD_BROKEN))
            say("a memfd of %ld bytes is too long to be kept; a restart loses its content", (long)s.st_size);
        d->bits |= FD_BROKEN;
        keep_content(d, NULL, 0);
        return;
    }
    d->bits &= (uint16_t)~FD_BROKEN;
    char *buffer = s.st_size ? pool_take((size_t)s.st_size) : NULL;
    size_t used = 0;
    for (long n = 1; buffer && n > 0 && used < (size_t)s.st_size; used += n > 0 ? (size_t)n : 0)
        n = trouble_none(sys(SYS_pread64, fd, buffer + used, s.st_size - (long)used, used), "read a memfd");
    keep_content(d, buffer, used);
    pool_give(buffer);
}

static void capture(int fd, struct description *d)
{
    switch (d->kind) {
    case FD_FILE:
    case FD_DIR:
        capture_file(fd, d);
        break;
    case FD_DEVICE:
    case FD_TTY:
    case FD_FIFO:
        file_learn(fd, d);
        break;
    case FD_PIPE:
        capture_pipe(fd, d);
        break;
    case FD_SOCKET:
        capture_socket(fd, d);
        break;
    case FD_EVENT:
        if (fd_event(d))
            d->event->count = fdinfo_hex(fd, "eventfd-count:");
        break;
    case FD_TIMER:
        capture_timer(fd, d);
        break;
    case FD_MEMFD:
        capture_memfd(fd, d);
        break;
    default:
        break;
    }
    d->bits &= (uint16_t)~FD_TOUCHED;
}

/* What is written at one end waits at the other. */
static void touch_other_end(struct description *d)
{
    struct description *other = d->pair >= 0 ? fd_description(d->pair) : NULL;
    if (other && (d->bits & FD_INTERNAL))
        fd_touch(other);
}

static bool wanted(struct description *d)
{
    return d->kind != FD_FREE && (d->bits & FD_TOUCHED);
}

/* A child may have written to it, or read from it. */
static void touch_shared(void)
{
    for (int fd = 0; fd <= fd_highest; fd++) {
        struct description *d = fd_peek(fd);
        if (d && (d->bits & FD_SHARED) && is_kept(d))
            fd_touch(d);
    }
}

void fd_capture(void)
{
    outbox_compact();
    landing_settle();
    if (fd_shares())
        touch_shared();
    if (!touched_count)
        return;
    bool few = touched_count <= sizeof touched / sizeof *touched;
    for (uint32_t i = 0, n = touched_count; few && i < n; i++)
        touch_other_end(fd_description(touched[i]));
    if (!few)
        for (int fd = 0; fd <= fd_highest; fd++)
            if (fd_peek(fd) && wanted(fd_peek(fd)))
                touch_other_end(fd_peek(fd));
    for (int fd = 0; fd <= fd_highest; fd++) {
        struct description *d = fd_peek(fd);
        if (d && wanted(d))
            capture(fd, d);
    }
    touched_count = 0;
}
