#define _GNU_SOURCE
#include "net/terminal.h"
#include "net/pool.h"
#include "heap/fault.h"
#include "heap/sys.h"

#include <asm/ioctls.h>
#include <asm/termbits.h>

static bool reopened;

bool terminal_sets(unsigned request)
{
    switch (request) {
    case TCSETS:
    case TCSETSW:
    case TCSETSF:
    case TCSETS2:
    case TCSETSW2:
    case TCSETSF2:
        return true;
    default:
        return false;
    }
}

static void keep(int fd, struct description *d)
{
    struct termios2 modes;
    if (sys(SYS_ioctl, fd, TCGETS2, &modes) < 0)
        return;
    pool_give(d->content);
    d->content = pool_copy(&modes, sizeof modes);
    d->content_bytes = d->content ? sizeof modes : 0;
}

/* Other descriptions may be of the same terminal: what they have kept is out of date, or still right. */
void terminal_set(int fd, struct description *d)
{
    if (d->kind != FD_TTY)
        return;
    for (int other = 0; other <= fd_highest; other++) {
        struct description *o = fd_peek(other);
        if (o && o != d && o->kind == FD_TTY && o->content)
            keep(other, o);
    }
    keep(fd, d);
}

static bool is_foreground(int fd)
{
    int group;
    return sys(SYS_ioctl, fd, TIOCGPGRP, &group) < 0 || group == sys(SYS_getpgid, 0);
}

void terminal_reopen(int fd, const struct description *d)
{
    if (d->kind != FD_TTY || d->content_bytes != sizeof(struct termios2) || !is_foreground(fd))
        return;
    reopened |= MUTANT("terminal.modes_lost", 0, sys(SYS_ioctl, fd, TCSETS2, d->content)) == 0;
}

bool terminal_reopened(void)
{
    bool was = reopened;
    if (was)
        reopened = false;
    return was;
}
