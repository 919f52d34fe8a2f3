#define _GNU_SOURCE
#define XXH_INLINE_ALL
#include "heap/store.h"
#include "heap/disk.h"
#include "heap/fault.h"
#include "heap/say.h"
#include "heap/sys.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#define LOCK_RETRY_MS 10

static uint64_t checksum(const struct super *super)
{
    return XXH3_64bits((const char *)super + 16, sizeof *super - 16);
}

static int fault(struct store *s, const char *file, int code)
{
    say_format(s->fault_path, sizeof s->fault_path, "%s", file);
    return code;
}

static int absolute_path(struct store *s, const char *directory)
{
    size_t used = 0;
    if (!directory[0])
        return -ENOENT;
    if (directory[0] != '/') {
        long n = sys(SYS_getcwd, s->path, sizeof s->path - 1);
        if (n < 0)
            return (int)n;
        used = (size_t)n - 1;
        s->path[used++] = '/';
    }
    size_t length = strlen(directory);
    if (used + length >= sizeof s->path - 32)
        return fault(s, "", STORE_TOO_LONG);
    memcpy(s->path + used, directory, length + 1);
    for (used += length; used > 1 && s->path[used - 1] == '/';)
        s->path[--used] = '\0';
    return 0;
}

static void sync_parent(int directory)
{
    long fd = disk_open(directory, "..", O_RDONLY | O_DIRECTORY, 0);
    int parent = (int)fd;
    if (fd < 0)
        return;
    disk_sync(parent);
    disk_close(&parent);
}

/* Each directory on the way that is missing is made, and made durable in its parent. */
static int make_directories(struct store *s)
{
    for (char *p = s->path + 1;; p++) {
        if (*p && *p != '/')
            continue;
        char end = *p;
        *p = '\0';
        int r = disk_mkdir(AT_FDCWD, s->path, 0700);
        if (!r) {
            int made = (int)disk_open(AT_FDCWD, s->path, O_RDONLY | O_DIRECTORY, 0);
            if (made >= 0)
                sync_parent(made);
            disk_close(&made);
        }
        *p = end;
        /* On the way anything goes (EACCES, EROFS of a parent that exists); the open tells at the end. */
        if (r && r != -EEXIST && !end)
            return r;
        if (!end)
            return 0;
    }
}

static int open_directory(struct store *s)
{
    struct stat status;
    long fd = disk_open(AT_FDCWD, s->path, O_RDONLY | O_DIRECTORY, 0);
    if (fd == -ENOENT && !s->read_only) {
        int r = make_directories(s);
        if (r)
            return r;
        fd = disk_open(AT_FDCWD, s->path, O_RDONLY | O_DIRECTORY, 0);
    }
    if (fd < 0)
        return (int)fd;
    s->directory_fd = (int)fd;
    long r = sys(SYS_fstat, fd, &status);
    if (r)
        return (int)r;
    if (s->read_only)
        return 0;
    /* A store says what code to run: nobody else may have a hand in it. */
    if (status.st_uid != (uid_t)sys(SYS_geteuid) || (status.st_mode & 022))
        return fault(s, "", STORE_UNSAFE);
    return 0;
}

/* Whoever the program becomes may make links here and remove them, through the descriptor: nobody else gets as far. */
static int open_kept(struct store *s)
{
    int r = disk_mkdir(s->directory_fd, STORE_KEPT, 0700);
    if (r && r != -EEXIST)
        return r;
    long fd = disk_open(s->directory_fd, STORE_KEPT, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    if (fd < 0)
        return (int)fd;
    s->kept_fd = (int)fd;
    return (int)sys(SYS_fchmod, fd, 0733);
}

/* The first byte of the file is the holder's, the second one that of who is next, the third is shared by those that may become
 * the program. Who starts wants all of them, for a moment. */
static long lock_bytes(const struct store *s, short kind, long start, long count)
{
    struct flock lock = {.l_type = kind, .l_whence = SEEK_SET, .l_start = start, .l_len = count};
    long r = sys(SYS_fcntl, s->lock_fd, F_SETLK, &lock);
    return r == -EACCES || r == -EAGAIN ? -EBUSY : r;
}

static long holder_of_bytes(int fd, long count)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = count};
    long r = sys(SYS_fcntl, fd, F_GETLK, &lock);
    return sys_failed(r) ? r : lock.l_type != F_UNLCK && lock.l_pid > 0 ? lock.l_pid : 0;
}

long store_holder(int lock_fd)
{
    long holder = holder_of_bytes(lock_fd, 1);
    return holder ? holder : holder_of_bytes(lock_fd, 2);
}

