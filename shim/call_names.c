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

/* What the directory is to be called, and where. */
static long open_parent(int to, const char *new, const char **name, char path[PATH_MAX])
{
    struct stat s;
    if (sys(SYS_newfstatat, to, new, &s, AT_SYMLINK_NOFOLLOW) == -EFAULT)
        return -EFAULT;
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

static long note_move(int directory, int to, const char *new, uint32_t flags)
{
    char path[PATH_MAX];
    const char *name;
    long parent = open_parent(to, new, &name, path);
    if (parent < 0)
        return sys_in_trouble(parent) ? parent : 0; /* else the rename cannot be made, either */
    long r = moved_note(session_kept_dirfd(), directory, (int)parent, name, session_root(), flags, turn_number() + 1);
    sys(SYS_close, parent);
    return r;
}

#define NOTE_NAME "note a new name in the store"

void names_made(const char *path)
{
    if (session_kept_dirfd() < 0)
        return;
    long fd = trouble_none(sys_fd(SYS_open, path, O_PATH | O_NOFOLLOW | O_CLOEXEC, 0), NOTE_NAME);
    if (fd < 0)
        return;
    trouble_none(note_move((int)fd, AT_FDCWD, path, MOVED_MADE), NOTE_NAME);
    sys(SYS_close, fd);
}

static long rename_directory(struct call *c, int directory, int to, const char *new)
{
    uint32_t flags = c->nr == SYS_renameat2 ? (uint32_t)c->arg[4] : 0;
    long r = session_kept_dirfd() < 0 ? 0 : trouble_none(note_move(directory, to, new, flags), "note a directory's new name in the store");
    if (r < 0)
        say("a directory's new name cannot be noted in the store (%s): if this turn is lost, it stays", say_error(r));
    r = call_raw(c);
    if (!sys_failed(r))
        nameless_moved();
    return r;
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
    long r = nameless_again(&moved, &replaced) ? sys(SYS_unlinkat, from, old, 0) : call_raw(c);
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
