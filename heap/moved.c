#define _GNU_SOURCE
#include "heap/moved.h"
#include "heap/disk.h"
#include "heap/fault.h"
#include "heap/proc.h"
#include "heap/room.h"
#include "heap/say.h"
#include "heap/sys.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>

#define TICK_NS 10000000L /* the clock of file systems goes in steps */
#define SOON_NS 1000000000L
#define MOST_BYTES (64L << 20) /* of the journal that a restart reads */

static bool any; /* image: the journal has something */

static long write_down(int kept, struct moving *m, const char *from, int parent, const char *name, const char *root)
{
    char to[PATH_MAX], below[PATH_MAX];
    long r = proc_fd_path(parent, below, sizeof below);
    if (r < 0)
        return r;
    m->from_bytes = (uint16_t)(strlen(from) + 1);
    m->to_bytes = (uint16_t)(say_format(to, sizeof to, "%s%s/%s", root, below[1] ? below : "", name) + 1);
    long journal = sys_fd(SYS_openat, kept, MOVED_FILE, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (journal < 0)
        return journal;
    any = true;
    uint32_t whole = (uint32_t)(sizeof *m + m->from_bytes + m->to_bytes + sizeof whole);
    const struct iovec record[] = {{m, sizeof *m}, {(void *)from, m->from_bytes}, {to, m->to_bytes}, {&whole, sizeof whole}};
    r = sys(SYS_writev, journal, record, 4);
    /* A name that is made hardly reaches the disk in the time that a turn takes. */
    if (r >= 0 && (!(m->flags & MOVED_MADE) || m->flags & MOVED_LASTING))
        r = sys(SYS_fdatasync, journal);
    sys(SYS_close, journal);
    FAULT("moved.noted");
    return r < 0 ? r : 0;
}

long moved_note(int kept, int fd, int parent, const char *name, const char *root, uint32_t flags, uint64_t turn)
{
    struct stat s;
    char from[PATH_MAX], below[PATH_MAX];
    long r = proc_fd_path(fd, below, sizeof below);
    if (r < 0 || (r = sys(SYS_fstat, fd, &s)) < 0)
        return r;
    struct moving m = {.turn = turn, .flags = flags, .inode = s.st_ino, .device = s.st_dev};
    say_format(from, sizeof from, "%s%s", root, below);
    return write_down(kept, &m, from, parent, name, root);
}

long moved_note_made(int kept, const struct stat *is, int parent, const char *name, const char *root, uint32_t flags, uint64_t turn)
{
    struct moving m = {.turn = turn, .flags = flags | MOVED_MADE, .made_ns = sys_clock_ns(CLOCK_REALTIME)};
    if (is) {
        m.inode = is->st_ino;
        m.device = is->st_dev;
    }
    return write_down(kept, &m, "", parent, name, root);
}

void moved_forget(int kept)
{
    if (!any || kept < 0)
        return;
    any = false;
    FAULT("moved.forgotten");
    sys(SYS_unlinkat, kept, MOVED_FILE, 0);
}

/* What could not be seen for a moment would stay renamed for ever. */
static long sure(long r)
{
    if (sys_in_trouble(r) || r == -EAGAIN)
        say_die_of(r, "cannot undo the renames of a turn that is lost: %s; start the same command again", say_error(r));
    return r;
}

/* It was made just behind the note: nothing else tells it from what somebody else has made there since. */
static bool is_young(const struct moving *m, const char *path)
{
    struct statx s;
    if (sure(sys(SYS_statx, AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, STATX_BTIME, &s)) || !(s.stx_mask & STATX_BTIME))
        return false;
    int64_t born = s.stx_btime.tv_sec * 1000000000L + s.stx_btime.tv_nsec;
    return born >= m->made_ns - TICK_NS && born <= m->made_ns + SOON_NS;
}

static void undo(const struct moving *m, const char *from, const char *to)
{
    struct stat there, back;
    bool exchange = m->flags & RENAME_EXCHANGE;
    if (sure(sys(SYS_lstat, to, &there)))
        return; /* it was not made */
    bool same = m->inode ? there.st_ino == m->inode && there.st_dev == m->device : is_young(m, to);
    if (!same)
        return; /* or somebody else went on with it */
    if (m->flags & MOVED_MADE) {
        sure(sys(SYS_unlinkat, AT_FDCWD, to, S_ISDIR(there.st_mode) ? AT_REMOVEDIR : 0));
        return;
    }
    if (!exchange && !sure(sys(SYS_lstat, from, &back)))
        return;
    long r = sure(sys(SYS_renameat2, AT_FDCWD, to, AT_FDCWD, from, exchange ? RENAME_EXCHANGE : RENAME_NOREPLACE));
    if (r == -EINVAL && !exchange) /* a file system that has no flags */
        r = sure(sys(SYS_renameat2, AT_FDCWD, to, AT_FDCWD, from, 0));
    if (sys_failed(r))
        say("%s cannot be called %s again (%s), as it was before a turn that is lost", to, from, say_error(r));
}

/* The length of the record at `at`, of `bytes` that are left; 0: there is no whole one. */
static size_t measure(const char *at, size_t bytes)
{
    struct moving m;
    if (bytes < sizeof m)
        return 0;
    memcpy(&m, at, sizeof m);
    size_t whole = sizeof m + m.from_bytes + m.to_bytes + sizeof(uint32_t);
    if (whole > bytes || !m.from_bytes || !m.to_bytes || at[sizeof m + m.from_bytes - 1] || at[whole - sizeof(uint32_t) - 1])
        return 0;
    uint32_t told;
    memcpy(&told, at + whole - sizeof told, sizeof told);
    return told == whole ? whole : 0;
}

/* The last one first: it was made on top of those before it. */
static void undo_all(const char *text, size_t bytes, uint64_t turn)
{
    size_t end = 0;
    for (size_t length; (length = measure(text + end, bytes - end)) > 0;)
        end += length;
    const char *failed = "";
    while (end > 0) {
        uint32_t whole;
        struct moving m;
        memcpy(&whole, text + end - sizeof whole, sizeof whole);
        end -= whole;
        memcpy(&m, text + end, sizeof m);
        const char *from = text + end + sizeof m, *to = from + m.from_bytes;
        bool void_one = m.flags & MOVED_FAILED || !strcmp(failed, to);
        failed = m.flags & MOVED_FAILED ? to : "";
        if (m.turn > turn && !void_one && MUTANT("moved.not_undone", false, true))
            undo(&m, from, to);
    }
}

void moved_undo(int kept, uint64_t turn)
{
    long journal = sure(sys_fd(SYS_openat, kept, MOVED_FILE, O_RDONLY | O_CLOEXEC, 0));
    if (journal < 0)
        return;
    long bytes = sys(SYS_lseek, journal, 0, SEEK_END);
    long text = bytes > 0 && bytes <= MOST_BYTES ? sure(sys(SYS_mmap, 0, bytes, PROT_READ, MAP_PRIVATE, journal, 0)) : 0;
    if (text && !sys_failed(text)) {
        undo_all((const char *)text, (size_t)bytes, turn);
        sys(SYS_munmap, text, bytes);
    }
    sys(SYS_close, journal);
    FAULT("moved.undone");
    sys(SYS_unlinkat, kept, MOVED_FILE, 0);
}
