#include "shim/credentials.h"
#include "heap/room.h"
#include "heap/say.h"
#include "heap/session.h"
#include "shim/heir.h"
#include "shim/turn.h"

#include <linux/capability.h>
#include <limits.h>
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

/* The path is kept as it is called from outside; a second change goes on from the first. */
long call_chroot(struct call *c)
{
    char link[64], where[PATH_MAX];
    before_change();
    long fd = sys_fd(SYS_open, c->arg[0], 010000000 /* O_PATH */ | 02000000 /* O_CLOEXEC */, 0);
    long n = -1;
    if (fd >= 0) {
        say_format(link, sizeof link, "/proc/self/fd/%ld", fd);
        n = sys(SYS_readlink, link, where, sizeof where - 1);
        sys(SYS_close, fd);
    }
    long r = call_raw(c);
    if (sys_failed(r))
        return r;
    if (n <= 0 || root[0])
        say("the second change of the root directory cannot be kept; a restart will be in the first");
    else
        say_format(root, sizeof root, "%s", (where[n] = '\0', where));
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
    struct __user_cap_header_struct header = capability_header();
    if (!changed)
        return;
    if (root[0])
        failed("change the root directory", sys(SYS_chroot, root));
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
