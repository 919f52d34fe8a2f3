/* The seam through which the store and the log reach the disk.
 *
 * All calls return a result or -errno, are restarted after EINTR, and go on after short reads and
 * writes. Tests set a hook that sees every operation before it happens and may fail it; in production
 * there is none. Thread-safe as far as the kernel's calls are.
 */
#ifndef KEN_HEAP_DISK_H
#define KEN_HEAP_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

enum disk_op {
    DISK_OPEN,
    DISK_READ,
    DISK_WRITE,
    DISK_WRITE_DURABLE,
    DISK_SYNC,
    DISK_TRUNCATE,
    DISK_ALLOCATE,
    DISK_PUNCH,
    DISK_RENAME,
    DISK_UNLINK,
    DISK_LINK,
    DISK_MKDIR,
    DISK_PAUSE, /* waiting for room; `bytes` is milliseconds */
};

struct disk_event {
    enum disk_op op;
    int fd;           /* of the file, or of the directory that `path` starts from */
    const char *path; /* or NULL */
    const void *data; /* of writes */
    size_t bytes;
    uint64_t offset;
};

/* Called before an operation. Returns 0: go on; -errno: fail so, nothing is done; n > 0: a write does
 * only its first n bytes and then fails with -ENOSPC. */
typedef long disk_hook(void *context, const struct disk_event *);
void disk_set_hook(disk_hook *, void *context); /* NULL: none */

/* Called instead of ending the process; must not return. */
typedef void disk_death(const char *line);
void disk_set_death(disk_death *);

/* Asks the hook about one operation; 0 without one. For I/O that is not made here (io_uring). */
long disk_ask(enum disk_op, int fd, const char *path, const void *data, size_t bytes, uint64_t offset);

/* The program that is to be resumed has descriptors up to `fd`: libken's own go well above from now on. `strictly`: or they are
 * not opened at all. */
void disk_stay_above(long fd, bool strictly);

/* Moves a descriptor to 900 or above, or as high as RLIMIT_NOFILE permits, with close-on-exec, and closes
 * the old number. Returns the new one, or the old when there is no room (strictly: the error); passes errors on. */
long disk_high_fd(long fd);

/* Opens with O_CLOEXEC; the descriptor is moved high. */
long disk_open(int directory, const char *path, int flags, unsigned mode);
void disk_close(int *fd); /* and sets it to -1; -1 is ignored */

/* Reads up to `bytes`; fewer only at the end of the file. */
long disk_read(int fd, void *data, size_t bytes, uint64_t offset);

/* Writes all of it: 0 or -errno, after which any part may have been written. */
int disk_write(int fd, const void *data, size_t bytes, uint64_t offset);
int disk_write_durable(int fd, const void *data, size_t bytes, uint64_t offset); /* RWF_DSYNC */
int disk_write_durable_vector(int fd, const struct iovec *, int count, uint64_t offset);
int disk_write_vector(int fd, struct iovec *, int count, uint64_t offset); /* uses up the vector */
int disk_write_zeros(int fd, uint64_t offset, uint64_t bytes);

int disk_sync(int fd);
int disk_truncate(int fd, uint64_t bytes);
int disk_allocate(int fd, uint64_t offset, uint64_t bytes); /* 0 where the file system cannot */

/* Makes a range zero and gives its blocks back; writes zeros where the file system cannot. */
int disk_punch(int fd, uint64_t offset, uint64_t bytes);
int64_t disk_size(int fd);

int disk_rename(int directory, const char *from, const char *to);
int disk_unlink(int directory, const char *path);
int disk_link(int fd, int directory, const char *path); /* another name for an open file */
int disk_mkdir(int directory, const char *path, unsigned mode);

void disk_pause(unsigned milliseconds);

/* The disk failed in a way that leaves nothing to do in this process: says so and ends it with status 70.
 * The store is as the last durable commit left it; a restart recovers. */
_Noreturn void disk_die(const char *action, const char *store, long error);

/* The unique id of the mount that the file is on (statx(2), STATX_MNT_ID_UNIQUE); 0 when the kernel does not tell. */
uint64_t disk_mount(int fd);

#endif
