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
