/* Compiled in with the build option `faults` only. */
#include "heap/fault.h"
#include "heap/sys.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

static struct fault early;
static struct fault *state = &early; /* part of the image: leads to the same place in each incarnation */

static const struct {
    const char *name;
    long number;
} calls[] = {
    {"openat", SYS_openat}, {"open", SYS_open}, {"read", SYS_read}, {"pread64", SYS_pread64}, {"pwrite64", SYS_pwrite64},
    {"pwritev", SYS_pwritev}, {"pwritev2", SYS_pwritev2}, {"fsync", SYS_fsync}, {"fdatasync", SYS_fdatasync},
    {"ftruncate", SYS_ftruncate}, {"fallocate", SYS_fallocate}, {"renameat", SYS_renameat}, {"renameat2", SYS_renameat2},
    {"unlinkat", SYS_unlinkat}, {"linkat", SYS_linkat}, {"mkdirat", SYS_mkdirat}, {"mmap", SYS_mmap},
    {"munmap", SYS_munmap}, {"mprotect", SYS_mprotect}, {"madvise", SYS_madvise}, {"ioctl", SYS_ioctl}, {"fstat", SYS_fstat},
    {"fcntl", SYS_fcntl}, {"userfaultfd", SYS_userfaultfd}, {"sendfile", SYS_sendfile}, {"sendmmsg", SYS_sendmmsg},
    {"splice", SYS_splice}, {"write", SYS_write}, {"sendto", SYS_sendto}, {"memfd_create", SYS_memfd_create},
    {"dup3", SYS_dup3}, {"socket", SYS_socket}, {"bind", SYS_bind}, {"listen", SYS_listen}, {"getrandom", SYS_getrandom},
    {"clock_gettime", SYS_clock_gettime}, {"rt_sigaction", SYS_rt_sigaction}, {"rt_sigprocmask", SYS_rt_sigprocmask},
    {"newfstatat", SYS_newfstatat}, {"getdents64", SYS_getdents64}, {"utimensat", SYS_utimensat}, {"lseek", SYS_lseek},
    {"getcwd", SYS_getcwd}, {"prctl", SYS_prctl}, {"poll", SYS_poll},
};

static const struct {
    const char *name;
    long error;
} errors[] = {
    {"EIO", -EIO}, {"ENOSPC", -ENOSPC}, {"EINTR", -EINTR}, {"EAGAIN", -EAGAIN}, {"ENOMEM", -ENOMEM}, {"EMFILE", -EMFILE},
    {"ENFILE", -ENFILE}, {"EACCES", -EACCES}, {"EPERM", -EPERM}, {"EROFS", -EROFS}, {"EDQUOT", -EDQUOT}, {"EINVAL", -EINVAL},
    {"ENOSYS", -ENOSYS}, {"EOPNOTSUPP", -EOPNOTSUPP}, {"EXDEV", -EXDEV}, {"SHORT", 1},
};

static uint32_t number_at(const char **text)
{
    uint32_t n = 0;
    for (; **text >= '0' && **text <= '9'; ++*text)
        n = n * 10 + (uint32_t)(**text - '0');
    return n;
}

/* Copies up to the colon or the end; returns what follows the colon, or the end. */
static const char *word(char *to, size_t room, const char *from)
{
    size_t n = 0;
    for (; from[n] && from[n] != ':' && n + 1 < room; n++)
        to[n] = from[n];
    to[n] = '\0';
    return from[n] == ':' ? from + n + 1 : from + n;
}

static void read_call(struct fault *f, const char *text)
{
    char name[32];
    text = word(name, sizeof name, text);
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
        if (!strcmp(calls[i].name, name))
            f->call = calls[i].number;
    f->call_first = number_at(&text);
    text = word(name, sizeof name, text + (*text == ':'));
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++)
        if (!strcmp(errors[i].name, name))
            f->call_error = errors[i].error;
    f->call_count = *text ? number_at(&text) : 1;
    /* A test that asks for what does not exist must not pass. */
    if (f->call < 0 || !f->call_error || !f->call_first)
        sys_call6(SYS_exit_group, 71, 0, 0, 0, 0, 0);
}

