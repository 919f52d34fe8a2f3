/* Directory, umask, limits and name of the new process are those of the old one. */
#define _GNU_SOURCE /* setresuid */
#include "shim_signals.h"
#include "shim/call_limits.h"
#include "shim/process.h"

#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* What a new process would start with. */
static void forget(void)
{
    cr_assert_eq(chdir("/"), 0);
    umask(0);
    prctl(PR_SET_NAME, "other");
}

Test(call_limits, what_the_program_set_comes_back)
{
    struct rlimit mine = {.rlim_cur = 500, .rlim_max = 600}, now,
                  other = {.rlim_cur = 400, .rlim_max = 600};
    char where[256], name[16];
    process_boot();
    limits_boot();
    cr_assert_eq(RUN(call_chdir, SYS_chdir, (long)"/usr/lib"), 0);
    RUN(call_umask, SYS_umask, 027);
    cr_assert_eq(RUN(call_prlimit64, SYS_prlimit64, 0, RLIMIT_NOFILE, (long)&mine, 0), 0);
    cr_assert_eq(RUN(call_prctl, SYS_prctl, PR_SET_NAME, (long)"worker"), 0);
    limits_capture();
    forget();
    setrlimit(RLIMIT_NOFILE, &other);
    limits_resume(0);
    cr_expect_str_eq(getcwd(where, sizeof where), "/usr/lib");
    cr_expect_eq(umask(0), 027);
    getrlimit(RLIMIT_NOFILE, &now);
    cr_expect_eq(now.rlim_cur, 500);
    prctl(PR_GET_NAME, name);
    cr_expect_str_eq(name, "worker");
}

/* The kernel's limit is not lowered, what the program sees is what it set, also in a new process; a
 * child has that one. */
Test(call_limits, a_hard_limit_on_descriptors_leaves_room_beyond_it)
{
    struct rlimit first = {.rlim_cur = 500, .rlim_max = 900},
                  low = {.rlim_cur = 300, .rlim_max = 300}, now,
                  high = {.rlim_cur = 300, .rlim_max = 301};
    getrlimit(RLIMIT_NOFILE, &now);
    now.rlim_max++;
    bool may_raise = !setrlimit(RLIMIT_NOFILE, &now); /* root, unless a container took that from it */
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &first), 0);
    process_boot();
    limits_boot();
    cr_assert_eq(RUN(call_setrlimit, SYS_setrlimit, RLIMIT_NOFILE, (long)&low), 0);
    for (int twice = 0; twice < 2; twice++) {
        getrlimit(RLIMIT_NOFILE, &now);
        cr_expect(now.rlim_cur == 300 && now.rlim_max == 900, "the kernel's: %lu %lu", now.rlim_cur,
                  now.rlim_max);
        cr_assert_eq(RUN(call_getrlimit, SYS_getrlimit, RLIMIT_NOFILE, (long)&now), 0);
        cr_expect(now.rlim_cur == 300 && now.rlim_max == 300, "the program's: %lu %lu",
                  now.rlim_cur, now.rlim_max);
        setrlimit(RLIMIT_NOFILE, &first);
        limits_resume(0);
    }
    cr_expect_eq(RUN(call_getrlimit, SYS_getrlimit, RLIMIT_NOFILE, 0), -EFAULT);
    cr_expect_eq(RUN(call_setrlimit, SYS_setrlimit, RLIMIT_NOFILE, 0), -EFAULT);
    cr_expect_eq(RUN(call_getrlimit, SYS_getrlimit, RLIM_NLIMITS, (long)&now), -EINVAL);
    if (may_raise) {
        cr_expect_eq(RUN(call_setrlimit, SYS_setrlimit, RLIMIT_NOFILE, (long)&high), 0);
        cr_assert_eq(RUN(call_prlimit64, SYS_prlimit64, 0, RLIMIT_NOFILE, (long)&low, (long)&now),
                     0);
        cr_expect_eq(now.rlim_max, 301, "what it was before, as it was told");
        cr_assert_eq(setresuid(65534, 65534, 65534), 0);
    }
    cr_expect_eq(RUN(call_setrlimit, SYS_setrlimit, RLIMIT_NOFILE, (long)&high), -EPERM);
    limits_give_back();
    getrlimit(RLIMIT_NOFILE, &now);
    cr_expect(now.rlim_cur == 300 && now.rlim_max == 300, "a child's: %lu %lu", now.rlim_cur,
              now.rlim_max);
}

Test(call_limits, what_it_started_with_comes_back_too)
{
    char where[256];
    umask(031);
    cr_assert_eq(chdir("/usr"), 0);
    limits_boot();
    cr_expect_eq(umask(031), 031, "looking at it changed nothing");
    limits_capture();
    forget();
    limits_resume(0);
    cr_expect_str_eq(getcwd(where, sizeof where), "/usr");
    cr_expect_eq(umask(0), 031);
}

Test(call_limits, a_call_that_failed_counts_for_nothing)
{
    char where[256];
    struct rlimit bad = {.rlim_cur = 600, .rlim_max = 500}, now, before;
    cr_assert_eq(chdir("/usr"), 0);
    limits_boot();
    getrlimit(RLIMIT_NOFILE, &before);
    cr_expect_eq(RUN(call_chdir, SYS_chdir, (long)"/nowhere"), -ENOENT);
    cr_expect_eq(RUN(call_setrlimit, SYS_setrlimit, RLIMIT_NOFILE, (long)&bad), -EINVAL);
    limits_capture();
    forget();
    limits_resume(0);
    cr_expect_str_eq(getcwd(where, sizeof where), "/usr");
    getrlimit(RLIMIT_NOFILE, &now);
    cr_expect_eq(now.rlim_cur, before.rlim_cur);
}

Test(call_limits, a_limit_that_is_too_high_now_is_taken_as_far_as_it_goes)
{
    struct rlimit high, low, now;
    getrlimit(RLIMIT_CORE, &high);
    if (high.rlim_max != RLIM_INFINITY)
        cr_skip_test("the limit is low already");
    high.rlim_cur = 1 << 20;
    process_boot();
    cr_assert_eq(RUN(call_setrlimit, SYS_setrlimit, RLIMIT_CORE, (long)&high), 0);
    low = (struct rlimit){.rlim_cur = 0, .rlim_max = 4096};
    setrlimit(RLIMIT_CORE, &low);
    if (geteuid() == 0 && setresuid(65534, 65534, 65534))
        cr_skip_test("root may raise any limit");
    limits_boot();
    limits_resume(0);
    getrlimit(RLIMIT_CORE, &now);
    cr_expect_eq(now.rlim_cur, 4096);
}
