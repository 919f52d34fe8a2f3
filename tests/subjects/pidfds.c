/* Children by pidfds: pidfds PORT [together]: then the children die with it
 *
 *     begin   a child that lives, its pidfd in an epoll instance: <how many there are>
 *     spawn   the same, with the pidfd that clone() makes
 *     end     the oldest is killed, seen by epoll, waited for by its pidfd: <how it ended>
 *     all     how many are readable without being killed, and how those have ended that are: they died with this process
 *     self    whether a pidfd of this process itself, made at the start, is of a process that lives and takes signals
 *     other   whether one of process 1 is of one that lives
 */
#define _GNU_SOURCE
#include "service.h"

#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum { MOST = 64 };

static int pidfds[MOST], count, watch, self, other;
static bool together;

static int open_pidfd(pid_t pid)
{
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (fd < 0)
        err(1, "pidfd_open");
    return fd;
}

static bool is_readable(int fd)
{
    struct pollfd p = {fd, POLLIN, 0};
    return poll(&p, 1, 0) == 1 && (p.revents & POLLIN);
}

static bool takes_signals(int fd)
{
    return !is_readable(fd) && !syscall(SYS_pidfd_send_signal, fd, 0, NULL, 0);
}

static void begin(bool spawn)
{
    int fd = -1;
    pid_t pid = spawn ? (pid_t)syscall(SYS_clone, CLONE_PIDFD | SIGCHLD, 0, &fd, 0, 0) : fork();
    if (pid < 0)
        err(1, "no child");
    if (!pid) {
        if (together && (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() == 1)) /* it may have died before */
            _exit(0);
        close(service.socket);
        for (;;)
            pause();
    }
    if (!spawn)
        fd = open_pidfd(pid);
    struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(watch, EPOLL_CTL_ADD, fd, &e) < 0)
        err(1, "epoll_ctl");
    pidfds[count++] = fd;
    service_answer("%d", count);
}

/* Takes it out and says how it ended. */
static int finish(int fd)
{
    siginfo_t info = {0};
    if (waitid(P_PIDFD, fd, &info, WEXITED) < 0)
        err(1, "waitid");
    epoll_ctl(watch, EPOLL_CTL_DEL, fd, NULL);
    close(fd);
    for (int i = 0; i < count; i++)
        if (pidfds[i] == fd)
            memmove(pidfds + i, pidfds + i + 1, sizeof *pidfds * (size_t)(--count - i));
    return info.si_code == CLD_KILLED ? info.si_status : -1;
}

static int next_event(int ms)
{
    struct epoll_event e;
    int n;
    while ((n = epoll_wait(watch, &e, 1, ms)) < 0)
        if (errno != EINTR)
            err(1, "epoll_wait");
    return n ? e.data.fd : -1;
}

static void end(void)
{
    int fd = count ? pidfds[0] : -1;
    if (fd < 0) {
        service_answer("none");
        return;
    }
    if (syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0) < 0)
        err(1, "pidfd_send_signal");
    if (next_event(-1) < 0 || !is_readable(fd))
        errx(1, "its end is not seen");
    service_answer("killed %d", finish(fd));
}

static void all(void)
{
    int dead = 0, right = 0;
    for (int fd; (fd = next_event(0)) >= 0; dead++)
        right += finish(fd) == SIGKILL;
    service_answer("%d of %d, %d left", right, dead, count);
}

int main(int argc, char **argv)
{
    if (argc < 2)
        errx(64, "pidfds PORT [together]");
    together = argc > 2;
    watch = epoll_create1(0);
    self = open_pidfd(getpid());
    other = open_pidfd(1);
    service_open(atoi(argv[1]));
    for (;;) {
        char *command = service_next();
        if (!strcmp(command, "begin") || !strcmp(command, "spawn"))
            begin(*command == 's');
        else if (!strcmp(command, "end"))
            end();
        else if (!strcmp(command, "self"))
            service_answer("%d", takes_signals(self));
        else if (!strcmp(command, "other"))
            service_answer("%d", !is_readable(other));
        else
            all();
    }
}
