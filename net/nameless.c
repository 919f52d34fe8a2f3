#define _GNU_SOURCE
#include "net/nameless.h"
#include "net/host.h"
#include "net/pool.h"
#include "net/trouble.h"
#include "heap/digits.h"
#include "heap/entries.h"
#include "heap/fault.h"
#include "heap/layout.h"
#include "heap/moved.h"
#include "heap/proc.h"
#include "heap/room.h"
#include "heap/sys.h"

#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

#define NAME_BYTES 32

/* Links that may go when the turn is durable. */
static struct doomed {
    struct doomed *next;
    uint64_t inode;
} *doomed;

/* Files that were open at the last commit, and were closed since. */
static struct closed {
    struct closed *next;
    uint64_t device, inode;
} *closed;

static void make_name(char name[NAME_BYTES], uint64_t inode)
{
    say_format(name, NAME_BYTES, "%lx", inode);
}

/* A new root directory hides where it is. What was opened before it was changed is called as it always was. */
static long from_first_root(int fd, char *path, long length, size_t size)
{
    const char *root = session_root();
    size_t more = strlen(root);
    if (!more || more + (size_t)length >= size || trouble_none(proc_fd_is_at(fd, path), "learn an open file's path") <= 0)
        return length;
    memmove(path + more, path, (size_t)length + 1);
    memcpy(path, root, more);
    return length + (long)more;
}

/* Where the descriptor's file is now; a lost name counts as one, and is told apart. */
static long look_up(int fd, char *path, size_t size, bool *lost)
{
    static const char mark[] = " (deleted)";
    long n = trouble_none(proc_fd_path(fd, path, size), "learn an open file's path"), length = sizeof mark - 1;
    *lost = n > length && !memcmp(path + n - length, mark, (size_t)length);
    if (*lost)
        path[n -= length] = '\0';
    return n > 0 && !*lost ? from_first_root(fd, path, n, size) : n;
}

void file_learn(int fd, struct description *d)
{
    struct stat s;
    char path[4200];
    bool lost;
    if (d->file)
        return;
    long n = look_up(fd, path, sizeof path, &lost);
    if (n < 0 || trouble_none(sys(SYS_fstat, fd, &s), "look at an open file") < 0)
        return;
    struct fd_file *f = pool_take(sizeof *f);
    if (!f)
        return;
    *f = (struct fd_file){.device = s.st_dev, .inode = s.st_ino, .deleted = lost && !s.st_nlink};
    f->path = pool_copy(path, (size_t)n + 1);
    d->file = f;
    d->bits |= FD_NAMED;
    d->flags &= ~(uint32_t)(O_CREAT | O_EXCL | O_TRUNC);
}

static bool has(int fd, struct description *d, const struct loss *loss)
{
    if (!d || d->kind != FD_FILE)
        return false;
    file_learn(fd, d);
    return d->file && d->file->inode == loss->inode && d->file->device == loss->device;
}

/* The next descriptor of that file, from `fd` on, or -1. */
static int next_of(int fd, const struct loss *loss)
{
    for (; fd <= fd_highest; fd++)
        if (has(fd, fd_peek(fd), loss))
            return fd;
    return -1;
}

static bool is_open(const struct loss *loss)
{
    if (next_of(0, loss) >= 0)
        return true;
    for (const struct closed *c = closed; c; c = c->next)
        if (c->inode == loss->inode && c->device == loss->device)
            return true;
    return false;
}

struct loss nameless_before(int directory, const char *path)
{
    struct stat s;
    char name[NAME_BYTES];
    struct loss loss = {0};
    int store = session_kept_dirfd();
    if (store < 0 || trouble_none(sys(SYS_newfstatat, directory, path, &s, AT_SYMLINK_NOFOLLOW), "look at a file that goes") < 0 ||
        !S_ISREG(s.st_mode))
        return loss;
    loss.device = s.st_dev;
    loss.inode = s.st_ino;
    loss.used = is_open(&loss) || session_mapped(s.st_ino) || session_layout_changing();
    if (!loss.used)
        return loss;
    make_name(name, s.st_ino);
    long r = MUTANT("nameless.not_kept", -EXDEV, sys(SYS_linkat, directory, path, store, name, 0));
    loss.kept = trouble_none(r, "keep an open file that loses its name") == 0;
    FAULT("nameless.kept");
    return loss;
}