static int busy(struct store *s)
{
    long holder = store_holder(s->lock_fd);
    if (holder > 0)
        s->holder_pid = (int32_t)holder;
    return -EBUSY;
}

static int lock(struct store *s, unsigned wait_ms)
{
    for (;;) {
        /* Children of a dead process end when they hear of it. They do not keep the store from anybody for longer. */
        long r = MUTANT("store.no_lock", 0, lock_bytes(s, F_WRLCK, 0, wait_ms ? 0 : 2));
        if (!r)
            lock_bytes(s, F_UNLCK, 1, 0);
        if (r != -EBUSY)
            return (int)r;
        if (!wait_ms)
            return busy(s);
        unsigned step = wait_ms < LOCK_RETRY_MS ? wait_ms : LOCK_RETRY_MS;
        disk_pause(step);
        wait_ms -= step;
    }
}

int store_lock_next(struct store *s)
{
    return (int)lock_bytes(s, F_WRLCK, 1, 1);
}

void store_follow(struct store *s, bool on)
{
    lock_bytes(s, on ? F_RDLCK : F_UNLCK, 2, 1);
}

int store_lock_pass(struct store *s)
{
    long r = lock_bytes(s, F_WRLCK, 0, 1);
    lock_bytes(s, F_UNLCK, 1, 0);
    return r == -EBUSY ? busy(s) : (int)r;
}

void store_lock_decline(struct store *s)
{
    lock_bytes(s, F_UNLCK, 1, 1);
}

static int take_lock(struct store *s, unsigned wait_ms)
{
    long fd = disk_open(s->directory_fd, "lock", O_RDWR | O_CREAT | O_NOFOLLOW, 0600);
    if (fd < 0)
        return (int)fd;
    s->lock_fd = (int)fd;
    return lock(s, wait_ms);
}

/* The first 8 bytes of a file, 0 when it is absent, short or zero. */
static long magic_of(struct store *s, const char *name, uint64_t *magic, int64_t *size)
{
    *magic = 0;
    *size = 0;
    long fd = disk_open(s->directory_fd, name, O_RDONLY, 0);
    if (fd < 0)
        return fd == -ENOENT ? 0 : fd;
    int file = (int)fd;
    *size = disk_size(file);
    long n = disk_read(file, magic, sizeof *magic, 0);
    if (n >= 0 && n < (long)sizeof *magic)
        *magic = 0;
    disk_close(&file);
    return n < 0 ? n : *size < 0 ? *size : 0;
}

/* No superblock: either a store in the making, which has nothing to lose, or something that is not ours
 * to write over. */
static int judge_without_super(struct store *s)
{
    static const char names[3][8] = {"log.0", "log.1", "image"};
    uint64_t magic[3];
    int64_t size[3];
    for (int i = 0; i < 3; i++) {
        long r = magic_of(s, names[i], &magic[i], &size[i]);
        if (r)
            return fault(s, names[i], (int)r);
    }
    struct stat status;
    long old = sys(SYS_newfstatat, s->directory_fd, "super.old", &status, 0);
    if (old != -ENOENT)
        return old ? fault(s, "super.old", (int)old) : STORE_FRESH;
    bool ours = magic[0] == SEGMENT_MAGIC || magic[1] == SEGMENT_MAGIC;
    for (int i = 0; i < 2; i++)
        if (magic[i] && magic[i] != SEGMENT_MAGIC)
            return fault(s, names[i], STORE_FOREIGN);
    if (size[2] > 0)
        return ours ? fault(s, "super", STORE_INCOMPLETE) : fault(s, "image", STORE_FOREIGN);
    return STORE_FRESH;
}

static int judge_super(struct store *s, long bytes, int64_t size)
{
    const struct super *super = &s->super;
    if (bytes < 24)
        return fault(s, "super", STORE_DAMAGED);
    if (super->magic != SUPER_MAGIC)
        return fault(s, "super", STORE_FOREIGN);
    if (super->version > STORE_VERSION) {
        s->found_version = super->version;
        return fault(s, "super", STORE_NEWER);
    }
    if (size != (int64_t)sizeof *super || bytes != (long)sizeof *super ||
        super->checksum != checksum(super) ||
        super->segment_bytes % BLOCK_BYTES || super->segment_bytes < 16 * BLOCK_BYTES)
        return fault(s, "super", STORE_DAMAGED);
    if (super->version != STORE_VERSION) {
        s->found_version = super->version;
        return fault(s, "super", STORE_OLDER);
    }
    return STORE_EXISTS;
}

