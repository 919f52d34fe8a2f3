#define _GNU_SOURCE
#include "net/pidfd.h"
#include "net/adopt.h"
#include "net/host.h"
#include "net/trouble.h"
#include "heap/digits.h"
#include "heap/fault.h"
#include "heap/sys.h"

#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

/* A process that is alive has an inode number of its own, where the kernel gives pidfds any: since Linux 6.9. */
static uint64_t number_of(int fd)
{
    struct stat s;
    return trouble_none(sys(SYS_fstat, fd, &s), "know a process again") == 0 ? s.st_ino : 0;
}

static long look(int fd)
{
    char text[512];
    fd_info(fd, text, sizeof text);
    const char *line = strstr(text, "\nPid:\t");
    if (!line)
        return 0;
    line += sizeof "\nPid:\t" - 1;
    return session_known_pid((long)digits_decimal(&line));
}

void pidfd_learn(int fd, struct description *d, long pid)
{
    struct fd_event *e = d ? fd_event(d) : NULL;
    if (!e)
        return;
    e->count = (uint64_t)(pid ? pid : look(fd));
    e->mask = number_of(fd);
}

long pidfd_process(const struct description *d)
{
    return d && d->kind == FD_PIDFD && d->event ? (long)d->event->count : 0;
}

/* On this stack, as vfork does, so no function is called in between (sys() is one where faults are injected); the child ends at once.
 * Nobody hears of it, and nothing of it is left. */
__attribute__((noinline)) long pidfd_of_ended(uint32_t flags)
{
    int fd = -1;
    long pid = sys_call6(SYS_clone, CLONE_VM | CLONE_VFORK | CLONE_PIDFD, 0, (long)&fd, 0, 0, 0);
    if (pid == 0)
        for (;;)
            sys_call6(SYS_exit, 0, 0, 0, 0, 0, 0);
    if (pid < 0)
        return pid;
    sys(SYS_wait4, pid, NULL, __WALL, NULL);
    if (flags & O_NONBLOCK)
        sys(SYS_fcntl, fd, F_SETFL, O_RDWR | O_NONBLOCK);
    return fd;
}

long pidfd_reopen(const struct description *d)
{
    const struct fd_event *e = d->event;
    long pid = (long)e->count, known = session_real_pid(pid);
    uint32_t flags = d->flags & O_NONBLOCK;
    long fd = session_has_child(pid) && MUTANT("pidfd.child_lives", false, true) ? -ESRCH : sys(SYS_pidfd_open, known, flags);
    bool same = fd >= 0 && (known != pid || number_of((int)fd) == e->mask);
    if (same || (fd < 0 && fd != -ESRCH && fd != -EINVAL))
        return fd;
    if (fd >= 0)
        sys(SYS_close, fd);
    return pidfd_of_ended(flags);
}
