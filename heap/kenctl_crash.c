/* kenctl crash: the backtrace of a process that is dying of a signal, taken from outside.
 *
 * libken's handler for fatal signals starts this as a child and waits for it, so the thread stands
 * still inside that handler. Rules: never hang (an alarm ends it), never leave the process stopped
 * (the kernel detaches when we exit, however that happens), and say the first line even if nothing else works.
 */
#include "heap/kenctl.h"
#include "heap/kenctl_saved.h"
#include "heap/kenctl_unwind.h"

#include <errno.h>
#include <inttypes.h>
#include <libunwind-ptrace.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SECONDS_MOST = 5 };

/* What was found so far; the alarm prints it. */
static struct {
    int out, signal, pid;
    struct stack stack;
    struct objects objects;
} crash;

static const char prefix[] = "ken: ";

static void print_first_line(const char *turn)
{
    char name[64] = "?", path[64];
    snprintf(path, sizeof path, "/proc/%d/comm", crash.pid);
    FILE *comm = fopen(path, "re");
    if (comm) {
        if (fgets(name, sizeof name, comm))
            name[strcspn(name, "\n")] = '\0';
        fclose(comm);
    }
    const char *abbreviation = sigabbrev_np(crash.signal);
    char signal_name[32];
    if (abbreviation)
        snprintf(signal_name, sizeof signal_name, "SIG%s", abbreviation);
    else
        snprintf(signal_name, sizeof signal_name, "signal %d", crash.signal);
    bool known = *turn >= '0' && *turn <= '9';
    dprintf(crash.out, "%s%s%s%s, program %s (pid %d)\n", prefix, signal_name,
            known ? " in turn " : "", known ? turn : "", name, crash.pid);
}

static void print_frames(void)
{
    size_t first = stack_below_signal(&crash.stack, &crash.objects);
    stack_print(crash.out, prefix, &crash.stack, first, &crash.objects);
}

/* The alarm, or a fault of our own over a broken stack or file: tell what is known, and go. */
static void give_up(int signal_number)
{
    static volatile sig_atomic_t printing;
    if (!printing++)
        print_frames();
    static const char late[] = "ken:   (the rest took too long)\n";
    static const char fault[] = "ken:   (the rest could not be read)\n";
    ssize_t ignored = signal_number == SIGALRM ? write(crash.out, late, sizeof late - 1)
                                               : write(crash.out, fault, sizeof fault - 1);
    (void)ignored;
    _exit(1);
}

/* The dying process hands down its mask and dispositions; none of them may hold us up. */
static void guard(void)
{
    static const int ours[] = {SIGALRM, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
    sigset_t none;
    sigemptyset(&none);
    for (size_t i = 0; i < sizeof ours / sizeof *ours; i++) {
        struct sigaction action = {.sa_handler = give_up, .sa_flags = SA_NODEFER};
        sigaction(ours[i], &action, NULL);
    }
    signal(SIGPIPE, SIG_IGN);
    signal(SIGCHLD, SIG_DFL);
    sigprocmask(SIG_SETMASK, &none, NULL);
    alarm(SECONDS_MOST);
}

static int attach(int tid)
{
    if (ptrace(PTRACE_SEIZE, tid, 0, 0) != 0)
        return -errno;
    if (ptrace(PTRACE_INTERRUPT, tid, 0, 0) != 0)
        return -errno;
    int status;
    while (waitpid(tid, &status, __WALL) != tid) {
        if (errno != EINTR)
            return -errno;
    }
    return WIFSTOPPED(status) ? 0 : -ESRCH;
}

static int unwind(int tid)
{
    void *process = _UPT_create(tid);
    if (!process)
        return -ENOMEM;
    int result = stack_walk(&crash.stack, &_UPT_accessors, process);
    _UPT_destroy(process);
    return result ? -EIO : 0;
}

static bool is_number(const char *text, int *value)
{
    char *end;
    errno = 0;
    long number = strtol(text, &end, 10);
    *value = (int)number;
    return *text && !*end && !errno && number >= 0 && number <= 0x7fffffff;
}

int ctl_crash(int argc, char **argv)
{
    int tid;
    crash.out = 2;
    if (argc < 4 || argc > 5 || !is_number(argv[0], &crash.pid) || !is_number(argv[1], &tid) ||
        !is_number(argv[2], &crash.signal) || (argc == 5 && !is_number(argv[4], &crash.out)))
        return ctl_fail(CTL_USAGE, "crash takes PID TID SIGNAL TURN [FD]");
    guard();
    print_first_line(argv[3]);
    int error = attach(tid);
    if (!error) {
        error = objects_of_process(&crash.objects, crash.pid);
        if (!error)
            error = unwind(tid);
        saved_name_pins(&crash.objects);
        ptrace(PTRACE_DETACH, tid, 0, 0);
    }
    if (error) {
        dprintf(crash.out, "%s  (no backtrace: %s)\n", prefix, strerror(-error));
        return 1;
    }
    print_frames();
    objects_free(&crash.objects);
    return 0;
}
