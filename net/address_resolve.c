#include "net/address_resolve.h"
#include "net/address_text.h"
#include "heap/fault.h"
#include "heap/room.h"
#include "heap/sys.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#define OUTPUT_MOST 16384

static long now_ms(void)
{
    return sys_clock_ns(CLOCK_MONOTONIC) / 1000000;
}

static bool has_already(const struct address_list *l, uint32_t from, const struct wire_address *a)
{
    for (uint32_t i = from; i < l->entries; i++)
        if (!memcmp(l->entry[i].address.bytes, a->bytes, sizeof a->bytes))
            return true;
    return false;
}

int address_resolve_text(struct address_list *l, unsigned name, const char *text, size_t length)
{
    uint32_t before = l->entries;
    int r = 0;
    while (length && r == 0) {
        struct wire_address a;
        const char *end = memchr(text, '\n', length);
        size_t line = end ? (size_t)(end - text) : length, n = 0;
        while (n < line && text[n] != ' ' && text[n] != '\t')
            n++;
        if (address_scan(&a, text, n) && !has_already(l, before, &a))
            r = address_list_resolve(l, name, &a);
        text += line + (end != NULL);
        length -= line + (end != NULL);
    }
    return r;
}

/* On our own stack, as vfork does: the child touches nothing but registers and what lies below this frame, and we stand still until
 * it is another program. *failed: why it is not. */
__attribute__((noinline)) static long start(const char *path, char *const argv[], char *const no_environment[], int out,
                                            volatile long *failed)
{
    *failed = 0;
    long pid = FAULT_CALL(SYS_clone, sys_call6(SYS_clone, CLONE_VM | CLONE_VFORK, 0, 0, 0, 0, 0));
    if (pid != 0)
        return pid;
    long r;
    while ((r = sys(SYS_dup2, out, 1)) == -EINTR || r == -EBUSY)
        ;
    *failed = r < 0 ? r : sys(SYS_execve, path, argv, no_environment);
    for (;;)
        sys(SYS_exit, 127);
}

/* What it prints until it ends; nothing of what it has printed counts when it takes too long. */
static long read_output(int fd, char *to, size_t room, long until)
{
    size_t got = 0;
    for (;;) {
        struct pollfd p = {fd, POLLIN, 0};
        long left = until - now_ms();
        if (left <= 0)
            return -ETIMEDOUT;
        if (sys(SYS_poll, &p, 1, left) <= 0)
            continue;
        long n = got < room ? sys(SYS_read, fd, to + got, room - got) : 0;
        if (n == -EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? n : (long)got;
        got += (size_t)n;
    }
}

static long ask(const char *getent, char *name, char *to, size_t room, long until)
{
    char program[] = "getent", database[] = "ahosts";
    char *argv[] = {program, database, name, NULL}, *no_environment[] = {NULL};
    volatile long failed;
    int ends[2], status;
    long r = sys_fd(SYS_pipe2, ends, O_CLOEXEC);
    if (r < 0)
        return r;
    long pid = start(getent, argv, no_environment, ends[1], &failed);
    sys(SYS_close, ends[1]);
    r = pid < 0 ? pid : read_output(ends[0], to, room, until);
    sys(SYS_close, ends[0]);
    if (pid < 0)
        return r;
    if (r < 0)
        sys(SYS_kill, pid, SIGKILL);
    while (sys(SYS_wait4, pid, &status, __WALL, NULL) == -EINTR)
        continue;
    return failed ? failed : r;
}

int address_resolve(struct address_list *l, const char *getent, unsigned within_ms, long *error)
{
    static char output[OUTPUT_MOST];
    long until = now_ms() + (long)within_ms;
    for (uint32_t i = 0; i < l->names; i++) {
        long n = ask(getent, l->name[i].text, output, sizeof output, until);
        *error = n < 0 ? n : 0;
        if (n < 0 || address_resolve_text(l, i, output, (size_t)n) < 0 || !l->name[i].resolved)
            return (int)i;
    }
    return -1;
}
