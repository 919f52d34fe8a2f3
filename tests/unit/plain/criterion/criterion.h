/* As much of Criterion as tests of threads need, for the thread sanitizer: Criterion itself cannot run under it (its arenas
 * lie where the sanitizer's shadow is). Each test is a process of its own, one after the other. */
#ifndef KEN_TESTS_PLAIN_CRITERION_H
#define KEN_TESTS_PLAIN_CRITERION_H

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

struct plain_test {
    const char *name;
    void (*run)(void);
    void (*init)(void);
    int signal; /* that the test has to die of */
    struct plain_test *next;
};

static struct plain_test *plain_tests, **plain_last = &plain_tests;

#define Test(suite, test, ...)                                                                                         \
    static void test##_run(void);                                                                                      \
    __attribute__((constructor)) static void test##_add(void)                                                          \
    {                                                                                                                  \
        static struct plain_test t = {.name = #suite "::" #test, .run = test##_run, ##__VA_ARGS__};                    \
        *plain_last = &t;                                                                                              \
        plain_last = &t.next;                                                                                          \
    }                                                                                                                  \
    static void test##_run(void)

#define cr_assert(condition, ...)                                                                                      \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: Assertion Failed: %s\n", __FILE__, __LINE__, #condition);                          \
            _exit(1);                                                                                                  \
        }                                                                                                              \
    } while (0)
#define cr_assert_eq(a, b, ...) cr_assert((a) == (b))
#define cr_assert_null(a, ...) cr_assert((a) == NULL)
#define cr_redirect_stderr NULL
#define PLAIN_SKIP 77
#define cr_skip_test(reason)                                                                                           \
    do {                                                                                                               \
        printf("SKIP %s: %s\n", __func__, reason);                                                                     \
        fflush(stdout);                                                                                                \
        _exit(PLAIN_SKIP);                                                                                             \
    } while (0)

enum { PLAIN_GOOD, PLAIN_BAD, PLAIN_SKIPPED };

static int plain_run(const struct plain_test *t)
{
    int status = 0;
    pid_t pid = fork();
    if (pid == 0) {
        if (t->init)
            t->init();
        t->run();
        exit(0); /* the sanitizer's verdict becomes the status */
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        return PLAIN_BAD;
    if (WIFEXITED(status) && WEXITSTATUS(status) == PLAIN_SKIP)
        return PLAIN_SKIPPED;
    int good = t->signal ? WIFSIGNALED(status) && WTERMSIG(status) == t->signal : status == 0;
    if (!good)
        printf("[FAIL] %s: status %x\n", t->name, (unsigned)status);
    return good ? PLAIN_GOOD : PLAIN_BAD;
}

int main(void)
{
    int count[3] = {0, 0, 0};
    for (struct plain_test *t = plain_tests; t; t = t->next)
        count[plain_run(t)]++;
    printf("%d passed, %d failed, %d skipped\n", count[PLAIN_GOOD], count[PLAIN_BAD], count[PLAIN_SKIPPED]);
    return count[PLAIN_BAD] != 0;
}

#endif