static int read_super(struct store *s)
{
    long fd = disk_open(s->directory_fd, "super", O_RDONLY, 0);
    if (fd == -ENOENT)
        return judge_without_super(s);
    if (fd < 0)
        return fault(s, "super", (int)fd);
    int file = (int)fd;
    long n = disk_read(file, &s->super, sizeof s->super, 0);
    int64_t size = disk_size(file);
    disk_close(&file);
    if (n < 0 || size < 0)
        return fault(s, "super", (int)(n < 0 ? n : size));
    int r = judge_super(s, n, size);
    if (r != STORE_EXISTS)
        return r;
    fd = disk_open(s->directory_fd, "image", s->read_only ? O_RDONLY : O_RDWR, 0);
    if (fd < 0)
        return fault(s, "image", fd == -ENOENT ? STORE_INCOMPLETE : (int)fd);
    s->image_fd = (int)fd;
    return STORE_EXISTS;
}

static int open_any(struct store *s, const char *directory, bool read_only, unsigned wait_ms)
{
    memset(s, 0, sizeof *s);
    s->directory_fd = s->lock_fd = s->image_fd = s->kept_fd = -1;
    s->read_only = read_only;
    int r = absolute_path(s, directory);
    if (!r)
        r = open_directory(s);
    if (!r && !read_only)
        FAULT("store.directory"),         r = take_lock(s, wait_ms);
    if (!r && !read_only)
        r = open_kept(s);
    if (!r)
        FAULT("store.locked"),         r = read_super(s);
    if (r < 0)
        store_close(s);
    return r;
}

int store_open(struct store *s, const char *directory, unsigned wait_ms)
{
    return open_any(s, directory, false, wait_ms);
}

int store_open_read_only(struct store *s, const char *directory)
{
    int r = open_any(s, directory, true, 0);
    return r == -ENOENT ? STORE_FRESH : r;
}

void store_close(struct store *s)
{
    disk_close(&s->image_fd);
    disk_close(&s->kept_fd);
    disk_close(&s->lock_fd); /* which gives the lock back */
    disk_close(&s->directory_fd);
}

static const char *fault_text(int error)
{
    switch (error) {
    case STORE_FOREIGN:
        return "is not libken's; nothing was touched, choose another directory by KEN_STORE or --store";
    case STORE_DAMAGED:
        return "is damaged; it was left as it is, --fresh starts over and keeps it aside";
    case STORE_INCOMPLETE:
        return "is missing; the rest was left as it is, --fresh starts over and keeps it aside";
    case STORE_UNSAFE:
        return "belongs to another user or can be written by others; chown and chmod go-w it, or choose "
               "another by KEN_STORE or --store";
    case STORE_REBOOTED:
        return "was kept with KEN_SYNC=process and the machine went down since: it cannot be trusted; "
               "--fresh starts over and keeps it aside";
    case STORE_TOO_LONG:
        return "has too long a path; choose another by KEN_STORE or --store";
    case -ENOSPC:
    case -EDQUOT:
        return "is on a full disk; make room and start again";
    case -EACCES:
    case -EPERM:
    case -EROFS:
        return "cannot be written; choose another directory by KEN_STORE or --store";
    case -ENOTDIR:
        return "is not a directory; choose another by KEN_STORE or --store";
    default:
        return NULL;
    }
}

void store_explain(const struct store *s, int error, char *line, size_t bytes)
{
    const char *slash = s->fault_path[0] ? "/" : "", *text = fault_text(error);
    if (error == -EBUSY && !s->path[0])
        say_format(line, bytes, "the store is in use by another process");
    else if (error == -EBUSY && s->holder_pid)
        say_format(line, bytes, "the store %s is in use by process %d", s->path, (int)s->holder_pid);
    else if (error == -EBUSY)
        say_format(line, bytes, "the store %s is in use by another process", s->path);
    else if (error == STORE_NEWER)
        say_format(line, bytes,
                   "the store %s has format %u, this libken knows up to %u; use the newer libken, or --fresh",
                   s->path, s->found_version, STORE_VERSION);
    else if (error == STORE_OLDER)
        say_format(line, bytes,
                   "the store %s has format %u, this libken needs %u; finish the run with the older libken, or use --fresh",
                   s->path, s->found_version, STORE_VERSION);
    else if (text)
        say_format(line, bytes, "the store %s%s%s %s", s->path, slash, s->fault_path, text);
    else
        say_format(line, bytes, "the store %s%s%s cannot be used: %s", s->path, slash, s->fault_path,
                   say_error(error));
}

void store_distrust_cache(const struct store *s)
{
    long fd = disk_open(s->directory_fd, STORE_DISTRUST, O_WRONLY | O_CREAT, 0600);
    if (!sys_failed(fd))
        sys(SYS_close, fd);
}

bool store_distrusts_cache(const struct store *s)
{
    return !sys_failed(sys(SYS_faccessat, s->directory_fd, STORE_DISTRUST, F_OK));
}
