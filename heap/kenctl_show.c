/* What a store holds: kenctl show, turn, check, backtrace. */
#include "heap/kenctl.h"
#include "heap/kenctl_saved.h"
#include "heap/kenctl_unwind.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

enum { TRIES = 10 };

/* Opens the one store that the command takes; 0 or the exit status. */
static int open_store(struct saved *s, const char *command, int argc, char **argv, bool must_exist)
{
    if (argc != 1)
        return ctl_fail(CTL_USAGE, "%s takes the directory of one store", command);
    if (!saved_open(s, argv[0]))
        return 1;
    if (must_exist && s->store.directory_fd < 0)
        return ctl_fail(1, "there is no store %s", argv[0]);
    return 0;
}

int ctl_turn(int argc, char **argv)
{
    struct saved s;
    int error = open_store(&s, "turn", argc, argv, false);
    if (error)
        return error;
    printf("%" PRIu64 "\n", s.empty ? 0 : s.meta->turn);
    saved_close(&s);
    return 0;
}

/* While its program commits, a store is read in the middle of changes: it is looked at again. */
int ctl_check(int argc, char **argv)
{
    for (int i = 1;; i++) {
        struct saved s;
        int error = open_store(&s, "check", argc, argv, true);
        if (error)
            return error;
        unsigned wrong = s.empty ? 0 : saved_check(&s, false);
        bool moving = wrong && saved_went_on(&s);
        if (wrong && !moving)
            saved_check(&s, true);
        else if (!wrong)
            printf("%s: %s\n", s.store.path, s.empty ? "no turn was committed yet" : "nothing is wrong");
        else if (i == TRIES)
            printf("%s: the log is whole; for the rest its program commits too often\n", s.store.path);
        saved_close(&s);
        if (!moving || i == TRIES)
            return wrong && !moving;
    }
}

static void print_size(const char *label, uint64_t bytes)
{
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
    double size = (double)bytes;
    size_t unit = 0;
    for (; size >= 1024 && unit < 4; unit++)
        size /= 1024;
    printf("%s%.*f %s", label, unit ? 1 : 0, size, units[unit]);
}

static uint64_t bytes_on_disk(const struct saved *s, const char *name)
{
    struct stat st;
    return fstatat(s->store.directory_fd, name, &st, 0) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
}

static void print_time(const char *label, uint64_t ns)
{
    char text[64];
    time_t seconds = (time_t)(ns / 1000000000u);
    struct tm tm;
    if (localtime_r(&seconds, &tm) && strftime(text, sizeof text, "%F %T", &tm))
        printf("%s%s", label, text);
}

static void print_age(uint64_t ns)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    int64_t age = now.tv_sec - (int64_t)(ns / 1000000000u);
    if (age < 0)
        age = 0;
    if (age < 120)
        printf("age: %" PRId64 " s\n", age);
    else if (age < 7200)
        printf("age: %" PRId64 " min\n", age / 60);
    else if (age < 172800)
        printf("age: %" PRId64 " h\n", age / 3600);
    else
        printf("age: %" PRId64 " days\n", age / 86400);
}

static void print_state(const struct saved *s)
{
    if (s->empty && s->holder)
        printf("state: starting, process %d; no turn was committed yet", (int)s->holder);
    else if (s->empty)
        printf("state: empty, no turn was committed yet");
    else if (s->meta->state == RUN_FINISHED)
        printf("state: finished, status %d", s->meta->exit_status);
    else if (s->holder)
        printf("state: running, process %d", (int)s->holder);
    else
        printf("state: stopped%s; the same command resumes it",
               s->meta->state == RUN_EXITING ? " while it exited" : "");
    putchar('\n');
}

static void print_memory(const struct saved *s)
{
    uint64_t pages = 0;
    for (uint32_t i = 0; i < s->meta->chunks; i++)
        pages += s->chunks[i].pages;
    print_size("memory: ", pages * 4096);
    printf(" in %" PRIu64 " pages, %u mappings of %u files\n", pages, s->meta->areas, s->meta->files);
}

int ctl_show(int argc, char **argv)
{
    struct saved s;
    int error = open_store(&s, "show", argc, argv, true);
    if (error)
        return error;
    printf("store: %s\n", s.store.path);
    if (!s.empty)
        printf("program: %.*s\n", (int)sizeof s.meta->program, s.meta->program);
    if (s.store.super.command[0])
        printf("command: %.*s\n", (int)sizeof s.store.super.command, s.store.super.command);
    if (s.store.super.executable[0])
        printf("executable: %.*s\n", (int)sizeof s.store.super.executable, s.store.super.executable);
    print_state(&s);
    if (!s.empty) {
        printf("turn: %" PRIu64 "\n", s.meta->turn);
        print_time("committed: ", s.meta->committed_ns);
        putchar('\n');
        print_age(s.meta->committed_ns);
        print_memory(&s);
        saved_print_descriptors(&s);
    }
    if (bytes_on_disk(&s, "unsent"))
        print_size("left for peers: ", bytes_on_disk(&s, "unsent")), putchar('\n');
    print_size("disk: image ", bytes_on_disk(&s, "image"));
    print_size(", log ", bytes_on_disk(&s, "log.0") + bytes_on_disk(&s, "log.1"));
    printf(" (%ld records)\n", s.records);
    if (s.store.super.created_ns) {
        print_time("begun: ", s.store.super.created_ns);
        printf(", on Linux %.*s\n", (int)sizeof s.store.super.kernel, s.store.super.kernel);
    }
    saved_close(&s);
    return 0;
}
