/* Compiled in with the build option `faults` only. */
#include "heap/fault.h"
#include "heap/sys.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

static struct fault early;
static struct fault *state = &early; /* part of the image: leads to the same place in each incarnation */

uint32_t fault_number_at(const char **text)
{
    uint32_t n = 0;
    for (; **text >= '0' && **text <= '9'; ++*text)
        n = n * 10 + (uint32_t)(**text - '0');
    return n;
}

const char *fault_word(char *to, size_t room, const char *from)
{
    size_t n = 0;
    for (; from[n] && from[n] != ':' && n + 1 < room; n++)
        to[n] = from[n];
    to[n] = '\0';
    return from[n] == ':' ? from + n + 1 : from + n;
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
            value = fault_word(f->point, sizeof f->point, value);
            f->occurrence = *value ? fault_number_at(&value) : 1;
        } else if ((value = value_of(*environment, "KEN_FAULT_LOG"))) {
            strncpy(f->log, value, sizeof f->log - 1);
        } else if ((value = value_of(*environment, "KEN_MUTANT"))) {
            fault_word(f->mutant, sizeof f->mutant, value);
        } else if ((value = value_of(*environment, "KEN_FAULT_CALL")) && *value) {
            fault_read_call(f, value);
        } else if ((value = value_of(*environment, "KEN_FAULT_CALLS"))) {
            strncpy(f->calls_log, value, sizeof f->calls_log - 1);
        }
    }
    f->armed = f->point[0] || f->log[0];
}

void fault_move(struct fault *to)
{
    *to = *state;
    state = to;
}

void fault_only_mine(bool on)
{
    fault_state()->only = on ? (uintptr_t)__builtin_thread_pointer() : 0;
}

void fault_apart(bool on)
{
    state->apart = on;
}

struct fault *fault_state(void)
{
    return state;
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
    if (!f->armed || (f->apart && strncmp(point, "heir.", 5) != 0))
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
