#include "shim/heir_tie.h"
#include "heap/disk.h"
#include "heap/fault.h"
#include "heap/proc.h"
#include "heap/room.h"
#include "heap/say.h"
#include "heap/session.h"
#include "heap/sys.h"
#include "shim/call_time.h"
#include "shim/threads.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>

#define URGED_MS 1000

uint32_t tie_look(const uint32_t *word)
{
    uint32_t value = __atomic_load_n(word, __ATOMIC_SEQ_CST);
    FAULT_STEP("tie.looked");
    return value;
}

void tie_put(uint32_t *word, uint32_t value)
{
    FAULT_STEP("tie.puts");
    __atomic_store_n(word, value, __ATOMIC_SEQ_CST);
    sys(SYS_futex, word, FUTEX_WAKE, INT32_MAX, 0, 0, 0);
    FAULT_STEP("tie.put");
}

[[maybe_unused]] static const char *const steps[] = {
    [LEADER] = "tie.leader", [TAKING] = "tie.taking", [TAKEN] = "tie.taken", [DECLINED] = "tie.declined"};

bool tie_change(struct tie *s, uint32_t from, uint32_t to)
{
    bool done = __atomic_compare_exchange_n(&s->state, &from, to, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    if (done)
        sys(SYS_futex, &s->state, FUTEX_WAKE, INT32_MAX, 0, 0, 0);
    FAULT_STEP(done ? steps[to] : "tie.unchanged");
    return done;
}

/* Waits until the word is another; false after `ms`. */
bool tie_await(const uint32_t *word, uint32_t value, long ms)
{
    int64_t until = time_monotonic_ns() + ms * 1000000;
    for (int64_t left; tie_look(word) == value && (left = until - time_monotonic_ns()) > 0;) {
        struct timespec limit = time_spec(left);
        sys(SYS_futex, word, FUTEX_WAIT, value, &limit, 0, 0);
    }
    return tie_look(word) != value;
}

struct tie *tie_find(struct lineage *l, uint64_t ticket)
{
    struct tie *s = &l->ties[ticket % TIES];
    return ticket && s->ticket == ticket ? s : NULL;
}

struct tie *tie_make(struct lineage *l, uint64_t *ticket)
{
    *ticket = __atomic_add_fetch(&l->tickets, 1, __ATOMIC_SEQ_CST);
    struct tie *s = &l->ties[*ticket % TIES];
    *s = (struct tie){.ticket = *ticket, .state = CANDIDATE, .parent = LIVES};
    return s;
}

bool tie_is_open(const struct tie *s)
{
    return s && (tie_look(&s->state) == CANDIDATE || tie_look(&s->state) == LEADER);
}

void tie_decline(struct tie *s)
{
    if (!s || tie_change(s, CANDIDATE, DECLINED))
        return;
    __atomic_add_fetch(&s->signalling, 1, __ATOMIC_SEQ_CST);
    bool led = tie_change(s, LEADER, DECLINED);
    int32_t pid = __atomic_load_n(&s->pid, __ATOMIC_SEQ_CST);
    if (led && pid > 0 && pid != (int32_t)sys(SYS_getpid))
        sys(SYS_kill, pid, THREADS_SIGNAL);
    __atomic_sub_fetch(&s->signalling, 1, __ATOMIC_SEQ_CST);
}

bool tie_ended(int32_t pid)
{
    long fd = sys_fd(SYS_pidfd_open, pid, 0);
    struct pollfd p = {(int)fd, POLLIN, 0};
    bool dead = fd == -ESRCH || (fd >= 0 && sys(SYS_poll, &p, 1, 0) == 1);
    if (fd >= 0)
        sys(SYS_close, fd);
    return dead;
}

void tie_urge(struct tie *s)
{
    __atomic_add_fetch(&s->signalling, 1, __ATOMIC_SEQ_CST);
    bool leads = tie_look(&s->state) == LEADER;
    int32_t pid = __atomic_load_n(&s->pid, __ATOMIC_SEQ_CST);
    if (leads && pid > 0)
        sys(SYS_kill, pid, THREADS_SIGNAL);
    __atomic_sub_fetch(&s->signalling, 1, __ATOMIC_SEQ_CST);
}

/* Whoever was killed on the way does not take the word back. */
void tie_unurged(struct tie *s)
{
    int64_t until = time_monotonic_ns() + URGED_MS * 1000000L;
    while (tie_look(&s->signalling) && time_monotonic_ns() < until)
        sys(SYS_sched_yield);
}

/* One that exits for a child of its own has written that one's pid before. */
bool tie_is_dead(const struct tie *s)
{
    int32_t pid = (int32_t)tie_look((const uint32_t *)&s->pid);
    return tie_ended(pid) && (int32_t)tie_look((const uint32_t *)&s->pid) == pid;
}

/* The end of the protected process closes the pipe, which sends its readers a signal: also a child's child, which
 * PR_SET_PDEATHSIG does not serve. Who gets it belongs to the open file, so each candidate opens one of its own. */
void life_open(void)
{
    struct session *s = session;
    int ends[2];
    if (s->life[1] >= 0 || sys_failed(sys_fd(SYS_pipe2, ends, O_CLOEXEC)))
        return;
    s->life[0] = (int)disk_high_fd(ends[0]);
    s->life[1] = (int)disk_high_fd(ends[1]);
}

void life_watch(void)
{
    struct session *s = session;
    char name[32];
    disk_close(&s->life[1]);
    if (s->life[0] < 0)
        return;
    say_format(name, sizeof name, "self/fd/%d", s->life[0]);
    long own = proc_open(name, O_RDONLY | O_NONBLOCK);
    if (!sys_failed(own)) { /* else all share one, and the latest hears of it: where /proc is not what it was */
        disk_close(&s->life[0]);
        s->life[0] = (int)disk_high_fd(own);
    }
    sys(SYS_fcntl, s->life[0], F_SETOWN, sys(SYS_getpid));
    sys(SYS_fcntl, s->life[0], F_SETSIG, THREADS_SIGNAL);
    sys(SYS_fcntl, s->life[0], F_SETFL, O_ASYNC);
}

void life_leave(void)
{
    int fd = session->life[0];
    if (fd >= 0 && sys(SYS_fcntl, fd, F_GETOWN) == sys(SYS_getpid))
        sys(SYS_fcntl, fd, F_SETOWN, 0);
    disk_close(&session->life[0]);
}
