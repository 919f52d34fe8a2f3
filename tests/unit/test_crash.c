/* A fatal signal: who is told what, and that the process dies by it all the same. */
#include "shim_signals.h"
#include "shim/crash.h"

#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char printed[4096];
static pid_t victim;

/* Runs `how` in a child, with its stderr taken; returns the signal that it died of, 0 if it did
 * not. */
static int death(const char *helper, void (*how)(void))
{
    int ends[2], status;
    size_t length = 0;
    cr_assert_eq(pipe(ends), 0);
    victim = fork();
    if (victim == 0) {
        setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
        dup2(ends[1], 2);
        signal_boot();
        crash_helper(helper);
        how();
        _exit(0);
    }
    close(ends[1]);
    for (ssize_t n; (n = read(ends[0], printed + length, sizeof printed - 1 - length)) > 0;)
        length += (size_t)n;
    printed[length] = 0;
    close(ends[0]);
    cr_assert_eq(waitpid(victim, &status, 0), victim);
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static char path[64];

static const char *helper_that(const char *script)
{
    snprintf(path, sizeof path, "/tmp/ken-crash-%d", getpid());
    FILE *f = fopen(path, "w");
    cr_assert(f);
    fprintf(f, "#!/bin/sh\n%s\n", script);
    fclose(f);
    cr_assert_eq(chmod(path, 0700), 0);
    return path;
}

static void remove_helper(void)
{
    unlink(path);
}

static void fault(void)
{
    volatile uintptr_t nowhere = 0x20;
    *(volatile int *)nowhere = 1;
}

static void aborted(void)
{
    raise(SIGABRT);
}

static void killed_from_outside(void)
{
    kill(getpid(), SIGBUS);
}

static void terminated(void)
{
    raise(SIGTERM);
}

static void handle_it(int signal)
{
    (void)signal;
    _exit(0);
}

static void fault_with_a_handler(void)
{
    struct signal_action a = {.handler = (uintptr_t)handle_it};
    RUN(call_rt_sigaction, SYS_rt_sigaction, SIGSEGV, (long)&a, 0, 8);
    fault();
}

static int depth;

static int deeper(int n)
{
    volatile char frame[4096];
    frame[0] = (char)n;
    return depth < 0 ? 0 : deeper(n + 1) + frame[0];
}

static void overflow(void)
{
    deeper(0);
}

Test(crash, the_helper_is_told_who_and_why, .timeout = 10, .fini = remove_helper)
{
    char expected[64];
    cr_expect_eq(death(helper_that("echo \"$@\" >&2"), fault), SIGSEGV);
    snprintf(expected, sizeof expected, "crash %d %d %d 42\n", victim, victim, SIGSEGV);
    cr_expect_str_eq(printed, expected);
    cr_expect_eq(death(path, aborted), SIGABRT);
    snprintf(expected, sizeof expected, "crash %d %d %d 42\n", victim, victim, SIGABRT);
    cr_expect_str_eq(printed, expected);
    cr_expect_eq(death(path, killed_from_outside), SIGBUS);
    cr_expect_eq(death(path, overflow), SIGSEGV);
    cr_expect(strstr(printed, " 11 42\n"), "also when the stack is full");
}

Test(crash, the_process_waits_for_the_helper, .timeout = 10, .fini = remove_helper)
{
    cr_expect_eq(death(helper_that("sleep 0.2; kill -0 $2 && echo alive >&2"), fault), SIGSEGV);
    cr_expect_str_eq(printed, "alive\n");
}

Test(crash, without_a_helper_there_is_one_line, .timeout = 10, .fini = remove_helper)
{
    cr_expect_eq(death(NULL, fault), SIGSEGV);
    cr_expect(strstr(printed, "ken: SIGSEGV in turn 42 at ip 0x"));
    cr_expect(strstr(printed, "address 0x20\n"));
    cr_expect_eq(death("/nowhere/kenctl", aborted), SIGABRT);
    cr_expect(strstr(printed, "ken: SIGABRT in turn 42"));
    cr_expect_eq(death(helper_that("exit 1"), fault), SIGSEGV);
    cr_expect(strstr(printed, "ken: SIGSEGV in turn 42"), "a helper that failed is none");
}

Test(crash, others_are_left_alone, .timeout = 10)
{
    cr_expect_eq(death(NULL, terminated), SIGTERM);
    cr_expect_str_eq(printed, "");
    cr_expect_eq(death(NULL, fault_with_a_handler), 0);
    cr_expect_str_eq(printed, "");
}
