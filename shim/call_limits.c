#include "shim/call_limits.h"
#include "heap/fault.h"
#include "heap/room.h"
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

#define OUTSIDE "(unreachable)" /* before a directory outside of the root directory: proc(5), getcwd(2) */

/* All of it is image. */
static char directory[PATH_MAX];
static bool directory_changed;
static long mask_of_files;
static struct rlimit limits[RLIM_NLIMITS];
static bool limit_changed[RLIM_NLIMITS];
static uint64_t files_told; /* the soft limit on descriptors that the program knows, if it is not the kernel's; or 0 */

/* The limit as the kernel is to have it. */
static struct rlimit with_room(int which, const struct rlimit *wanted)
{
    struct rlimit kernels = *wanted;
    if (which == RLIMIT_NOFILE)
        kernels.rlim_cur = room_leave(wanted);
    return kernels;
}

static void set_files(const struct rlimit *wanted)
{
    struct rlimit kernels = with_room(RLIMIT_NOFILE, wanted);
    if (!sys_failed(sys(SYS_prlimit64, 0, RLIMIT_NOFILE, &kernels, NULL)))
        files_told = kernels.rlim_cur != wanted->rlim_cur ? wanted->rlim_cur : 0;
}

void limits_take_back(void)
{
    struct rlimit now;
    if (!sys_failed(sys(SYS_prlimit64, 0, RLIMIT_NOFILE, NULL, &now)))
        set_files(&now);
}

void limits_give_back(void)
{
    struct rlimit now;
    if (!files_told || sys_failed(sys(SYS_prlimit64, 0, RLIMIT_NOFILE, NULL, &now)))
        return;
    now.rlim_cur = files_told < now.rlim_max ? files_told : now.rlim_max;
    sys(SYS_prlimit64, 0, RLIMIT_NOFILE, &now, NULL);
}

void limits_boot(void)
{
    limits_take_back();
    mask_of_files = sys(SYS_umask, 022);
    sys(SYS_umask, mask_of_files);
    directory_changed = true;
}

void limits_capture(void)
{
    if (!directory_changed)
        return;
    directory_changed = false;
    char now[PATH_MAX];
    long r = sys(SYS_getcwd, now, sizeof now);
    if (sys_in_trouble(r))
        say_die_of(r, "cannot learn the working directory: %s; what was committed before is safe, start the same command again",
                   say_error(r));
    /* Longer than PATH_MAX, or gone: then the start directory has to do. */
    size_t beyond = strncmp(now, OUTSIDE, sizeof OUTSIDE - 1) ? 0 : sizeof OUTSIDE - 1;
    const char *from = beyond ? "" : credentials_root();
    if (sys_failed(r) || now[beyond] != '/' || strlen(from) + (size_t)r >= sizeof directory)
        directory[0] = 0;
    else
        say_format(directory, sizeof directory, "%s%s", from, now + beyond);
}

/* What the program did not change is what this process was started with; the program goes on with what it was told. */
static void resume_files(uint64_t files)
{
    struct rlimit now;
    if (limit_changed[RLIMIT_NOFILE] || sys_failed(sys(SYS_prlimit64, 0, RLIMIT_NOFILE, NULL, &now)))
        return;
    uint64_t told = files_told;
    if (files)
        now.rlim_cur = files;
    set_files(&now);
    files_told = files_told ? files_told : told;
}

void limits_resume(uint64_t files)
{
    sys(SYS_umask, MUTANT("limits.umask_lost", 0, mask_of_files));
    resume_files(files);
    for (int which = 0; which < RLIM_NLIMITS; which++) {
        struct rlimit now, wanted = with_room(which, &limits[which]);
        if (!limit_changed[which] || !sys_failed(sys(SYS_prlimit64, 0, which, &wanted, NULL)))
            continue;
        /* This incarnation was started under a lower hard limit: as near as it goes. */
        sys(SYS_prlimit64, 0, which, NULL, &now);
        wanted.rlim_max = now.rlim_max;
        if (wanted.rlim_cur > now.rlim_max)
            wanted.rlim_cur = now.rlim_max;
        wanted = with_room(which, &wanted);
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

void limits_moved(void)
{
    directory_changed = true;
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
    if (which == RLIMIT_NOFILE)
        files_told = with_room(RLIMIT_NOFILE, limit).rlim_cur != limit->rlim_cur ? limit->rlim_cur : 0;
}

/* To the program, as it knows it. */
static long tell_limit(long which, struct rlimit *limit, long to)
{
    if (which == RLIMIT_NOFILE && files_told)
        limit->rlim_cur = files_told;
    return fault_copy((void *)to, limit, sizeof *limit) ? 0 : -EFAULT;
}

long call_getrlimit(struct call *c)
{
    struct rlimit now;
    long result = sys(SYS_prlimit64, 0, (int)c->arg[0], NULL, &now);
    return sys_failed(result) ? result : tell_limit(c->arg[0], &now, c->arg[1]);
}

long call_setrlimit(struct call *c)
{
    struct rlimit wanted;
    if (!fault_copy(&wanted, (void *)c->arg[1], sizeof wanted))
        return -EFAULT;
    struct rlimit kernels = with_room((int)c->arg[0], &wanted);
    long result = sys(SYS_setrlimit, c->arg[0], wanted.rlim_cur > wanted.rlim_max ? &wanted : &kernels);
    if (!sys_failed(result))
        note_limit(c->arg[0], &wanted);
    return result;
}

long call_prlimit64(struct call *c)
{
    struct rlimit wanted, kernels, old;
    int which = (int)c->arg[1];
    if (c->arg[0] != 0 && c->arg[0] != process_virtual_pid()) {
        c->arg[0] = process_real_pid(c->arg[0]);
        return call_raw(c);
    }
    if (c->arg[2] && !fault_copy(&wanted, (void *)c->arg[2], sizeof wanted))
        return -EFAULT;
    if (c->arg[2])
        kernels = wanted.rlim_cur > wanted.rlim_max ? wanted : with_room(which, &wanted);
    long result = sys(SYS_prlimit64, 0, which, c->arg[2] ? &kernels : NULL, &old);
    if (!sys_failed(result) && c->arg[3])
        result = tell_limit(which, &old, c->arg[3]);
    if (!sys_failed(result) && c->arg[2])
        note_limit(which, &wanted);
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