bool nameless_again(const struct loss *from, const struct loss *to)
{
    bool again = false;
    if (!from->used || from->inode != to->inode || from->device != to->device)
        return false;
    for (int fd = 0; (fd = next_of(fd, from)) >= 0; fd++) {
        struct fd_file *f = fd_peek(fd)->file;
        again |= f->given;
        f->given = 0;
    }
    return again;
}

static void doom(uint64_t inode)
{
    struct doomed *one = pool_take(sizeof *one);
    if (one)
        *one = (struct doomed){doomed, inode};
    doomed = one ? one : doomed;
}

/* What was opened by the store's link is known by that. */
static bool is_our_link(const char *path, uint64_t inode)
{
    char name[NAME_BYTES];
    const char *base = strrchr(path, '/');
    make_name(name, inode);
    return base && !strcmp(base + 1, name);
}

/* Its path may have become another one, by rename(). */
static void learn_again(int fd, struct fd_file *f)
{
    char path[4200];
    bool lost;
    long n = look_up(fd, path, sizeof path, &lost);
    if (n >= 0 && is_our_link(path, f->inode))
        return;
    char *copy = n < 0 ? NULL : pool_copy(path, (size_t)n + 1);
    if (copy) {
        pool_give(f->path);
        f->path = copy;
    }
    f->deleted = lost;
}

void nameless_after(const struct loss *loss, long result)
{
    char name[NAME_BYTES];
    if (!loss->used)
        return;
    if (sys_failed(result)) {
        make_name(name, loss->inode);
        if (loss->kept)
            sys(SYS_unlinkat, session_kept_dirfd(), name, 0);
        return;
    }
    for (int fd = 0; (fd = next_of(fd, loss)) >= 0; fd++)
        learn_again(fd, fd_peek(fd)->file);
    doom(loss->inode); /* if nobody needs it when the turn is durable */
}

void nameless_moved(void)
{
    for (int fd = 0; fd <= fd_highest; fd++) {
        struct description *d = fd_peek(fd);
        if (d && d->file && (d->kind == FD_FILE || d->kind == FD_DIR) && !d->file->deleted)
            learn_again(fd, d->file);
    }
    session_layout_changed(); /* mappings are known by paths, too */
}

void nameless_born(int fd, struct description *d)
{
    char name[NAME_BYTES];
    int store = session_kept_dirfd();
    file_learn(fd, d);
    if (store < 0 || !d->file)
        return;
    make_name(name, d->file->inode);
    trouble_none(proc_fd_link(fd, store, name), "keep a file without a name");
    FAULT("nameless.born");
    d->file->deleted = 1;
}

static bool is_kept(uint64_t inode)
{
    struct stat s;
    char name[NAME_BYTES];
    make_name(name, inode);
    return session_kept_dirfd() >= 0 &&
           trouble_none(sys(SYS_newfstatat, session_kept_dirfd(), name, &s, AT_SYMLINK_NOFOLLOW), "look for a kept file") == 0;
}

static bool is_it(long fd, const struct fd_file *f)
{
    struct stat s;
    return trouble_none(sys(SYS_fstat, fd, &s), "look at an open file") == 0 && s.st_ino == f->inode;
}

long nameless_open(const struct fd_file *f, uint32_t flags)
{
    char name[NAME_BYTES];
    make_name(name, f->inode);
    long fd = session_kept_dirfd() < 0 ? -ENOENT : sys(SYS_openat, session_kept_dirfd(), name, flags, 0);
    if (fd < 0 || is_it(fd, f))
        return fd;
    sys(SYS_close, fd);
    return -ENOENT;
}

/* The turn that took the name away is lost, and what it may have put there with it. */
static void give_back_name(struct fd_file *f)
{
    char name[NAME_BYTES], beside[4200];
    int store = session_kept_dirfd();
    make_name(name, f->inode);
    long r = MUTANT("nameless.not_given_back", -ENOENT, sys(SYS_linkat, store, name, AT_FDCWD, f->path, 0));
    if (r == -EEXIST) {
        say_format(beside, sizeof beside, "%s.ken-%lx", f->path, f->inode);
        r = sys(SYS_linkat, store, name, AT_FDCWD, beside, 0);
        if (r == 0 && sys_failed(r = sys(SYS_rename, beside, f->path)))
            sys(SYS_unlink, beside);
    }
    FAULT("nameless.given_back");
    f->given = r == 0;
}

#define LOOK_FOR "look for a file that has another name now"

struct search {
    struct fd_file *file;
    const char *directory;
    int fd;
    uint32_t flags;
    long found;
};

