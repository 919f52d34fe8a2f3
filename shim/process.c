#include "shim/process.h"
#include "shim/pending.h"
#include "shim/threads.h"

/* All of it is image: real_pid is put right in each incarnation. */
static long virtual_pid, real_pid;

void process_boot(void)
{
    virtual_pid = real_pid = sys(SYS_getpid);
}

void process_resume(void)
{
    real_pid = sys(SYS_getpid);
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
        return -sys(SYS_getpgid, 0); /* it led a group; now it is in its starter's */
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
    return threads_known_tid(call_raw(c));
}

/* The parent is whoever started this incarnation; the first one's is gone. */
long call_getppid(struct call *c)
{
    return call_raw(c);
}

long call_set_tid_address(struct call *c)
{
    return threads_known_tid(call_raw(c));
}

/* getpgid, getpgrp, getsid: a group or session that the program leads has its number. */
long call_group(struct call *c)
{
    c->arg[0] = process_real_pid(c->arg[0]);
    return process_known_pid(call_raw(c));
}

long call_setpgid(struct call *c)
{
    c->arg[0] = process_real_pid(c->arg[0]);
    c->arg[1] = process_real_pid(c->arg[1]);
    return call_raw(c);
}

/* Calls that are the kernel's but for a thread in their first or second argument. */
long call_thread_first(struct call *c)
{
    c->arg[0] = threads_real_tid(c->arg[0]);
    return call_raw(c);
}

long call_thread_second(struct call *c)
{
    c->arg[1] = threads_real_tid(c->arg[1]);
    return call_raw(c);
}

/* A child that ended with the last incarnation is a zombie to the program: a signal to it does
 * nothing. Its number may be someone else's by now. */
long call_kill(struct call *c)
{
    c->arg[0] = (int)c->arg[0];
    if (children_dead(c->arg[0]))
        return 0;
    c->arg[0] = process_real_pid(c->arg[0]);
    return call_raw(c);
}

long call_rt_sigqueueinfo(struct call *c)
{
    return call_kill(c);
}

/* To one thread: `tid` of the program's, `signal` not 0. */
static long to_thread(const struct call *c, long tid, long signal)
{
    struct thread *whom = signal ? threads_named(tid) : NULL;
    if (whom)
        pending_sent(whom, 1);
    long result = call_raw(c);
    if (whom && sys_failed(result))
        pending_sent(whom, -1);
    return result;
}

long call_tkill(struct call *c)
{
    long tid = c->arg[0];
    c->arg[0] = threads_real_tid(tid);
    return to_thread(c, tid, c->arg[1]);
}

long call_tgkill(struct call *c)
{
    long tid = c->arg[1];
    c->arg[0] = process_real_pid(c->arg[0]);
    c->arg[1] = threads_real_tid(tid);
    return to_thread(c, tid, c->arg[2]);
}

long call_rt_tgsigqueueinfo(struct call *c)
{
    return call_tgkill(c);
}
