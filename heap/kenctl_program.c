/* Commands that are yet to run: which file they mean, whether libken can enter it, where its store is. */
#include "heap/kenctl.h"
#include "heap/kenctl_elf.h"
#include "shim/config_path.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { SCRIPTS_MOST = 4 /* how deep the kernel follows #! */ };

static bool is_file(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

bool ctl_find_program(const char *name, char *path)
{
    if (strchr(name, '/'))
        return snprintf(path, PATH_MAX, "%s", name) < PATH_MAX && access(path, F_OK) == 0;
    const char *places = getenv("PATH");
    if (!places)
        places = "/usr/bin:/bin";
    bool found = false;
    char candidate[PATH_MAX];
    for (const char *place = places; *name && place; place = strchr(place, ':')) {
        place += place > places; /* the colon */
        int length = (int)strcspn(place, ":");
        if (snprintf(candidate, sizeof candidate, "%.*s/%s", length ? length : 1,
                     length ? place : ".", name) >= PATH_MAX || !is_file(candidate))
            continue;
        bool executable = access(candidate, X_OK) == 0;
        if (executable || !found)
            strcpy(path, candidate);
        found = true;
        if (executable)
            break;
    }
    return found;
}

/* Reads the first line of a script: `#!interpreter [one argument]`. False if it has none. */
static bool read_interpreter(const char *path, char *interpreter, char *argument)
{
    char line[PATH_MAX] = "";
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t got = read(fd, line, sizeof line - 1);
    close(fd);
    if (got < 3 || line[0] != '#' || line[1] != '!')
        return false;
    line[got] = '\0';
    line[strcspn(line, "\n")] = '\0';
    char *start = line + 2 + strspn(line + 2, " \t");
    size_t length = strcspn(start, " \t");
    char *rest = start + length + strspn(start + length, " \t");
    for (char *end = rest + strlen(rest); end > rest && strchr(" \t", end[-1]);)
        *--end = '\0';
    strcpy(argument, rest);
    start[length] = '\0';
    strcpy(interpreter, start);
    return length > 0;
}

/* The kernel runs such a program in secure mode: its loader ignores LD_PRELOAD. */
static const char *privileged(const char *path)
{
    struct stat st;
    if (stat(path, &st) == 0 && st.st_mode & S_ISUID)
        return "set-uid, so the loader would ignore libken";
    if (stat(path, &st) == 0 && (st.st_mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP))
        return "set-gid, so the loader would ignore libken";
    if (getxattr(path, "security.capability", NULL, 0) > 0)
        return "has file capabilities, so the loader would ignore libken";
    return NULL;
}

/* Says on stdout why libken cannot run a file; 0 if it can. */
static int check_file(const char *path, int depth)
{
    char interpreter[PATH_MAX], argument[PATH_MAX];
    if (access(path, F_OK) != 0) {
        printf("not found%s%s\n", depth ? ": its interpreter " : "", depth ? path : "");
        return depth ? CTL_NOT_EXECUTABLE : CTL_NOT_FOUND;
    }
    const char *reason = NULL;
    struct elf elf;
    int error = 0;
    if (!is_file(path) || access(path, X_OK) != 0) {
        reason = "not an executable file";
    } else if ((error = elf_open(&elf, path, 0)) == 0) {
        if (!elf_segment(&elf, PT_INTERP, 0))
            reason = "statically linked, so libken cannot be loaded into it";
        else
            reason = privileged(path);
        elf_close(&elf);
    } else if (error == -EXDEV) {
        reason = "a program for another kind of machine than x86-64";
    } else if (error == -ENOEXEC) {
        if (read_interpreter(path, interpreter, argument) && depth < SCRIPTS_MOST)
            return check_file(interpreter, depth + 1);
        reason = "neither an ELF program nor a script with #!";
    } /* otherwise it is executable but not readable: let the kernel decide */
    if (!reason)
        return 0;
    if (depth)
        printf("its interpreter %s: ", path);
    puts(reason);
    return CTL_NOT_EXECUTABLE;
}

int ctl_check_program(int argc, char **argv)
{
    char path[PATH_MAX];
    if (argc != 1)
        return ctl_fail(CTL_USAGE, "check-program takes the path of a program");
    if (!ctl_find_program(argv[0], path)) {
        puts("not found");
        return CTL_NOT_FOUND;
    }
    return check_file(path, 0);
}

/* Does to the arguments what the kernel does for a script: the interpreter, its one argument and
 * the script's path take the place of argv[0]. The new list is never freed. */
static char **expand_script(char **argv, const char *script, const char *interpreter,
                            const char *argument)
{
    size_t count = 0;
    while (argv[count])
        count++;
    char **list = calloc(count + 3, sizeof *list);
    if (!list)
        exit(ctl_fail(70, "out of memory"));
    size_t n = 0;
    list[n++] = strdup(interpreter);
    if (*argument)
        list[n++] = strdup(argument);
    list[n++] = strdup(script);
    memcpy(list + n, argv + 1, count * sizeof *list);
    return list;
}

int ctl_store(int argc, char **argv)
{
    char path[PATH_MAX], real[PATH_MAX], interpreter[PATH_MAX], argument[PATH_MAX];
    if (argc < 1)
        return ctl_fail(CTL_USAGE, "store takes a command");
    if (!ctl_find_program(argv[0], path))
        return ctl_fail(CTL_NOT_FOUND, "%s: not found", argv[0]);
    for (int depth = 0; depth < SCRIPTS_MOST && read_interpreter(path, interpreter, argument); depth++) {
        argv = expand_script(argv, path, interpreter, argument);
        strcpy(path, interpreter);
    }
    if (!realpath(path, real))
        return ctl_fail(CTL_NOT_FOUND, "%s: %s", path, strerror(errno));
    char store[2 * PATH_MAX];
    long length = config_store_path(store, sizeof store, real, argv);
    if (length < 0)
        return ctl_fail(1, "no store path: %s", strerror((int)-length));
    puts(store);
    return 0;
}

/* Sets the signals of a list like "INT,QUIT" to their default state. */
static void reset_signals(const char *list)
{
    if (strstr(list, "INT"))
        signal(SIGINT, SIG_DFL);
    if (strstr(list, "QUIT"))
        signal(SIGQUIT, SIG_DFL);
}

int ctl_launch(int argc, char **argv)
{
    if (argc < 3)
        return ctl_fail(CTL_USAGE, "launch takes LIBRARY SIGNALS COMMAND [ARG...]");
    const char *old = getenv("LD_PRELOAD");
    char *preload = NULL;
    if (asprintf(&preload, "%s%s%s", argv[0], old && *old ? ":" : "", old ? old : "") < 0)
        return ctl_fail(70, "out of memory");
    setenv("LD_PRELOAD", preload, 1);
    reset_signals(argv[1]);
    execvp(argv[2], argv + 2);
    int error = errno;
    fprintf(stderr, "kenrun: %s: %s\n", argv[2], strerror(error));
    return error == ENOENT || error == ENOTDIR ? CTL_NOT_FOUND : CTL_NOT_EXECUTABLE;
}
