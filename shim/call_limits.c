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
#include <linux/capability.h>
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
static struct rlimit files_told; /* the limit on descriptors that the program knows, where it is not the kernel's */
static bool files_differ;

/* The limit as the kernel is to have it. A hard one that the program lowers stays what it was: what lies beyond is libken's,
 * and the program cannot come there, for its soft one counts. */
static struct rlimit with_room(int which, const struct rlimit *wanted)
{
    struct rlimit kernels = *wanted, now;
    if (which != RLIMIT_NOFILE)
        return kernels;
    if (!sys_failed(sys(SYS_prlimit64, 0, RLIMIT_NOFILE, NULL, &now)) && now.rlim_max > kernels.rlim_max)
        kernels.rlim_max = now.rlim_max;
    kernels.rlim_cur = room_leave(&kernels);
    return kernels;
}

static void tell_files(const struct rlimit *told, const struct rlimit *kernels)
{
    files_differ = told->rlim_cur != kernels->rlim_cur || told->rlim_max != kernels->rlim_max;
    files_told = *told;
}

static void set_files(const struct rlimit *wanted)
{
    struct rlimit kernels = with_room(RLIMIT_NOFILE, wanted);
    if (!sys_failed(sys(SYS_prlimit64, 0, RLIMIT_NOFILE, &kernels, NULL)))
        tell_files(wanted, &kernels);
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
    if (!files_differ || sys_failed(sys(SYS_prlimit64, 0, RLIMIT_NOFILE, NULL, &now)))
        return;
    now.rlim_max = files_told.rlim_max < now.rlim_max ? files_told.rlim_max : now.rlim_max;
    now.rlim_cur = files_told.rlim_cur < now.rlim_max ? files_told.rlim_cur : now.rlim_max;
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
    struct rlimit told = files_told;
    bool differed = files_differ;
    if (files)
        now.rlim_cur = files;
    set_files(&now);
    if (!files_differ && differed) {
        files_told = told;
        files_differ = true;
    }
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

/* As the kernel asks, which does not know the limit that the program would pass. */
static bool may_raise_files(const struct rlimit *wanted)
{
    return !files_differ || wanted->rlim_max <= files_told.rlim_max || credentials_has(CAP_SYS_RESOURCE);
}

/* `wanted` may be NULL; `old` is as the program knows it. */
static long change_limit(int which, const struct rlimit *wanted, struct rlimit *old)
{
    struct rlimit kernels;
    if (wanted) {
        bool sound = wanted->rlim_cur <= wanted->rlim_max; /* else the kernel says what is wrong */
        if (sound && which == RLIMIT_NOFILE && !may_raise_files(wanted))
            return -EPERM;
        kernels = sound ? with_room(which, wanted) : *wanted;
    }
    long result = sys(SYS_prlimit64, 0, which, wanted ? &kernels : NULL, old);
    if (sys_failed(result))
        return result;
    if (which == RLIMIT_NOFILE && files_differ)
        *old = files_told;
    if (wanted) {
        limits[which] = *wanted;
        limit_changed[which] = true;
        if (which == RLIMIT_NOFILE)
            tell_files(wanted, &kernels);
    }
    return result;
}

/* Of the program itself. */
static long limit_call(long which, long wanted_at, long old_at)
{
    struct rlimit wanted, old;
    if (wanted_at && !fault_copy(&wanted, (void *)wanted_at, sizeof wanted))
        return -EFAULT;
    long result = change_limit((int)which, wanted_at ? &wanted : NULL, &old);
    if (!sys_failed(result) && old_at && !fault_copy((void *)old_at, &old, sizeof old))
        return -EFAULT;
    return result;
}

long call_getrlimit(struct call *c)
{
    long result = limit_call(c->arg[0], 0, c->arg[1]);
    return sys_failed(result) || c->arg[1] ? result : -EFAULT;
}

long call_setrlimit(struct call *c)
{
    return c->arg[1] ? limit_call(c->arg[0], c->arg[1], 0) : -EFAULT;
}

long call_prlimit64(struct call *c)
{
    if (c->arg[0] == 0 || c->arg[0] == process_virtual_pid())
        return limit_call(c->arg[1], c->arg[2], c->arg[3]);
    c->arg[0] = process_real_pid(c->arg[0]);
    return call_raw(c);
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
