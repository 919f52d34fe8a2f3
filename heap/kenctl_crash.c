/* kenctl crash: the backtrace of a process that is dying of a signal, taken from outside.
 *
 * libken's handler for fatal signals starts this as a child and waits for it, so the thread stands
 * still inside that handler. Rules: never hang (an alarm ends it), never leave the process stopped
 * (the kernel detaches when we exit, however that happens), and say the first line even if nothing else works.
 */
#include "heap/kenctl.h"
#include "heap/kenctl_frames.h"

#include <errno.h>
#include <inttypes.h>
#include <libunwind-ptrace.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    SECONDS_MOST = 5,
    HANDLER_MOST = 32, /* frames of libken's handler above the program's own */
};

/* What was found so far; the alarm prints it. */
static struct {
    int out, signal, pid;
    struct frame frames[FRAMES_MOST + HANDLER_MOST];
    size_t count;
    bool whole; /* the outermost frame was reached */
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

static bool in_libken(const struct frame *frame)
{
    const struct object *object = objects_find(&crash.objects, frame->ip);
    return object && strncmp(object->name, "libken.so", 9) == 0;
}

/* Index of the first frame that is the program's. Above it stands the handler that called us, down to
 * the kernel's signal frame. After abort() there may be a second such layer: raise() made a
 * system call, which libken carried out within its SIGSYS handler. A fault *in* libken keeps its frames. */
static size_t first_of_program(void)
{
    size_t first = 0;
    for (size_t i = 0; i < crash.count && !first; i++)
        if (crash.frames[i].signal)
            first = i + 1;
    if (crash.signal != SIGABRT && crash.signal != SIGSYS)
        return first;
    for (size_t i = first; i < crash.count; i++) {
        if (crash.frames[i].signal)
            return i + 1;
        if (!in_libken(&crash.frames[i]))
            break;
    }
    return first;
}

static void print_frames(void)
{
    size_t first = first_of_program();
    for (size_t i = first; i < crash.count && i - first < FRAMES_MOST; i++)
        frame_print(crash.out, prefix, (unsigned)(i - first), &crash.frames[i], &crash.objects);
    if (crash.count - first >= FRAMES_MOST && !crash.whole)
        dprintf(crash.out, "%s  (and more)\n", prefix);
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

/* True at the code that a signal handler returns to: mov $15, %rax or %eax; syscall. (unw_is_signal_frame()
 * means this frame in some versions of libunwind, and the one it interrupted in others.) */
static bool is_signal_return(unw_addr_space_t space, void *process, uint64_t ip)
{
    static const unsigned char forms[][9] = {{0x48, 0xc7, 0xc0, 15, 0, 0, 0, 0x0f, 0x05},
                                             {0xb8, 15, 0, 0, 0, 0x0f, 0x05}};
    unw_word_t code[2];
    unw_accessors_t *access = unw_get_accessors(space);
    if (access->access_mem(space, ip, &code[0], 0, process) < 0 ||
        access->access_mem(space, ip + sizeof code[0], &code[1], 0, process) < 0)
        return false;
    return memcmp(code, forms[0], 9) == 0 || memcmp(code, forms[1], 7) == 0;
}

/* Walks the stack of the stopped thread. Every step must change the frame, and the number of steps is bounded. */
static int unwind(int tid)
{
    unw_addr_space_t space = unw_create_addr_space(&_UPT_accessors, 0);
    void *process = _UPT_create(tid);
    unw_cursor_t cursor;
    if (!space || !process)
        return -ENOMEM;
    unw_set_caching_policy(space, UNW_CACHE_GLOBAL);
    int result = unw_init_remote(&cursor, space, process);
    uint64_t last_ip = 0, last_sp = 0;
    bool exact = true;
    while (result >= 0 && crash.count < sizeof crash.frames / sizeof *crash.frames) {
        unw_word_t ip = 0, sp = 0;
        if (unw_get_reg(&cursor, UNW_REG_IP, &ip) < 0 || unw_get_reg(&cursor, UNW_REG_SP, &sp) < 0)
            break;
        if (ip == 0 || (crash.count && ip == last_ip && sp == last_sp)) {
            crash.whole = true;
            break;
        }
        bool signal_frame = is_signal_return(space, process, ip);
        crash.frames[crash.count++] =
            (struct frame){.ip = ip, .exact = exact || signal_frame, .signal = signal_frame};
        exact = signal_frame;
        last_ip = ip;
        last_sp = sp;
        result = unw_step(&cursor);
        crash.whole = result == 0;
        if (result == 0)
            break;
    }
    _UPT_destroy(process);
    unw_destroy_addr_space(space);
    return crash.count ? 0 : result;
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
