#include "shim/children.h"
#include "heap/room.h"
#include "net/pidfd.h"
#include "shim/call_signal.h"
#include "shim/call_wait.h"
#include "shim/heir.h"
#include "shim/threads.h"
#include "shim/turn.h"

#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>

/* Image: known to every incarnation. */
static struct child {
    int pid;
    bool dead;
} children[CHILDREN_MAX];
static int child_count;

static int find(long pid, bool dead_only)
{
    for (int i = 0; i < child_count; i++)
        if ((pid == -1 || children[i].pid == pid) && (children[i].dead || !dead_only))
            return i;
    return -1;
}

void children_add(long pid)
{
    if (child_count < CHILDREN_MAX)
        children[child_count++] = (struct child){.pid = (int)pid};
}

void children_remove(long pid)
{
    int at = find(pid, false);
    if (at >= 0)
        memmove(&children[at], &children[at + 1],
                sizeof children[0] * (size_t)(--child_count - at));
}

void children_forked(void)
{
    child_count = 0;
}

bool children_resume(bool ignored)
{
    if (ignored)
        child_count = 0;
    for (int i = 0; i < child_count; i++)
        children[i].dead = true;
    return child_count > 0;
}

/* The kernel tells the session of a zombie, too. */
static bool leaves_nobody(int pid)
{
    siginfo_t info = {0};
    long r = sys(SYS_waitid, P_PID, pid, &info, WEXITED | WNOHANG | WNOWAIT, NULL);
    bool ended = r == 0 && info.si_pid == pid;
    return ended && (info.si_code != CLD_EXITED || info.si_status || heir_followed(pid));
}

bool children_daemon(void)
{
    const struct timespec moment = {0, 1000000};
    long own = sys(SYS_getsid, 0);
    bool any = false;
    for (int attempt = 0; attempt < 10 && (any || !attempt); attempt++) {
        if (any)
            sys(SYS_nanosleep, &moment, NULL);
        for (int i = 0; i < child_count; i++) {
            long session_id = children[i].dead ? -ESRCH : sys(SYS_getsid, children[i].pid);
            any |= session_id > 0;
            if (session_id > 0 && session_id != own && !leaves_nobody(children[i].pid))
                return true;
        }
    }
    return false;
}

/* Those that the kernel reaps unasked are not reported as ended. */
bool children_any(void)
{
    bool any = false;
    for (int i = child_count - 1; i >= 0; i--) {
        bool gone = !children[i].dead && sys(SYS_kill, children[i].pid, 0) == -ESRCH;
        if (gone)
            children_remove(children[i].pid);
        else
            any |= !children[i].dead;
    }
    return any;
}

bool children_has(long pid)
{
    return pid > 0 && find(pid, false) >= 0;
}

long children_dead(long pid)
{
    int at = child_count ? find(pid, true) : -1;
    return at < 0 ? 0 : children[at].pid;
}

/* wait4's way to name a child, as the table has it: groups are not recorded, so 0 means any, and a
 * group is taken for the child that leads it. */
static long wanted_child(int pid) /* in a register only its lower half counts */
{
    return pid == 0 ? -1 : pid < -1 ? -pid : pid;
}

struct outcome {
    int status;
    siginfo_t info;
    struct rusage usage;
};

/* Asks the kernel once: without waiting, or with all handlers welcome. */
static long ask(struct call *c, struct outcome *o, bool wait)
{
    struct call inner = *c;
    bool by_id = c->nr == SYS_waitid;
    memset(o, 0, sizeof *o);
    inner.arg[by_id ? 2 : 1] = by_id ? (long)&o->info : (long)&o->status;
    inner.arg[by_id ? 4 : 3] = (long)&o->usage;
    if (wait)
        return signal_block_once(&inner);
    inner.arg[by_id ? 3 : 2] |= WNOHANG;
    return call_raw(&inner);
}

#define LOOK_MS 16 /* a child's end is seen so much later at most, when peers are served and any child will do */

static bool serve_peers(long wanted, unsigned ms, long nr, long *result)
{
    long fd = wanted > 0 ? sys_fd(SYS_pidfd_open, wanted, 0) : -1;
    bool served = wait_beside((int)(fd < 0 ? -1 : fd), fd < 0 ? ms : 1000, nr, result);
    if (fd >= 0)
        sys(SYS_close, fd);
    return served;
}

