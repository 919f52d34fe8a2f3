#define _GNU_SOURCE
#include "shim/credentials.h"
#include "heap/fault.h"
#include "heap/proc.h"
#include "heap/room.h"
#include "heap/fault.h"
#include "heap/say.h"
#include "heap/session.h"
#include "net/fdtable.h"
#include "net/trouble.h"
#include "shim/call_limits.h"
#include "shim/heir.h"
#include "shim/turn.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/types.h>

#define GROUPS_MAX 256

/* All of it is image. */
static bool changed, no_new_privs;
static uint32_t users[3], groups[3]; /* real, effective, saved */
static int32_t supplementary_count;
static uint32_t supplementary[GROUPS_MAX];
static struct __user_cap_data_struct capabilities[2];
static char root[PATH_MAX];

static struct __user_cap_header_struct capability_header(void)
{
    return (struct __user_cap_header_struct){.version = _LINUX_CAPABILITY_VERSION_3};
}

void credentials_note(void)
{
    struct __user_cap_header_struct header = capability_header();
    changed = true;
    no_new_privs = sys(SYS_prctl, PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1;
    sys(SYS_getresuid, &users[0], &users[1], &users[2]);
    sys(SYS_getresgid, &groups[0], &groups[1], &groups[2]);
    sys(SYS_capget, &header, capabilities);
    supplementary_count = (int32_t)sys(SYS_getgroups, GROUPS_MAX, supplementary);
    if (supplementary_count < 0)
        say("more than %d groups cannot be kept; a restart has those it begins with", GROUPS_MAX);
}

bool credentials_has(int capability)
{
    struct __user_cap_header_struct header = capability_header();
    struct __user_cap_data_struct now[2] = {{0}};
    sys(SYS_capget, &header, now);
    return now[CAP_TO_INDEX(capability)].effective & CAP_TO_MASK(capability);
}

/* What only the first user may do to the store, above all pinning what is mapped, is done while it is that one. It goes in steps:
 * group, groups, user; and looking up the groups may map another library. */
static void before_change(void)
{
    if (changed && !(session && session->areas.stale))
        return;
    turn_end(TURN_FLUSH);
    if (heir_candidate)
        areas_pin(session), store_sync_pins(&session->store);
}

static long change(struct call *c)
{
    before_change();
    long r = call_raw(c);
    if (!sys_failed(r))
        credentials_note();
    return r;
}

long call_set_user(struct call *c)
{
    return change(c);
}

long call_set_group(struct call *c)
{
    return change(c);
}

long call_capset(struct call *c)
{
    return change(c);
}

const char *credentials_root(void)
{
    return root;
}

static long sure(long result)
{
    return trouble_none(result, "learn where the new root directory is");
}

/* Where the new root directory is, as it is called in the first one; not told for one outside of the present one, which a
 * process may still be in or hold open. */
static bool learn_root(const char *path, char *where, size_t size)
{
    char within[PATH_MAX];
    long fd = sure(sys_fd(SYS_open, path, O_PATH | O_CLOEXEC, 0));
    if (sys_failed(fd))
        return false;
    long n = sure(proc_fd_path((int)fd, within, sizeof within));
    bool inside = n > 0 && sure(proc_fd_is_at((int)fd, within)) > 0;
    sys(SYS_close, fd);
    if (!inside || strlen(root) + (size_t)n >= size)
        return false;
    say_format(where, size, "%s%s", root, within);
    return true;
}

long call_chroot(struct call *c)
{
    char where[PATH_MAX];
    before_change();
    fd_capture(); /* what was opened in this root directory has a path in it */
    bool known = learn_root((const char *)c->arg[0], where, sizeof where);
    long r = call_raw(c);
    if (sys_failed(r))
        return r;
    if (known)
        say_format(root, sizeof root, "%s", strcmp(where, "/") ? where : "");
    else
        say("where the new root directory is cannot be told; a restart will be in the one before");
    limits_moved();
    credentials_note();
    return r;
}

static void failed(const char *what, long error)
{
    if (sys_failed(error))
        say_die_of(error, "cannot %s as the saved process had it (%s); start it as the same user as before", what,
                   say_error(error));
}

void credentials_resume(void)
{
    if (root[0])
        failed("change the root directory", sys(SYS_chroot, MUTANT("credentials.root_lost", "/", root)));
    credentials_resume_thread();
}

void credentials_resume_thread(void)
{
    struct __user_cap_header_struct header = capability_header();
    if (MUTANT("credentials.lost", true, !changed))
        return;
    bool was_root = sys(SYS_geteuid) == 0;
    if (was_root && supplementary_count >= 0)
        failed("set the groups", sys(SYS_setgroups, supplementary_count, supplementary));
    failed("set the group", sys(SYS_setresgid, groups[0], groups[1], groups[2]));
    if (was_root)
        sys(SYS_prctl, PR_SET_KEEPCAPS, 1, 0, 0, 0);
    failed("set the user", sys(SYS_setresuid, users[0], users[1], users[2]));
    failed("set the capabilities", sys(SYS_capset, &header, capabilities));
    sys(SYS_prctl, PR_SET_KEEPCAPS, 0, 0, 0, 0);
    if (no_new_privs)
        sys(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}
