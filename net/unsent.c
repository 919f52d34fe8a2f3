#define _GNU_SOURCE
#define XXH_INLINE_ALL
#include "net/unsent.h"
#include "net/fdtable.h"
#include "heap/fault.h"
#include "heap/room.h"
#include "heap/say.h"
#include "heap/sys.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <xxhash.h>

#define IN_THE_MAKING UNSENT_FILE ".tmp"
#define FULL_DISK_MS 200
#define PADDED(bytes) (((bytes) + 7) & ~7UL)

/* Writes all of it; a full disk makes the program wait, as a commit does. */
static int write_all(struct unsent_writer *w, const void *data, size_t bytes, uint64_t at)
{
    for (size_t done = 0; done < bytes;) {
        long n = sys(SYS_pwrite64, w->fd, (const char *)data + done, bytes - done, at + done);
        if (n == -ENOSPC || n == -EDQUOT) {
            if (!w->full)
                say("the disk is full: what peers did not take waits for room in the store");
            w->full = true;
            sys(SYS_poll, NULL, 0, FULL_DISK_MS);
        } else if (n < 0 && n != -EINTR) {
            return (int)n;
        }
        done += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

static int append(struct unsent_writer *w, const void *data, size_t bytes)
{
    int r = write_all(w, data, bytes, w->at);
    w->at += bytes;
    return r;
}

int unsent_begin(struct unsent_writer *w, int directory)
{
    *w = (struct unsent_writer){.at = sizeof(struct unsent_head)};
    long fd = sys_fd(SYS_openat, directory, IN_THE_MAKING, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    w->fd = (int)(fd < 0 ? fd : fd_move_high((int)fd));
    FAULT("unsent.begun");
    return w->fd < 0 ? w->fd : 0;
}

int unsent_put(struct unsent_writer *w, const struct channel *c, const struct wire_id *self, const struct wire_address *far,
               const struct wire_address *door, const struct unsent_address *addresses, uint32_t count)
{
    struct unsent_channel u = {
        .self = *self,
        .peer = c->peer,
        .place = c->place,
        .acked = c->acked,
        .produced = c->ready,
        .expected = c->durable,
        .datagrams_sent = c->datagrams_sent,
        .datagrams_acked = c->datagrams_acked,
        .datagrams_taken = c->datagrams_taken_durable,
        .addresses = count,
    };
    if (far)
        u.far = *far;
    if (door)
        u.door = *door;
    for (uint64_t n = u.acked; n < u.produced; n++)
        u.bytes += channel_frame(c, n)->length;
    int r = append(w, &u, sizeof u);
    for (uint64_t n = u.acked; !r && n < u.produced; n++) {
        const struct frame *f = channel_frame(c, n);
        r = append(w, f->wire, f->length);
    }
    if (!r)
        r = append(w, &(uint64_t){0}, PADDED(u.bytes) - u.bytes);
    if (!r)
        r = append(w, addresses, count * sizeof *addresses);
    w->channels++;
    return r;
}

static int sync_directory(int directory)
{
    long fd = sys_fd(SYS_openat, directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    long r = fd < 0 ? fd : sys(SYS_fsync, fd);
    if (fd >= 0)
        sys(SYS_close, fd);
    return (int)r;
}

static uint64_t checksum_of(const struct unsent_head *head, size_t bytes)
{
    const size_t from = offsetof(struct unsent_head, version);
    return XXH3_64bits((const char *)head + from, bytes - from);
}

/* The checksum is that of the file as it lies there. */
static int write_head(struct unsent_writer *w)
{
    struct unsent_head head = {.magic = UNSENT_MAGIC,
                               .version = UNSENT_VERSION,
                               .wire_version = WIRE_VERSION,
                               .bytes = w->at,
                               .channels = w->channels};
    int r = write_all(w, &head, sizeof head, 0);
    long at = r ? r : sys(SYS_mmap, 0, w->at, PROT_READ, MAP_SHARED, w->fd, 0);
    if (sys_failed(at))
        return (int)at;
    head.checksum = checksum_of((const void *)at, w->at);
    sys(SYS_munmap, at, w->at);
    return write_all(w, &head, sizeof head, 0);
}

static int finish(struct unsent_writer *w, int directory)
{
    int r = write_head(w);
    FAULT("unsent.written");
    if (!r)
        r = (int)sys(SYS_fsync, w->fd);
    FAULT("unsent.synced");
    if (!r)
        r = (int)sys(SYS_renameat, directory, IN_THE_MAKING, directory, UNSENT_FILE);
    FAULT("unsent.renamed");
    return r ? r : sync_directory(directory);
}

int unsent_end(struct unsent_writer *w, int directory, int error)
{
    int r = error ? error : finish(w, directory);
    if (w->fd >= 0)
        sys(SYS_close, w->fd);
    return r;
}

int unsent_remove(int directory)
{
    long r = sys(SYS_unlinkat, directory, UNSENT_FILE, 0);
    FAULT("unsent.removed");
    if (r < 0 && r != -ENOENT)
        return (int)r;
    return sync_directory(directory);
}

/* The frames of one channel fill exactly the bytes that it says. */
static bool frames_fit(const struct unsent_channel *u)
{
    const unsigned char *at = unsent_frames(u);
    uint64_t left = u->bytes;
    for (uint64_t n = u->acked; n < u->produced; n++) {
        struct wire_head h;
        long length = wire_parse(at, left, &h);
        if (length <= 0 || h.sequence != n)
            return false;
        at += length;
        left -= (uint64_t)length;
    }
    return left == 0;
}

static uint64_t length_of(const struct unsent_channel *u)
{
    return sizeof *u + PADDED(u->bytes) + u->addresses * sizeof(struct unsent_address);
}

static bool channel_fits(const struct unsent_channel *u, size_t left)
{
    return left >= sizeof *u && u->bytes <= left && length_of(u) <= left && u->acked && u->produced >= u->acked &&
           u->produced - u->acked <= CHANNEL_FRAMES && u->expected && !wire_no_id(&u->self) && !wire_no_id(&u->peer) &&
           frames_fit(u);
}

static bool consists(const struct unsent_head *head, size_t bytes)
{
    const unsigned char *at = (const unsigned char *)(head + 1);
    size_t left = bytes - sizeof *head;
    for (uint32_t i = 0; i < head->channels; i++) {
        const struct unsent_channel *u = (const void *)at;
        if (!channel_fits(u, left))
            return false;
        left -= length_of(u);
        at += length_of(u);
    }
    return left == 0;
}

static int judge(const struct unsent_head *head, size_t bytes)
{
    if (bytes < sizeof *head || head->magic != UNSENT_MAGIC)
        return -EBADMSG;
    if (head->version != UNSENT_VERSION || head->wire_version != WIRE_VERSION)
        return -EPROTO;
    return head->bytes == bytes && head->checksum == checksum_of(head, bytes) && consists(head, bytes) ? 1 : -EBADMSG;
}

int unsent_map(int directory, const void **at, size_t *bytes)
{
    struct stat s;
    long fd = sys_fd(SYS_openat, directory, UNSENT_FILE, O_RDONLY | O_CLOEXEC | O_NOFOLLOW, 0);
    if (fd < 0)
        return fd == -ENOENT ? 0 : (int)fd;
    long r = sys(SYS_fstat, fd, &s);
    if (r == 0 && s.st_size < (long)sizeof(struct unsent_head))
        r = -EBADMSG;
    if (r == 0)
        r = sys(SYS_mmap, 0, s.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    sys(SYS_close, fd);
    if (sys_failed(r))
        return (int)r;
    *at = (const void *)r;
    *bytes = (size_t)s.st_size;
    int verdict = judge(*at, *bytes);
    if (verdict < 0)
        sys(SYS_munmap, *at, *bytes);
    return verdict;
}

const struct unsent_channel *unsent_next(const void *at, const void **cursor)
{
    const struct unsent_head *head = at;
    const unsigned char *here = *cursor ? *cursor : (const unsigned char *)(head + 1);
    if (here >= (const unsigned char *)at + head->bytes)
        return NULL;
    const struct unsent_channel *u = (const void *)here;
    *cursor = here + length_of(u);
    return u;
}
