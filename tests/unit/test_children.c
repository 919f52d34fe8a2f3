/* Children that ended with an earlier incarnation, and those that are there. */
#include "shim_signals.h"
#include "shim/process.h"

#include <sys/wait.h>
#include <unistd.h>

static pid_t child_that(int code, int milliseconds)
{
    pid_t pid = fork();
    if (pid == 0) {
        usleep((useconds_t)milliseconds * 1000);
        _exit(code);
    }
    children_add(pid);
    return pid;
}

static long wait_for(long pid, int *status, int options)
{
    return RUN(call_wait4, SYS_wait4, pid, (long)status, options, 0);
}

Test(children, living_ones_are_the_kernels, .timeout = 5)
{
    int status;
    pid_t pid = child_that(3, 20);
    cr_expect_eq(wait_for(-1, &status, WNOHANG), 0);
    cr_expect_eq(turns_ended, 0);
    cr_expect_eq(wait_for(-1, &status, 0), pid);
    cr_expect_eq(turns_ended, 1);
    cr_expect_eq(WEXITSTATUS(status), 3);
    cr_expect_eq(wait_for(-1, &status, 0), -ECHILD);
    cr_expect_not(children_resume(false), "it was taken out");
}

Test(children, those_of_the_last_incarnation_were_killed)
{
    int status;
    children_add(400000001);
    children_add(400000002);
    cr_expect_eq(wait_for(-1, &status, 0), -ECHILD);
    cr_assert(children_resume(false));
    cr_expect_eq(wait_for(400000002, &status, 0), 400000002);
    cr_expect(WIFSIGNALED(status));
    cr_expect_eq(WTERMSIG(status), SIGKILL);
    cr_expect_eq(RUN(call_kill, SYS_kill, 400000001, SIGTERM), 0, "a zombie hears everything");
    cr_expect_eq(wait_for(400000002, &status, 0), -ECHILD);
    cr_expect_eq(wait_for(-1, &status, WNOHANG), 400000001);
    cr_expect_eq(wait_for(-1, &status, WNOHANG), -ECHILD);
}

Test(children, the_dead_are_found_among_the_living, .timeout = 5)
{
    int status;
    children_add(400000001);
    children_resume(false);
    pid_t pid = child_that(0, 30);
    cr_expect_eq(wait_for(-1, &status, 0), 400000001);
    cr_expect_eq(wait_for(-1, &status, 0), pid);
}

Test(children, waitid_tells_the_same)
{
    siginfo_t info = {0};
    children_add(400000001);
    children_resume(false);
    cr_assert_eq(RUN(call_waitid, SYS_waitid, P_ALL, 0, (long)&info, WEXITED | WNOWAIT, 0), 0);
    cr_expect_eq(info.si_pid, 400000001);
    cr_expect_eq(info.si_code, CLD_KILLED);
    cr_expect_eq(info.si_status, SIGKILL);
    cr_assert_eq(RUN(call_waitid, SYS_waitid, P_PID, 400000001, (long)&info, WEXITED, 0), 0);
    cr_expect_eq(RUN(call_waitid, SYS_waitid, P_ALL, 0, (long)&info, WEXITED, 0), -ECHILD);
}

Test(children, the_kernel_reaps_for_those_who_ignore)
{
    children_add(400000001);
    cr_expect_not(children_resume(true));
    cr_expect_eq(children_dead(-1), 0);
}

Test(children, a_full_table_forgets_the_rest)
{
    for (int i = 0; i < CHILDREN_MAX + 3; i++)
        children_add(400000000 + i);
    children_resume(false);
    cr_expect_eq(children_dead(400000000 + CHILDREN_MAX - 1), 400000000 + CHILDREN_MAX - 1);
    cr_expect_eq(children_dead(400000000 + CHILDREN_MAX), 0);
}

/* A fork is a new process with the old memory: as close to a restore as a unit test gets. */
Test(children, the_pid_stays_the_first_incarnations, .timeout = 5)
{
    process_boot();
    long first = process_virtual_pid();
    cr_expect_eq(RUN(call_getpid, SYS_getpid, 0), first);
    pid_t pid = fork();
    if (pid == 0) {
        process_resume();
        bool right = RUN(call_getpid, SYS_getpid, 0) == first &&
                     RUN(call_gettid, SYS_gettid, 0) == first &&
                     process_real_pid(first) == getpid() && process_known_pid(getpid()) == first &&
                     process_real_pid(1) == 1;
        RUN(call_tgkill, SYS_tgkill, first, first, right ? SIGTERM : SIGKILL);
        _exit(1);
    }
    int status;
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert(WIFSIGNALED(status));
    cr_expect_eq(WTERMSIG(status), SIGTERM);
}
