/* Compiled in with the build option `faults` only. */
#include "heap/fault.h"
#include "heap/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <time.h>
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
        } else if ((value = value_of(*environment, "KEN_FAULT_TRACE"))) {
            strncpy(f->trace, value, sizeof f->trace - 1);
        } else if ((value = value_of(*environment, "KEN_FAULT_JITTER")) && *value) {
            uint32_t seed = fault_number_at(&value);
            f->jitter = (seed + 1UL) * 0x9E3779B97F4A7C15UL;
            f->jitter_every = 4u << (seed % 3 * 2);
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
    if (on && state->jitter)
        state->jitter = state->jitter * 0xD1342543DE82EF95UL | 1; /* not the parent's pauses once more */
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

static void append(const char *path, const char *line, size_t bytes)
{
    long fd = sys_call6(SYS_open, (long)path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666, 0, 0, 0);
    sys_call6(SYS_write, fd, (long)line, (long)bytes, 0, 0, 0);
    sys_call6(SYS_close, fd, 0, 0, 0, 0, 0);
}

static void note(const struct fault *f, const char *point)
{
    char line[80];
    size_t n = strlen(point);
    memcpy(line, point, n);
    line[n] = '\n';
    append(f->log, line, n + 1);
}

static size_t put_decimal(char *at, uint64_t number)
{
    char digits[20];
    size_t n = 0, done = 0;
    do
        digits[n++] = (char)('0' + number % 10);
    while (number /= 10);
    while (n)
        at[done++] = digits[--n];
    at[done] = ' ';
    return done + 1;
}

static void trace(const struct fault *f, const char *name)
{
    char line[128];
    struct timespec now = {0, 0};
    sys_call6(SYS_clock_gettime, CLOCK_MONOTONIC, (long)&now, 0, 0, 0, 0);
    size_t n = put_decimal(line, (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000);
    n += put_decimal(line + n, (uint64_t)sys_call6(SYS_getpid, 0, 0, 0, 0, 0, 0));
    size_t length = strlen(name);
    memcpy(line + n, name, length);
    line[n + length] = '\n';
    append(f->trace, line, n + length + 1);
}

static uint64_t draw(struct fault *f, uint64_t below)
{
    f->jitter ^= f->jitter << 13; /* Marsaglia's xorshift64 */
    f->jitter ^= f->jitter >> 7;
    f->jitter ^= f->jitter << 17;
    return (f->jitter >> 11) % below;
}

static int64_t now_ms(void)
{
    struct timespec now = {0, 0};
    sys_call6(SYS_clock_gettime, CLOCK_MONOTONIC, (long)&now, 0, 0, 0, 0);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* For long it does not sleep: it stands for a process that gets no processor, and who looks at it is to see that. */
static void pass_time(struct fault *f)
{
    uint64_t ms = draw(f, f->jitter_every) ? 0 : draw(f, 12);
    for (int64_t until = draw(f, 700) ? 0 : now_ms() + 100 + (int64_t)draw(f, 2400); until && now_ms() < until;)
        sys_call6(SYS_sched_yield, 0, 0, 0, 0, 0, 0);
    struct timespec left = {(time_t)(ms / 1000), (long)(ms % 1000) * 1000000};
    while (ms && sys_call6(SYS_nanosleep, (long)&left, (long)&left, 0, 0, 0, 0) == -EINTR)
        ;
}

void fault_step(const char *name)
{
    struct fault *f = current();
    if (f->trace[0])
        trace(f, name);
    if (f->jitter)
        pass_time(f);
}

bool fault_due(const char *point)
{
    struct fault *f = current();
    fault_step(point);
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
