/* Descriptors that the program makes for itself: pipes, eventfd, timerfd, signalfd, inotify, memfd, pidfd. */
#define _GNU_SOURCE
#include "net/pidfd.h"
#include "net/pool.h"
#include "shim/call_net.h"
#include "shim/call_signal.h"
#include "shim/call_time.h"
#include "shim/call_wait.h"
#include "shim/children.h"
#include "shim/process.h"

#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>

static long entered_pipe(long r, const int *ends, uint32_t flags)
{
    if (r < 0)
        return r;
    fd_enter(ends[0], FD_PIPE, O_RDONLY | flags);
    fd_enter(ends[1], FD_PIPE, O_WRONLY | flags);
    fd_pair(ends[0], ends[1]);
    return r;
}

long call_pipe(struct call *c)
{
    return entered_pipe(call_raw(c), (const int *)c->arg[0], 0);
}

long call_pipe2(struct call *c)
{
    return entered_pipe(call_raw(c), (const int *)c->arg[0], (uint32_t)c->arg[1]);
}

/* EFD_, TFD_, SFD_, IN_ and O_ flags share the values of NONBLOCK and CLOEXEC. */
static struct description *enter_event(long fd, enum fd_kind kind, long flags)
{
    if (fd < 0)
        return NULL;
    struct description *d =
        fd_enter((int)fd, kind, O_RDWR | ((uint32_t)flags & (O_NONBLOCK | O_CLOEXEC)));
    if (d && kind != FD_INOTIFY && fd_event(d))
        d->event->option = (int32_t)flags;
    if (d)
        fd_touch(d);
    return d;
}

long call_eventfd(struct call *c)
{
    long fd = call_raw(c);
    enter_event(fd, FD_EVENT, 0);
    return fd;
}

long call_eventfd2(struct call *c)
{
    long fd = call_raw(c);
    enter_event(fd, FD_EVENT, c->arg[1]);
    return fd;
}

long call_timerfd_create(struct call *c)
{
    long fd = call_raw(c);
    struct description *d = enter_event(fd, FD_TIMER, c->arg[1]);
    if (d && d->event)
        d->event->option = (int32_t)c->arg[0];
    return fd;
}

long call_timerfd_settime(struct call *c)
{
    struct description *d = fd_find((int)c->arg[0]);
    long clock = d && d->kind == FD_TIMER && d->event ? d->event->option : CLOCK_REALTIME;
    struct call with = *c;
    struct itimerspec wanted;
    if ((c->arg[1] & TFD_TIMER_ABSTIME) && time_offset_ns(clock) &&
        fault_copy(&wanted, (void *)c->arg[2], sizeof wanted) &&
        (wanted.it_value.tv_sec || wanted.it_value.tv_nsec)) {
        wanted.it_value = time_kernels(clock, &wanted.it_value);
        with.arg[2] = (long)&wanted;
    }
    long r = call_raw(&with);
    if (r == 0 && d)
        fd_touch(d);
    return r;
}

static long take_signals(struct call *c, long flags)
{
    long fd = call_raw(c);
    if (fd < 0)
        return fd;
    struct description *d =
        (int)c->arg[0] == -1 ? enter_event(fd, FD_SIGNAL, flags) : fd_find((int)c->arg[0]);
    if (d && d->kind == FD_SIGNAL && fd_event(d))
        memcpy(&d->event->mask, (const void *)c->arg[1], sizeof d->event->mask);
    return fd;
}

long call_signalfd(struct call *c)
{
    return take_signals(c, 0);
}

long call_signalfd4(struct call *c)
{
    return take_signals(c, c->arg[3]);
}

long call_inotify_init(struct call *c)
{
    long fd = call_raw(c);
    enter_event(fd, FD_INOTIFY, 0);
    return fd;
}

long call_inotify_init1(struct call *c)
{
    long fd = call_raw(c);
    enter_event(fd, FD_INOTIFY, c->arg[0]);
    return fd;
}

static struct inotify_watch **find_watch(struct description *d, int wd)
{
    struct inotify_watch **link = &d->watches;
    while (*link && (*link)->wd != wd)
        link = &(*link)->next;
    return link;
}

long call_inotify_add_watch(struct call *c)
{
    long wd = call_raw(c);
    struct description *d = wd >= 0 ? fd_find((int)c->arg[0]) : NULL;
    if (!d || d->kind != FD_INOTIFY)
        return wd;
    struct inotify_watch **link = find_watch(d, (int)wd);
    if (*link) {
        (*link)->mask = c->arg[2] & IN_MASK_ADD ? (*link)->mask | (uint32_t)c->arg[2] : (uint32_t)c->arg[2];
        return wd;
    }
    const char *path = (const char *)c->arg[1];
    size_t length = strlen(path) + 1;
    struct inotify_watch *w = pool_take(sizeof *w + length);
    if (w) {
        *w = (struct inotify_watch){.wd = (int32_t)wd, .mask = (uint32_t)c->arg[2]};
        memcpy(w->path, path, length);
        *link = w;
    }
    return wd;
}

long call_inotify_rm_watch(struct call *c)
{
    long r = call_raw(c);
    struct description *d = r == 0 ? fd_find((int)c->arg[0]) : NULL;
    if (!d || d->kind != FD_INOTIFY)
        return r;
    struct inotify_watch **link = find_watch(d, (int)c->arg[1]), *w = *link;
    if (w) {
        *link = w->next;
        pool_give(w);
    }
    return r;
}

long call_pidfd_open(struct call *c)
{
    long pid = (int)c->arg[0];
    struct call with = *c;
    with.arg[0] = process_real_pid(pid);
    long fd = children_dead(pid) ? pidfd_of_ended((uint32_t)c->arg[1]) : call_raw(&with);
    pidfd_learn((int)fd, enter_event(fd, FD_PIDFD, c->arg[1] | O_CLOEXEC), pid);
    return fd;
}

/* To a child that ended with the last incarnation: as call_kill(). */
long call_pidfd_send_signal(struct call *c)
{
    long pid = pidfd_process(fd_find((int)c->arg[0]));
    return pid && children_dead(pid) ? 0 : call_raw(c);
}

long call_memfd_create(struct call *c)
{
    long fd = call_raw(c);
    if (fd < 0)
        return fd;
    struct description *d =
        fd_enter((int)fd, FD_MEMFD, O_RDWR | (c->arg[1] & MFD_CLOEXEC ? O_CLOEXEC : 0));
    if (d && fd_event(d))
        d->event->option = (int32_t)c->arg[1];
    if (d)
        fd_touch(d);
    return fd;
}
