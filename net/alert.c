#include "net/alert.h"
#include "net/fdtable.h"
#include "net/trouble.h"
#include "heap/fault.h"
#include "heap/room.h"
#include "heap/sys.h"
#include "heap/window.h"

#include <sys/eventfd.h>

static struct alert {
    int fd; /* 0: none yet */
    bool rung;
} *alerts; /* in the window; NULL: there are none */
static unsigned used;

void alert_boot(void)
{
    alerts = NULL;
    used = 0;
}

static void make(struct alert *a)
{
    long fd = trouble_none(sys_fd(SYS_eventfd2, 0, EFD_CLOEXEC | EFD_NONBLOCK), "wake a thread");
    a->fd = fd < 0 ? 0 : (int)fd_move_high((int)fd);
    a->rung = false;
}

int alert_fd(unsigned thread)
{
    if (thread >= ALERT_THREADS)
        return -1;
    if (!alerts && trouble_none((alerts = window_alloc(ALERT_THREADS * sizeof *alerts)) ? 0 : -ENOMEM, "wake a thread"))
        return -1;
    if (!alerts[thread].fd)
        make(&alerts[thread]);
    if (thread >= used)
        used = thread + 1;
    return alerts[thread].fd ? alerts[thread].fd : -1;
}

void alert_heard(unsigned thread)
{
    uint64_t times;
    if (thread >= used || !alerts[thread].rung)
        return;
    sys(SYS_read, alerts[thread].fd, &times, sizeof times);
    alerts[thread].rung = false;
}

static bool ring(const struct alert *a)
{
    const uint64_t once = 1;
    for (int attempt = 0; attempt < 3; attempt++)
        if (sys(SYS_write, a->fd, &once, sizeof once) == sizeof once)
            return true;
    return false;
}

void alert_others(unsigned thread)
{
    for (unsigned i = MUTANT("alert.silent", used, 0); i < used; i++)
        if (i != thread && alerts[i].fd && !alerts[i].rung)
            alerts[i].rung = ring(&alerts[i]);
}

bool alert_owns(int fd)
{
    for (unsigned i = 0; i < used; i++)
        if (alerts[i].fd == fd)
            return true;
    return false;
}

void alert_forked(void)
{
    for (unsigned i = 0; i < used; i++)
        if (alerts[i].fd)
            sys(SYS_close, alerts[i].fd);
    alert_boot();
}
