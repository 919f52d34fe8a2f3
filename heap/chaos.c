#include "heap/chaos.h"
#include "heap/disk.h"
#include "heap/room.h"
#include "heap/say.h"
#include "heap/sys.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>

/* No table of pointers: what is to be relocated would be a page of the image. */
static const char names[CHAOS_STEPS][12] = {"", "recovered", "resuming", "ended", "captured", "durable", "leaving", "released", "applied"};

static bool read_order(struct chaos *c, const char *text, uint64_t turn)
{
    bool relative = *text == '+';
    uint64_t number = 0;
    size_t digits = strspn(text += relative, "0123456789");
    if (!digits || digits > 18 || text[digits] != ':')
        return false;
    for (; *text != ':'; text++)
        number = number * 10 + (uint64_t)(*text - '0');
    size_t length = strcspn(++text, "\n");
    for (uint8_t step = CHAOS_RECOVERED; step < CHAOS_STEPS; step++)
        if (strlen(names[step]) == length && !memcmp(names[step], text, length))
            c->step = step;
    c->turn = relative ? turn + number : number;
    return c->step != CHAOS_NONE;
}

static void open_order(struct chaos *c, const char *path, uint64_t turn)
{
    char text[64];
    long fd = sys_fd(SYS_open, path, O_RDONLY | O_CLOEXEC, 0);
    long n = sys_failed(fd) ? fd : sys(SYS_read, fd, text, sizeof text - 1);
    if (sys_failed(n))
        say_die("cannot read KEN_CHAOS=%s (%s)", path, say_error(n));
    sys(SYS_close, fd);
    text[n] = '\0';
    if (n && !read_order(c, text, turn))
        say_die("KEN_CHAOS=%s holds no TURN:STEP", path);
}

void chaos_open(struct chaos *c, const char *order, const char *report, uint64_t turn)
{
    *c = (struct chaos){.fd = -1};
    /* Now: who gives up root could not open it later. */
    if (report && *report)
        c->fd = (int)disk_high_fd(sys_fd(SYS_open, report, O_WRONLY | O_APPEND | O_CLOEXEC, 0));
    if (order && *order)
        open_order(c, order, turn);
}

void chaos_tell(const struct chaos *c, const char *line, size_t bytes)
{
    if (c->fd >= 0)
        sys(SYS_write, c->fd, line, bytes);
}

static bool is_due(const struct chaos *c, enum chaos_step step, uint64_t turn)
{
    bool must_resume = c->step == CHAOS_RECOVERED || c->step == CHAOS_RESUMING;
    return turn >= c->turn && (step == c->step || (must_resume && step == CHAOS_APPLIED));
}

void chaos_reach(const struct chaos *c, enum chaos_step step, uint64_t turn)
{
    char line[64];
    if (!is_due(c, step, turn))
        return;
    chaos_tell(c, line, say_format(line, sizeof line, "died %lu %s\n", turn, names[step]));
    for (;;)
        sys(SYS_kill, sys(SYS_getpid), SIGKILL);
}
