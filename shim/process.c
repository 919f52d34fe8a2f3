#include "shim/process.h"

#include <string.h>

/* All of it is image: real_pid is put right in each incarnation. */
static long virtual_pid, real_pid;

struct child {
    int pid;
    bool dead; /* ended with the incarnation that made it; not yet reported */
};
static struct child children[CHILDREN_MAX];
static int child_count;

void process_boot(void)
{
    virtual_pid = real_pid = sys(SYS_getpid);
}

void process_resume(void)
{
    real_pid = sys(SYS_getpid);
    for (int i = 0; i < child_count; i++)
        children[i].dead = true;
}

long process_virtual_pid(void)
{
    return virtual_pid;
}

long process_real_pid(long pid)
{
    if (pid == 0 || virtual_pid == real_pid || call_passive)
        return pid;
    if (pid == virtual_pid)
        return real_pid;
    if (pid == -virtual_pid)
        return -sys(SYS_getpgid, 0); /* it led a group; now it is in the one that started it again */
    return pid;
}

long process_known_pid(long pid)
{
    return pid == real_pid && !call_passive ? virtual_pid : pid;
}

void process_correct_sender(siginfo_t *info)
{
    int code = info->si_code;
    if ((code == SI_USER || code == SI_TKILL || code == SI_QUEUE) && info->si_pid == real_pid)
        info->si_pid = (pid_t)process_known_pid(info->si_pid);
}

long call_getpid(struct call *c)
{
    return process_known_pid(call_raw(c));
}

long call_gettid(struct call *c)
{
    return process_known_pid(call_raw(c));
}

/* The parent is whoever started this incarnation; the first one's is gone. */
long call_getppid(struct call *c)
{
    return call_raw(c);
}

long call_set_tid_address(struct call *c)
{
    return process_known_pid(call_raw(c));
}

/* Calls that take a pid or tid as their first or second argument and are otherwise the kernel's. */
long call_pid_first(struct call *c)
{
    c->arg[0] = process_real_pid(c->arg[0]);
    return call_raw(c);
}

long call_pid_second(struct call *c)
{
    c->arg[1] = process_real_pid(c->arg[1]);
    return call_raw(c);
}

void children_add(long pid)
{
    if (child_count < CHILDREN_MAX)
        children[child_count++] = (struct child){.pid = (int)pid};
}

static int child_find(long pid, bool dead_only)
{
    for (int i = 0; i < child_count; i++)
        if ((pid == -1 || children[i].pid == pid) && (children[i].dead || !dead_only))
            return i;
    return -1;
}

void children_remove(long pid)
{
    int at = child_find(pid, false);
    if (at >= 0)
        memmove(&children[at], &children[at + 1], sizeof children[0] * (size_t)(--child_count - at));
}

bool children_dead(long pid)
{
    return child_find(pid, true) >= 0;
}

long children_take_dead(long pid)
{
    int at = child_find(pid, true);
    if (at < 0)
        return 0;
    long dead = children[at].pid;
    memmove(&children[at], &children[at + 1], sizeof children[0] * (size_t)(--child_count - at));
    return dead;
}
