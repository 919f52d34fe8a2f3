/* What takes names from files: those that the program has open are to be found again (net/nameless.h). */
#define _GNU_SOURCE
#include "net/nameless.h"
#include "heap/moved.h"
#include "heap/room.h"
#include "heap/say.h"
#include "heap/sys.h"
#include "net/host.h"
#include "net/trouble.h"
#include "shim/call_names.h"
#include "shim/call_net.h"
#include "shim/turn.h"

#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

static long unlink_at(struct call *c, int directory, const char *path)
{
    struct loss loss = nameless_before(directory, path);
    long r = call_raw(c);
    nameless_after(&loss, r);
    return r;
}

long call_unlink(struct call *c)
{
    return unlink_at(c, AT_FDCWD, (const char *)c->arg[0]);
}

long call_unlinkat(struct call *c)
{
    return c->arg[2] & AT_REMOVEDIR ? call_raw(c) : unlink_at(c, (int)c->arg[0], (const char *)c->arg[1]);
}

/* Where a new name is to be, and what it is then. */
static long open_parent(int to, const char *new, const char **name, char path[PATH_MAX])
{
    size_t length = say_format(path, PATH_MAX, "%s", new);
    while (length > 1 && path[length - 1] == '/')
        path[--length] = '\0';
    char *slash = strrchr(path, '/');
    *name = slash ? slash + 1 : path;
    if (!slash)
        return sys_fd(SYS_openat, to, ".", O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
    *slash = '\0';
    return sys_fd(SYS_openat, to, slash == path ? "/" : path, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
}

/* What the open directory is to be called; with -1 the name of a new file, or of the file `is`. */
static long note(int directory, const struct stat *is, int to, const char *new, uint32_t flags)
{
    char path[PATH_MAX];
    const char *name, *root = session_root();
    uint64_t turn = turn_number() + 1;
    int kept = session_kept_dirfd();
    long parent = open_parent(to, new, &name, path);
    if (parent < 0)
        return sys_in_trouble(parent) ? parent : 0; /* else the call cannot be made, either */
    long r = directory < 0 ? moved_note_made(kept, is, (int)parent, name, root, flags, turn)
                           : moved_note(kept, directory, (int)parent, name, root, flags, turn);
    sys(SYS_close, parent);
    return r;
}

static void note_name(int directory, const char *path, const struct stat *is, uint32_t flags)
{
    long r = note(-1, is, directory, path, flags);
    if (r != -ENOSPC && r != -EDQUOT) /* then it stays if this turn is lost; the turn itself waits for room */
        trouble_none(r, "note a new name in the store");
}

static bool making(int directory, const char *path, const struct stat *is, uint32_t flags)
{
    struct stat s;
    if (session_kept_dirfd() < 0)
        return false;
    long r = trouble_none(sys(SYS_newfstatat, directory, path, &s, AT_SYMLINK_NOFOLLOW), "look whether a name is new");
    if (r == -ENOENT)
        note_name(directory, path, is, flags);
    return r == -ENOENT;
}

bool names_making(int directory, const char *path, bool lasting)
{
    return making(directory, path, NULL, lasting ? MOVED_LASTING : 0);
}

void names_not_made(int directory, const char *path)
{
    note_name(directory, path, NULL, MOVED_FAILED);
}

static long make_at(struct call *c, int directory, long path, const struct stat *is)
{
    bool new = making(directory, (const char *)path, is, 0);
    long r = call_raw(c);
    if (new && sys_failed(r))
        names_not_made(directory, (const char *)path);
    return r;
}

/* mkdir, mknod: the path comes first. */
long call_make(struct call *c)
{
    return make_at(c, AT_FDCWD, c->arg[0], NULL);
}

long call_makeat(struct call *c)
{
    return make_at(c, (int)c->arg[0], c->arg[1], NULL);
}

long call_symlink(struct call *c)
{
    return make_at(c, AT_FDCWD, c->arg[1], NULL);
}

long call_symlinkat(struct call *c)
{
    return make_at(c, (int)c->arg[1], c->arg[2], NULL);
}

static long link_at(struct call *c, int from, long old, int to, long new, long flags)
{
    struct stat is;
    int how = (flags & AT_SYMLINK_FOLLOW ? 0 : AT_SYMLINK_NOFOLLOW) | (int)(flags & AT_EMPTY_PATH);
    if (trouble_none(sys(SYS_newfstatat, from, old, &is, how), "look at a file") < 0)
        return call_raw(c);
    return make_at(c, to, new, &is);
}

long call_link(struct call *c)
{
    return link_at(c, AT_FDCWD, c->arg[0], AT_FDCWD, c->arg[1], 0);
}

long call_linkat(struct call *c)
{
    return link_at(c, (int)c->arg[0], c->arg[1], (int)c->arg[2], c->arg[3], c->arg[4]);
}

static long rename_directory(struct call *c, int directory, int to, const char *new)
{
    struct stat s;
    uint32_t flags = c->nr == SYS_renameat2 ? (uint32_t)c->arg[4] : 0;
    bool noted = session_kept_dirfd() >= 0 && sys(SYS_newfstatat, to, new, &s, AT_SYMLINK_NOFOLLOW) != -EFAULT;
    long r = noted ? trouble_none(note(directory, NULL, to, new, flags), "note a directory's new name in the store") : 0;
    if (r < 0)
        say("a directory's new name cannot be noted in the store (%s): if this turn is lost, it stays", say_error(r));
    r = call_raw(c);
    if (!sys_failed(r))
        nameless_moved();
    return r;
}

/* A turn that is lost made it, and the old name was given back: both lead to the file, which the program has open by the old one. To
 * rename it to itself would change nothing; and were the old one removed, that open file would have no name to the kernel. */
static long rename_again(struct call *c, int from, const char *old, int to, const char *new)
{
    return sys_failed(sys(SYS_unlinkat, to, new, 0)) ? sys(SYS_unlinkat, from, old, 0) : call_raw(c);
}

/* Both the file that gets another name and the one whose name that was. */
static long rename_at(struct call *c, int from, const char *old, int to, const char *new)
{
    long directory = sys_fd(SYS_openat, from, old, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);
    if (directory >= 0) {
        long r = rename_directory(c, (int)directory, to, new);
        sys(SYS_close, directory);
        return r;
    }
    struct loss moved = nameless_before(from, old), replaced = nameless_before(to, new);
    long r = nameless_again(&moved, &replaced) ? rename_again(c, from, old, to, new) : call_raw(c);
    nameless_after(&moved, r);
    nameless_after(&replaced, r);
    return r;
}

long call_rename(struct call *c)
{
    return rename_at(c, AT_FDCWD, (const char *)c->arg[0], AT_FDCWD, (const char *)c->arg[1]);
}

long call_renameat(struct call *c)
{
    return rename_at(c, (int)c->arg[0], (const char *)c->arg[1], (int)c->arg[2], (const char *)c->arg[3]);
}