static long is_found(void *context, const char *name)
{
    struct search *s = context;
    struct stat it;
    char path[PATH_MAX];
    if (trouble_none(sys(SYS_newfstatat, s->fd, name, &it, AT_SYMLINK_NOFOLLOW), LOOK_FOR) || it.st_ino != s->file->inode || it.st_dev != s->file->device)
        return 0;
    s->found = trouble_none(sys(SYS_openat, s->fd, name, s->flags, 0), LOOK_FOR);
    if (s->found < 0)
        return 1;
    size_t length = say_format(path, sizeof path, "%s/%s", s->directory, name);
    char *copy = pool_copy(path, length + 1);
    if (copy) {
        pool_give(s->file->path);
        s->file->path = copy;
    }
    return 1;
}

/* By its inode in the directory where it was: descriptor or -ENOENT. */
static long look_beside(struct fd_file *f, uint32_t flags)
{
    char directory[PATH_MAX];
    const char *base = strrchr(f->path, '/');
    size_t length = base ? (size_t)(base - f->path) : 0;
    if (!base || length >= sizeof directory || MUTANT("nameless.not_looked_for", true, false))
        return -ENOENT;
    memcpy(directory, f->path, length);
    directory[length] = '\0';
    struct search s = {.file = f, .directory = directory, .flags = flags, .found = -ENOENT};
    long fd = trouble_none(sys_fd(SYS_open, directory[0] ? directory : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0), LOOK_FOR);
    if (fd < 0)
        return -ENOENT;
    s.fd = (int)fd;
    trouble_none(entries_each(s.fd, is_found, &s), LOOK_FOR);
    sys(SYS_close, fd);
    return s.found < 0 ? -ENOENT : s.found;
}

long nameless_find(struct fd_file *f, uint32_t flags)
{
    long fd = sys(SYS_open, f->path, flags, 0);
    if (fd >= 0 && is_it(fd, f)) {
        f->given = is_kept(f->inode); /* by a process that died before it could say so */
        return fd;
    }
    if (fd < 0 && fd != -ENOENT)
        return fd;
    long kept = MUTANT("nameless.not_found", -ENOENT, nameless_open(f, flags));
    if (kept < 0) {
        trouble_none(kept, "open a file that is kept");
        long beside = look_beside(f, flags);
        if (beside >= 0 && fd >= 0)
            sys(SYS_close, fd);
        return beside >= 0 ? beside : fd;
    }
    if (fd >= 0)
        sys(SYS_close, fd);
    give_back_name(f);
    fd = f->given ? sys(SYS_open, f->path, flags, 0) : -ENOENT;
    f->deleted = fd < 0;
    if (fd < 0)
        return kept;
    sys(SYS_close, kept);
    return fd;
}

void nameless_closed(const struct fd_file *f)
{
    struct closed *one = f->deleted ? NULL : pool_take(sizeof *one);
    if (f->deleted || f->given)
        doom(f->inode);
    if (one) {
        *one = (struct closed){closed, f->device, f->inode};
        closed = one;
    }
}

/* A file whose name was given back is told by its link that it was, until it loses one again: the process may die before it is
 * durable. */
static bool is_needed(uint64_t inode)
{
    for (int fd = 0; fd <= fd_highest; fd++) {
        struct description *d = fd_peek(fd);
        const struct fd_file *f = d && d->kind == FD_FILE ? d->file : NULL;
        if (f && f->inode == inode && (f->deleted || f->given))
            return true;
    }
    return session_mapped(inode);
}

static long remove_unneeded(void *context, const char *name)
{
    const char *inode = name;
    (void)context;
    if (name[0] != '.' && !is_needed(digits_hex(&inode, 16)))
        sys(SYS_unlinkat, session_kept_dirfd(), name, 0);
    return 0;
}

void nameless_reopened(void)
{
    int store = session_kept_dirfd();
    long fd = store < 0 ? store : sys_fd(SYS_openat, store, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (fd < 0)
        return;
    entries_each((int)fd, remove_unneeded, NULL);
    sys(SYS_close, fd);
}

void nameless_committed(void)
{
    char name[NAME_BYTES];
    moved_forget(session_kept_dirfd());
    while (doomed) {
        struct doomed *one = doomed;
        doomed = one->next;
        make_name(name, one->inode);
        if (MUTANT("nameless.dropped", true, !is_needed(one->inode)))
            sys(SYS_unlinkat, session_kept_dirfd(), name, 0);
        FAULT("nameless.removed");
        pool_give(one);
    }
    while (closed) {
        struct closed *one = closed;
        closed = one->next;
        pool_give(one);
    }
}
