/* Signals and what else belongs to a process besides memory. Commands set one thing, `show` tells all.
 *
 *     raise <n>  block <n>  unblock <n>  ignore <n>  handle <n>    alarm <seconds>
 *     itimer <milliseconds>  stack  cd <dir>  umask <octal>  limit <n>  show */
#include "service.h"

#include <limits.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>

static volatile sig_atomic_t seen[65], on_other_stack;
static char other_stack[65536];

static void handler(int number, siginfo_t *info, void *context)
{
    char here;
    seen[number]++;
    if (number != SIGALRM && &here > other_stack && &here < other_stack + sizeof other_stack)
        on_other_stack++;
    (void)info, (void)context;
}

static void handle(int number)
{
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART};
    sigemptyset(&action.sa_mask);
    if (sigaction(number, &action, NULL) < 0)
        err(1, "sigaction");
}

static void set_mask(int how, int number)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, number);
    sigprocmask(how, &set, NULL);
}

static void show(void)
{
    char text[1500], directory[PATH_MAX];
    int n = 0;
    sigset_t mask, pending;
    struct itimerval timer;
    struct rlimit limit;
    struct sigaction action;
    sigprocmask(SIG_BLOCK, NULL, &mask);
    sigpending(&pending);
    for (int i = 1; i < 32; i++) {
        if (i == SIGKILL || i == SIGSTOP || i == SIGALRM)
            continue; /* how often the alarm rang depends on the time */
        sigaction(i, NULL, &action);
        const char *how = action.sa_handler == SIG_IGN ? "i" : action.sa_handler == SIG_DFL ? "" : "h";
        if (*how || seen[i] || sigismember(&mask, i) || sigismember(&pending, i))
            n += snprintf(text + n, sizeof text - n, "%d%s%d%s%s ", i, how, seen[i],
                          sigismember(&mask, i) ? "b" : "", sigismember(&pending, i) ? "p" : "");
    }
    getitimer(ITIMER_REAL, &timer);
    getrlimit(RLIMIT_NOFILE, &limit);
    mode_t mode = umask(0);
    umask(mode);
    stack_t stack;
    sigaltstack(NULL, &stack);
    n += snprintf(text + n, sizeof text - n, "timer %ld umask %03o limit %lu stack %d/%d cwd %s",
                  (long)timer.it_interval.tv_usec, mode, (unsigned long)limit.rlim_cur,
                  stack.ss_flags == SS_DISABLE, on_other_stack > 0,
                  strrchr(getcwd(directory, sizeof directory), '/'));
    service_answer("%s", text);
}

int main(int argc, char **argv)
{
    service_open(atoi(argc > 1 ? argv[1] : "7777"));
    handle(SIGALRM);
    for (;;) {
        char *command = service_next(), verb[16] = "", argument[512] = "";
        sscanf(command, "%15s %511s", verb, argument);
        int n = atoi(argument);
        if (!strcmp(verb, "raise"))
            kill(getpid(), n);
        else if (!strcmp(verb, "block"))
            set_mask(SIG_BLOCK, n);
        else if (!strcmp(verb, "unblock"))
            set_mask(SIG_UNBLOCK, n);
        else if (!strcmp(verb, "ignore"))
            signal(n, SIG_IGN);
        else if (!strcmp(verb, "handle"))
            handle(n);
        else if (!strcmp(verb, "alarm"))
            alarm(n);
        else if (!strcmp(verb, "itimer")) {
            struct itimerval timer = {{0, n * 1000}, {0, n * 1000}};
            setitimer(ITIMER_REAL, &timer, NULL);
        } else if (!strcmp(verb, "stack")) {
            stack_t stack = {.ss_sp = other_stack, .ss_size = sizeof other_stack};
            sigaltstack(&stack, NULL);
        } else if (!strcmp(verb, "cd")) {
            if (chdir(argument) < 0)
                warn("%s", argument);
        } else if (!strcmp(verb, "umask"))
            umask(strtol(argument, NULL, 8));
        else if (!strcmp(verb, "limit")) {
            struct rlimit limit = {n, 4096};
            setrlimit(RLIMIT_NOFILE, &limit);
        } else if (!strcmp(verb, "rings")) {
            service_answer("%d", seen[SIGALRM] > 0);
            continue;
        }
        show();
    }
}
