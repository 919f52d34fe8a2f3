/* Orders of kenrun --chaos: what is read, where one dies of it, and what is told. */
#include "heap/chaos.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdbool.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char order[] = "/tmp/ken-chaos-XXXXXX", report[] = "/tmp/ken-told-XXXXXX";

static void setup(void)
{
    close(mkstemp(order));
    close(mkstemp(report));
}

static void teardown(void)
{
    unlink(order);
    unlink(report);
}

TestSuite(chaos, .init = setup, .fini = teardown);

static void give(const char *text)
{
    FILE *f = fopen(order, "w");
    fputs(text, f);
    fclose(f);
}

/* The status of a process that starts from turn `from` with this order, and comes to these steps, in order; 0: it lives. */
static int run(const char *text, uint64_t from, const enum chaos_step *steps, const uint64_t *turns, int count)
{
    int status;
    give(text);
    pid_t pid = fork();
    if (!pid) {
        struct chaos c;
        chaos_open(&c, order, report, from);
        for (int n = 0; n < count; n++)
            chaos_at(&c, steps[n], turns[n]);
        _exit(0);
    }
    waitpid(pid, &status, 0);
    return status;
}

static const char *told(void)
{
    static char text[200];
    int fd = open(report, O_RDONLY);
    ssize_t n = read(fd, text, sizeof text - 1);
    text[n > 0 ? n : 0] = '\0';
    close(fd);
    return text;
}

static const enum chaos_step steps[] = {CHAOS_ENDED, CHAOS_APPLIED, CHAOS_ENDED, CHAOS_DURABLE, CHAOS_APPLIED, CHAOS_DURABLE};
static const uint64_t turns[] = {7, 7, 8, 8, 8, 9};

Test(chaos, dies_at_the_step_of_the_turn)
{
    cr_assert_eq(run("8:durable", 6, steps, turns, 6), SIGKILL);
    cr_assert_str_eq(told(), "died 8 durable\n");
}

Test(chaos, dies_at_the_first_turn_that_comes_there)
{
    cr_assert_eq(run("2:durable\n", 6, steps, turns, 6), SIGKILL);
    cr_assert_str_eq(told(), "died 8 durable\n");
}

Test(chaos, counts_from_where_the_process_starts)
{
    cr_assert_eq(run("+3:durable", 6, steps, turns, 6), SIGKILL);
    cr_assert_str_eq(told(), "died 9 durable\n");
}

Test(chaos, lives_where_it_never_comes_there)
{
    cr_assert_eq(run("10:durable", 6, steps, turns, 6), 0);
    cr_assert_eq(run("1:leaving", 6, steps, turns, 6), 0);
    cr_assert_eq(run("", 6, steps, turns, 6), 0);
    cr_assert_str_eq(told(), "");
}

Test(chaos, a_process_that_resumes_dies_of_it)
{
    const enum chaos_step resume[] = {CHAOS_RECOVERED, CHAOS_RESUMING};
    const uint64_t from[] = {6, 6};
    cr_assert_eq(run("+0:resuming", 6, resume, from, 2), SIGKILL);
    cr_assert_str_eq(told(), "died 6 resuming\n");
    cr_assert_eq(run("7:resuming", 6, resume, from, 2), 0);
}

Test(chaos, one_that_began_dies_so_that_the_next_resumes)
{
    cr_assert_eq(run("8:recovered", 0, steps, turns, 6), SIGKILL);
    cr_assert_str_eq(told(), "died 8 applied\n");
}

Test(chaos, what_is_no_order_is_refused)
{
    const char *wrong[] = {"8", "8:", "8:nowhere", ":durable", "-1:durable", "+:durable", "8:durables", "1e3:durable",
                           "12345678901234567890:durable"};
    for (size_t n = 0; n < sizeof wrong / sizeof *wrong; n++) {
        int status = run(wrong[n], 0, steps, turns, 6);
        cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 70, "%s", wrong[n]);
    }
    unlink(order);
    struct chaos c;
    chaos_open(&c, NULL, "", 1);
    cr_assert(c.step == CHAOS_NONE && c.fd == -1);
}
