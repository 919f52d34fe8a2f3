/* Finding out what a descriptor is that nobody told us about. */
#define _GNU_SOURCE
#include "net/adopt.h"
#include "net/inbox.h"
#include "net/pidfd.h"
#include "net/trouble.h"
#include "heap/entries.h"
#include "heap/proc.h"
#include "heap/say.h"
#include "heap/sys.h"

#include <asm/termbits.h>
#include <asm/ioctls.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

size_t fd_info(int fd, char *text, size_t size)
{
    char name[40];
    say_format(name, sizeof name, "self/fdinfo/%d", fd);
    long n = trouble_none(proc_read(name, text, size), "read /proc/self/fdinfo");
    return n > 0 ? (size_t)n : 0;
}

static enum fd_kind kind_of_nameless(int fd)
{
    static const struct {
        const char *name;
        enum fd_kind kind;
    } names[] = {
        {"anon_inode:[eventpoll]", FD_EPOLL}, {"anon_inode:[eventfd]", FD_EVENT},
        {"anon_inode:[timerfd]", FD_TIMER},   {"anon_inode:[signalfd]", FD_SIGNAL},
        {"anon_inode:inotify", FD_INOTIFY},   {"anon_inode:[pidfd]", FD_PIDFD},
    };
    char text[64];
    proc_fd_path(fd, text, sizeof text);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(text, names[i].name))
            return names[i].kind;
    return FD_OTHER;
}

enum fd_kind fd_kind_of(int fd, const struct stat *s)
{
    struct termios t;
    long r;
    switch (s->st_mode & S_IFMT) {
    case S_IFREG:
        return FD_FILE;
    case S_IFDIR:
        return FD_DIR;
    case S_IFIFO:
        return FD_FIFO;
    case S_IFSOCK:
        return FD_SOCKET;
    case S_IFCHR:
        r = sys(SYS_ioctl, fd, TCGETS, &t);
        return r == 0 || r == -EIO ? FD_TTY : FD_DEVICE; /* a terminal that hung up is one */
    case S_IFBLK:
        return FD_DEVICE;
    default:
        return kind_of_nameless(fd);
    }
}

static int option(int fd, int name)
{
    int value = 0;
    socklen_t length = sizeof value;
    sys(SYS_getsockopt, fd, SOL_SOCKET, name, &value, &length);
    return value;
}

void fd_read_socket(int fd, struct description *d)
{
    struct fd_socket *s = fd_socket(d);
    if (!s)
        return;
    struct sock_address a;
    s->domain = (int16_t)option(fd, SO_DOMAIN);
    s->type = (int16_t)option(fd, SO_TYPE);
    s->protocol = (int16_t)option(fd, SO_PROTOCOL);
    a.length = sizeof a.at;
    if (option(fd, SO_ACCEPTCONN))
        s->state = SOCK_LISTENING;
    else if (sys(SYS_getpeername, fd, &a.at, &a.length) == 0)
        s->state = SOCK_CONNECTED;
}

/* Not one of the kernel's own sources and sinks, /dev/null and the like. */
static bool leads_outside(enum fd_kind kind, const struct stat *s)
{
    enum { MEMORY_DEVICES = 1, KERNEL_LOG = 11 };
    return kind == FD_DEVICE && S_ISCHR(s->st_mode) &&
           (major(s->st_rdev) != MEMORY_DEVICES || minor(s->st_rdev) == KERNEL_LOG);
}

void fd_tell_device(int fd, enum fd_kind kind, const struct stat *s)
{
    char name[128];
    if (!leads_outside(kind, s))
        return;
    proc_fd_path(fd, name, sizeof name);
    say("%s is a device that libken knows nothing of: what is written there leaves at once, and a restart opens it without "
        "what ioctl() set", name);
}

/* A description that another slot shares already: fd 1 and 2 of a terminal, for instance. kcmp(2) tells,
 * but it may be forbidden, and nothing depends on it for inherited ones: they are adopted by number. */
struct description *fd_adopt(int fd, uint16_t bits)
{
    struct stat s;
    if (trouble_none(sys(SYS_fstat, fd, &s), "look at a descriptor") < 0)
        return NULL;
    long flags = sys(SYS_fcntl, fd, F_GETFL, 0);
    long closing = sys(SYS_fcntl, fd, F_GETFD, 0);
    enum fd_kind kind = fd_kind_of(fd, &s);
    struct description *d =
        fd_enter(fd, kind, (uint32_t)flags | (closing & FD_CLOEXEC ? O_CLOEXEC : 0));
    if (!d)
        return NULL;
    fd_tell_device(fd, kind, &s);
    d->bits |= bits;
    if (bits & FD_INHERITED)
        d->origin = fd;
    if (kind == FD_SOCKET)
        fd_read_socket(fd, d);
    else if (kind == FD_PIDFD)
        pidfd_learn(fd, d, 0);
    else if (kind == FD_FILE)
        d->offset = sys(SYS_lseek, fd, 0, SEEK_CUR);
    fd_touch(d);
    inbox_attach(d, fd);
    return d;
}

struct visit {
    void (*visit)(int fd, void *context);
    void *context;
    int directory;
};

static long visit_named(void *context, const char *name)
{
    const struct visit *v = context;
    int fd = 0;
    const char *p = name;
    while (*p >= '0' && *p <= '9')
        fd = fd * 10 + (*p++ - '0');
    if (p != name && fd != v->directory)
        v->visit(fd, v->context);
    return 0;
}

void fd_each_open(void (*visit)(int fd, void *context), void *context)
{
    long directory = trouble_none(proc_open("self/fd", O_RDONLY | O_DIRECTORY), "list descriptors");
    if (directory < 0) {
        for (int fd = 0; fd < 1024; fd++)
            if (sys(SYS_fcntl, fd, F_GETFD, 0) >= 0)
                visit(fd, context);
        return;
    }
    struct visit all = {visit, context, (int)directory};
    trouble_none(entries_each((int)directory, visit_named, &all), "list descriptors");
    sys(SYS_close, directory);
}

static void adopt_inherited(int fd, void *context)
{
    if (!fd_is_ours(fd) && !fd_peek(fd))
        fd_adopt(fd, (uint16_t)(FD_INHERITED | (fd == 2 ? FD_EXEMPT : 0)));
}

void fd_boot(void)
{
    fd_each_open(adopt_inherited, NULL);
}