/* Above 0: a child changed its state; 0: none did, with WNOHANG. Ends the turn before it waits. */
static long wait_child(struct call *c, struct outcome *o, long wanted, bool may_wait)
{
    bool by_id = c->nr == SYS_waitid, ended = false;
    for (unsigned ms = 1;; ms = ms < LOOK_MS ? ms * 2 : ms) {
        long result = ask(c, o, false);
        if (by_id && result == 0)
            result = o->info.si_pid;
        if (result > 0)
            return result;
        if (children_dead(wanted))
            return 0; /* the caller looks there first */
        if (result < 0 || !may_wait)
            return result;
        if (!ended)
            turn_end(TURN_WAIT);
        ended = true;
        if (children_dead(wanted))
            continue;
        if (serve_peers(wanted, ms, c->nr, &result)) {
            if (result < 0 && result != WAIT_AGAIN)
                return result;
            ended = result != WAIT_AGAIN;
            continue;
        }
        result = ask(c, o, true);
        if (by_id && result == 0)
            result = o->info.si_pid;
        ended = result == THREADS_AGAIN;
        if (!ended && result != SIGNAL_AGAIN && !(result == -ECHILD && children_dead(wanted)))
            return result;
    }
}

static bool ended(int status)
{
    return WIFEXITED(status) || WIFSIGNALED(status);
}

static bool code_ended(int code)
{
    return code == CLD_EXITED || code == CLD_KILLED || code == CLD_DUMPED;
}

static bool copy_out(long to, const void *from, size_t bytes)
{
    return !to || fault_copy((void *)to, from, bytes);
}

long call_wait4(struct call *c)
{
    struct outcome o;
    long wanted = wanted_child((int)c->arg[0]);
    long result = wait_child(c, &o, wanted, !(c->arg[2] & WNOHANG));
    if (result <= 0 && result != -EINTR && children_dead(wanted)) {
        result = children_dead(wanted);
        o = (struct outcome){.status = SIGKILL};
    }
    if (result > 0 && ended(o.status))
        children_remove(result);
    if (result > 0 && (!copy_out(c->arg[1], &o.status, sizeof o.status) ||
                       !copy_out(c->arg[3], &o.usage, sizeof o.usage)))
        return -EFAULT;
    return result;
}

static void report_killed(siginfo_t *info, long pid)
{
    memset(info, 0, sizeof *info);
    info->si_signo = SIGCHLD;
    info->si_code = CLD_KILLED;
    info->si_pid = (pid_t)pid;
    info->si_status = SIGKILL;
}

long call_waitid(struct call *c)
{
    struct outcome o;
    long options = c->arg[3];
    bool can_be_dead = options & WEXITED, by_pidfd = c->arg[0] == P_PIDFD;
    const struct description *pidfd = by_pidfd ? fd_find((int)c->arg[1]) : NULL;
    bool refuses = pidfd && (pidfd->flags & O_NONBLOCK) && !(options & WNOHANG);
    long wanted = !can_be_dead          ? 0 /* no child has that pid */
                  : c->arg[0] == P_ALL  ? -1
                  : c->arg[0] == P_PID  ? (int)c->arg[1]
                  : c->arg[0] == P_PGID ? wanted_child(-(int)c->arg[1])
                  : by_pidfd            ? pidfd_process(pidfd)
                                        : 0;
    long result = wait_child(c, &o, wanted, !(options & WNOHANG) && !refuses);
    if (result <= 0 && result != -EINTR && wanted && children_dead(wanted)) {
        result = children_dead(wanted);
        report_killed(&o.info, result);
    }
    if (result > 0 && !(options & WNOWAIT) && code_ended(o.info.si_code))
        children_remove(result);
    if (result < 0 || (result == 0 && refuses))
        return result < 0 ? result : -EAGAIN;
    if (!copy_out(c->arg[2], &o.info, sizeof o.info) ||
        !copy_out(c->arg[4], &o.usage, sizeof o.usage))
        return -EFAULT;
    return 0;
}