static const char *value_of(const char *variable, const char *name)
{
    size_t length = strlen(name);
    return !strncmp(variable, name, length) && variable[length] == '=' ? variable + length + 1 : NULL;
}

void fault_boot(char **environment)
{
    struct fault *f = state;
    const char *value;
    if (f->ready || !environment)
        return;
    f->ready = true;
    f->call = -1;
    for (; *environment; environment++) {
        if ((value = value_of(*environment, "KEN_FAULT")) && *value) {
            value = word(f->point, sizeof f->point, value);
            f->occurrence = *value ? number_at(&value) : 1;
        } else if ((value = value_of(*environment, "KEN_FAULT_LOG"))) {
            strncpy(f->log, value, sizeof f->log - 1);
        } else if ((value = value_of(*environment, "KEN_MUTANT"))) {
            word(f->mutant, sizeof f->mutant, value);
        } else if ((value = value_of(*environment, "KEN_FAULT_CALL")) && *value) {
            read_call(f, value);
        }
    }
    f->armed = f->point[0] || f->log[0];
}

void fault_move(struct fault *to)
{
    *to = *state;
    state = to;
}

/* In a unit test nobody calls fault_boot(). */
static struct fault *current(void)
{
    if (!state->ready)
        fault_boot(environ);
    return state;
}

static void note(const struct fault *f, const char *point)
{
    char line[80];
    size_t n = strlen(point);
    memcpy(line, point, n);
    line[n] = '\n';
    long fd = sys_call6(SYS_open, (long)f->log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600, 0, 0, 0);
    sys_call6(SYS_write, fd, (long)line, (long)n + 1, 0, 0, 0);
    sys_call6(SYS_close, fd, 0, 0, 0, 0, 0);
}

bool fault_due(const char *point)
{
    struct fault *f = current();
    if (!f->armed)
        return false;
    if (f->log[0])
        note(f, point);
    return !strcmp(f->point, point) && __atomic_add_fetch(&f->seen, 1, __ATOMIC_RELAXED) == f->occurrence;
}

void fault_reach(const char *point)
{
    if (!fault_due(point))
        return;
    sys_call6(SYS_kill, sys_call6(SYS_getpid, 0, 0, 0, 0, 0, 0), SIGKILL, 0, 0, 0, 0);
    for (;;)
        sys_call6(SYS_pause, 0, 0, 0, 0, 0, 0);
}

bool fault_mutant(const char *name)
{
    const struct fault *f = current();
    size_t length = strlen(name);
    for (const char *at = f->mutant; __builtin_expect(*at != '\0', 0); at += *at == ',') {
        if (!strncmp(at, name, length) && (at[length] == ',' || !at[length]))
            return true;
        while (*at && *at != ',')
            at++;
    }
    return false;
}

/* Which argument says how much to take, where a part of it is a fair answer. */
static long shortened(long nr, long bytes)
{
    bool is_plain = nr == SYS_read || nr == SYS_pread64 || nr == SYS_write || nr == SYS_pwrite64;
    return is_plain && bytes > 1 ? bytes / 2 : bytes;
}

long fault_call(long nr, long a, long b, long c, long d, long e, long f)
{
    struct fault *s = state;
    if (!s->ready || s->call != nr)
        return sys_call6(nr, a, b, c, d, e, f);
    uint32_t now = __atomic_add_fetch(&s->calls, 1, __ATOMIC_RELAXED);
    bool is_due = now >= s->call_first && now - s->call_first < s->call_count;
    if (is_due && s->call_error < 0)
        return s->call_error;
    return sys_call6(nr, a, b, is_due ? shortened(nr, c) : c, d, e, f);
}
