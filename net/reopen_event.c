/* eventfd, timerfd, signalfd, inotify, memfd and epoll in a new process. */
#define _GNU_SOURCE
#include "net/reopen.h"
#include "net/host.h"
#include "net/trouble.h"
#include "heap/fault.h"
#include "heap/say.h"
#include "heap/sys.h"

#include <fcntl.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <time.h>

#define BURN_MAX 100000 /* watch numbers skipped to reach the one that the program knows */

static int nonblocking(const struct description *d)
{
    return d->flags & O_NONBLOCK ? O_NONBLOCK : 0;
}

static long reopen_eventfd(struct description *d)
{
    long fd = sys(SYS_eventfd2, 0, EFD_CLOEXEC | EFD_NONBLOCK | (d->event->option & EFD_SEMAPHORE));
    if (fd < 0)
        return fd;
    long r = MUTANT("reopen.count_lost", false, d->event->count) ? sys(SYS_write, fd, &d->event->count, sizeof d->event->count) : 0;
    if (!nonblocking(d))
        sys(SYS_fcntl, fd, F_SETFL, O_RDWR);
    return reopen_whole((int)fd, r);
}

/* Expirations that nobody had read yet are told by a timer that is due at once. */
static long reopen_timer(struct description *d)
{
    struct fd_event *e = d->event;
    long fd = sys(SYS_timerfd_create, e->option, TFD_CLOEXEC | nonblocking(d));
    if (fd < 0 || MUTANT("reopen.deadline_lost", true, !e->due_ns && !e->count))
        return fd;
    int64_t left = e->due_ns - fd_timer_now(d);
    if (e->count || left < 1)
        left = 1;
    struct itimerspec t = {
        .it_value = {left / 1000000000L, left % 1000000000L},
        .it_interval = {e->interval_ns / 1000000000L, e->interval_ns % 1000000000L},
    };
    return reopen_whole((int)fd, sys(SYS_timerfd_settime, fd, 0, &t, NULL));
}

/* The kernel gives watch numbers in rising order and never again: those that are missing are used up. */
static long reopen_inotify(struct description *d)
{
    long fd = sys(SYS_inotify_init1, IN_CLOEXEC | nonblocking(d));
    if (fd < 0)
        return fd;
    for (const struct inotify_watch *w = d->watches; w; w = w->next) {
        long wd = -1;
        for (int n = 0; n < BURN_MAX; n++) {
            wd = sys(SYS_inotify_add_watch, fd, w->path, w->mask & ~(uint32_t)(IN_MASK_ADD | IN_MASK_CREATE));
            if (wd < 0 || wd >= w->wd)
                break;
            sys(SYS_inotify_rm_watch, fd, wd);
        }
        if (trouble_is(wd) && wd != -ENOSPC) /* that one is the user's limit on watches */
            return reopen_whole((int)fd, wd);
        if (wd != w->wd)
            say("%s cannot be watched again: %s", w->path, wd < 0 ? say_error(wd) : "its number is taken");
    }
    /* The removed ones left IN_IGNORED events behind. */
    char events[4096];
    if (d->watches) {
        sys(SYS_fcntl, fd, F_SETFL, O_NONBLOCK);
        while (sys(SYS_read, fd, events, sizeof events) > 0)
            ;
        if (!nonblocking(d))
            sys(SYS_fcntl, fd, F_SETFL, 0);
    }
    return fd;
}

static long reopen_memfd(struct description *d)
{
    long fd = sys(SYS_memfd_create, "ken", (unsigned)d->event->option | MFD_CLOEXEC);
    if (fd < 0)
        return fd;
    long r = 0;
    for (uint32_t done = 0; d->content && r >= 0 && done < d->content_bytes; done += (uint32_t)r)
        r = sys(SYS_pwrite64, fd, d->content + done, d->content_bytes - done, done);
    if (d->bits & FD_BROKEN)
        say("a memfd was too long to be kept; it is empty now");
    sys(SYS_lseek, fd, d->offset, SEEK_SET);
    return reopen_whole((int)fd, r);
}

long reopen_event(struct description *d)
{
    switch (d->kind) {
    case FD_EPOLL:
        return sys(SYS_epoll_create1, EPOLL_CLOEXEC);
    case FD_INOTIFY:
        return reopen_inotify(d);
    default:
        break;
    }
    if (!d->event)
        return reopen_nothing();
    switch (d->kind) {
    case FD_EVENT:
        return reopen_eventfd(d);
    case FD_TIMER:
        return reopen_timer(d);
    case FD_SIGNAL:
        return sys(SYS_signalfd4, -1, &d->event->mask, 8, SFD_CLOEXEC | nonblocking(d));
    default:
        return reopen_memfd(d);
    }
}

static int number_of(int index)
{
    for (int fd = 0; fd <= fd_highest; fd++)
        if (fd_slots[fd].description == index + 1)
            return fd;
    return -1;
}

int reopen_watches(void)
{
    for (int fd = 0; fd <= fd_highest; fd++) {
        for (struct epoll_watch *w = MUTANT("reopen.watches_lost", NULL, fd_slots[fd].watches); w; w = w->next) {
            struct epoll_event e = {.events = w->events, .data.u64 = w->data};
            int epoll = number_of(w->epoll);
            long r = epoll < 0 ? 0 : sys(SYS_epoll_ctl, epoll, EPOLL_CTL_ADD, fd, &e);
            if (r < 0 && r != -EPERM)
                say("descriptor %d cannot be watched again: %s", fd, say_error(r));
            if (trouble_is(r))
                return (int)r;
        }
    }
    return 0;
}
