/* Files that lose their names while they are open: nameless DIRECTORY PORT [USER]
 *
 *     tmp      one more line in a file by tmpfile(); its lines are counted
 *     gone     the same in one that was made, and unlinked a turn later
 *     moved    the same in a log that is moved aside each time, and found again by its second name
 *     over     the same in one that another file is renamed over; then the new one is read by its name
 *     mapped   a counter in a file that is mapped shared, closed and unlinked
 *     inside   the same in a file in a directory that gets another name each time, as does a counter there that is mapped shared
 *     steady   the same in one whose name stays, unless somebody else changes it
 *     anew     all are closed
 * Lines are written at the place where the last one ended, not appended. With USER, a number, it becomes that one first. */
#define _GNU_SOURCE
#include "service.h"

#include <fcntl.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/stat.h>

static FILE *tmp;
static long tmp_end;
static int gone = -1, moved = -1, over = -1, inside = -1, steady = -1;
static bool aside, elsewhere;
static off_t moved_end, over_end, gone_end, inside_end, steady_end;
static unsigned long *mapped, *beside;

static long sure(long result, const char *what)
{
    if (result < 0)
        err(1, "%s", what);
    return result;
}

/* Adds a line at *end; answers how many there are, and whether they are right. */
static void add_line(const char *what, int fd, off_t *end)
{
    char text[65536];
    int n = snprintf(text, sizeof text, "%lu\n", service.number);
    *end += sure(pwrite(fd, text, n, *end), what);
    long all = sure(pread(fd, text, sizeof text - 1, 0), what), lines = 0;
    unsigned long last = 0, sum = 0;
    text[all] = '\0';
    for (char *at = text; at < text + all; at = strchr(at, '\n') + 1, lines++)
        sum = sum * 31 + (last = strtoul(at, NULL, 10));
    service_answer("%s %ld %ld %lu %lu", what, all, lines, last, sum);
}

static void add_to_tmp(void)
{
    char line[64];
    long lines = 0;
    if (!tmp && !(tmp = tmpfile()))
        err(1, "tmpfile");
    fseek(tmp, tmp_end, SEEK_SET);
    fprintf(tmp, "%lu\n", service.number);
    tmp_end = ftell(tmp);
    rewind(tmp);
    while (fgets(line, sizeof line, tmp))
        lines++;
    service_answer("tmp %ld %s", lines, strtok(line, "\n"));
}

static int make(const char *name)
{
    return (int)sure(open(name, O_RDWR | O_CREAT | O_TRUNC, 0600), name);
}

/* As logs are rotated: the old one is gone on with, and a new one has its name. */
static void move_aside(void)
{
    if (moved < 0)
        moved = make("log");
    if (aside) {
        sure(rename("log.1", "log"), "rename");
    } else {
        sure(rename("log", "log.1"), "rename");
        close(make("log"));
    }
    aside = !aside;
    add_line("moved", moved, &moved_end);
}

/* Unlinked in the second turn. */
static void add_to_gone(void)
{
    static int turns;
    if (gone < 0) {
        gone = make("gone");
        turns = 0;
    } else if (turns++ == 0) {
        sure(unlink("gone"), "unlink");
    }
    add_line("gone", gone, &gone_end);
}

static void rename_over(void)
{
    char text[32] = "";
    if (over < 0)
        over = make("current");
    int fresh = make("fresh");
    sure(write(fresh, "fresh", 5), "fresh");
    sure(rename("fresh", "current"), "rename");
    close(fresh);
    fresh = (int)sure(open("current", O_RDONLY), "current");
    sure(read(fresh, text, sizeof text - 1), "current");
    close(fresh);
    if (strcmp(text, "fresh"))
        errx(1, "current holds %s", text);
    add_line("over", over, &over_end);
}

static unsigned long *map(const char *name)
{
    int fd = make(name);
    sure(ftruncate(fd, 4096), "ftruncate");
    unsigned long *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED)
        err(1, "mmap");
    close(fd);
    return page;
}

/* Twice, as whoever does it again must come upon what was there before. */
static void move_directory(void)
{
    if (inside < 0) {
        if (mkdir("here", 0700) && errno != EEXIST)
            err(1, "mkdir");
        inside = make("here/inside");
        beside = map("here/beside");
    }
    sure(rename(elsewhere ? "there" : "here", "between"), "rename");
    sure(rename("between", elsewhere ? "here/" : "there"), "rename");
    elsewhere = !elsewhere;
    *beside = service.number;
    add_line("inside", inside, &inside_end);
}

static void add_to_steady(void)
{
    if (steady < 0)
        steady = make("steady");
    add_line("steady", steady, &steady_end);
}

static void count_mapped(void)
{
    if (!mapped) {
        mapped = map("mapped");
        sure(unlink("mapped"), "unlink");
    }
    service_answer("mapped %lu", *mapped += service.number);
}

static void close_all(void)
{
    if (tmp)
        fclose(tmp);
    int *all[] = {&gone, &moved, &over, &inside, &steady};
    for (int i = 0; i < 5; i++) {
        if (*all[i] >= 0)
            close(*all[i]);
        *all[i] = -1;
    }
    if (mapped)
        munmap(mapped, 4096);
    if (beside)
        munmap(beside, 4096);
    if (elsewhere)
        sure(rename("there", "here"), "rename");
    tmp = NULL;
    tmp_end = 0;
    mapped = beside = NULL;
    aside = elsewhere = false;
    gone_end = moved_end = over_end = inside_end = steady_end = 0;
    unlink("log");
    unlink("log.1");
    service_answer("anew");
}

int main(int argc, char **argv)
{
    if (argc < 3 || chdir(argv[1]))
        err(1, "usage: nameless DIRECTORY PORT [USER]");
    service_open(atoi(argv[2]));
    if (argc > 3 && (setgid(atoi(argv[3])) || setuid(atoi(argv[3]))))
        err(1, "becoming %s", argv[3]);
    for (;;) {
        char *command = service_next();
        if (!strcmp(command, "tmp")) {
            add_to_tmp();
        } else if (!strcmp(command, "gone")) {
            add_to_gone();
        } else if (!strcmp(command, "moved")) {
            move_aside();
        } else if (!strcmp(command, "over")) {
            rename_over();
        } else if (!strcmp(command, "inside")) {
            move_directory();
        } else if (!strcmp(command, "steady")) {
            add_to_steady();
        } else if (!strcmp(command, "mapped")) {
            count_mapped();
        } else {
            close_all();
        }
    }
}
