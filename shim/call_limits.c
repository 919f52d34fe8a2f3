#include "shim/call_limits.h"
#include "heap/fault.h"
#include "shim/call_signal.h"
#include "shim/credentials.h"
#include "shim/heir.h"
#include "shim/process.h"
#include "shim/thread.h"

#include "heap/say.h"

#include <limits.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#ifndef PR_SET_SYSCALL_USER_DISPATCH
#define PR_SET_SYSCALL_USER_DISPATCH 59
#endif

/* All of it is image. */
static char directory[PATH_MAX];
static bool directory_changed;
static long mask_of_files;
static struct rlimit limits[RLIM_NLIMITS];
static bool limit_changed[RLIM_NLIMITS];

void limits_boot(void)
{
    mask_of_files = sys(SYS_umask, 022);
    sys(SYS_umask, mask_of_files);
    directory_changed = true;
}

void limits_capture(void)
{
    if (!directory_changed)
        return;
    directory_changed = false;
    /* Longer than PATH_MAX, or out of reach: then the start directory has to do. */
    long r = sys(SYS_getcwd, directory, sizeof directory);
    if (sys_in_trouble(r))
        say_die_of(r, "cannot learn the working directory: %s; what was committed before is safe, start the same command again",
                   say_error(r));
    if (sys_failed(r) || directory[0] != '/')
        directory[0] = 0;
}

void limits_resume(void)
{
    sys(SYS_umask, MUTANT("limits.umask_lost", 0, mask_of_files));
    for (int which = 0; which < RLIM_NLIMITS; which++) {
        struct rlimit now, wanted = limits[which];
        if (!limit_changed[which] || !sys_failed(sys(SYS_prlimit64, 0, which, &wanted, NULL)))
            continue;
        /* This incarnation was started under a lower hard limit: as near as it goes. */
        sys(SYS_prlimit64, 0, which, NULL, &now);
        wanted.rlim_max = now.rlim_max;
        if (wanted.rlim_cur > now.rlim_max)
            wanted.rlim_cur = now.rlim_max;
        sys(SYS_prlimit64, 0, which, &wanted, NULL);
    }
    if (thread_self()->name[0])
        sys(SYS_prctl, PR_SET_NAME, thread_self()->name, 0, 0, 0);
    if (directory[0]) {
        long result = sys(SYS_chdir, directory);
        if (sys_in_trouble(result)) /* not the place to go on with the program's files */
            say_die_of(result, "cannot go back to directory %s: %s; start the same command again", directory, say_error(result));
        if (sys_failed(result))
            say("cannot go back to directory %s: %s", directory, say_error(result));
    }
}

long call_umask(struct call *c)
{
    mask_of_files = c->arg[0] & 0777;
    return call_raw(c);
}

/* chdir and fchdir. */
long call_chdir(struct call *c)
{
    long result = call_raw(c);
    if (!sys_failed(result))
        directory_changed = true;
    return result;
}

static void note_limit(long which, const struct rlimit *limit)
{
    limits[which] = *limit;
    limit_changed[which] = true;
}

long call_setrlimit(struct call *c)
{
    struct rlimit wanted;
    if (!fault_copy(&wanted, (void *)c->arg[1], sizeof wanted))
        return -EFAULT;
    long result = call_raw(c);
    if (!sys_failed(result))
        note_limit(c->arg[0], &wanted);
    return result;
}

long call_prlimit64(struct call *c)
{
    struct rlimit wanted;
    bool own = c->arg[0] == 0 || c->arg[0] == process_virtual_pid();
    if (c->arg[2] && !fault_copy(&wanted, (void *)c->arg[2], sizeof wanted))
        return -EFAULT;
    c->arg[0] = process_real_pid(c->arg[0]);
    long result = call_raw(c);
    if (!sys_failed(result) && c->arg[2] && own)
        note_limit(c->arg[1], &wanted);
    return result;
}

long call_prctl(struct call *c)
{
    if ((int)c->arg[0] == PR_SET_SYSCALL_USER_DISPATCH)
        return -EINVAL; /* as on a kernel without it: libken needs it for itself */
    long result = call_raw(c);
    if ((int)c->arg[0] == PR_SET_PDEATHSIG && !sys_failed(result))
        heir_mourns_itself();
    if ((int)c->arg[0] == PR_SET_NO_NEW_PRIVS && !sys_failed(result))
        credentials_note();
    if ((int)c->arg[0] == PR_SET_NAME && !sys_failed(result))
        sys(SYS_prctl, PR_GET_NAME, thread_self()->name, 0, 0, 0);
    return result;
}
