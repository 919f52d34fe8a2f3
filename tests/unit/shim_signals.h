/* What the signal side needs of the core, for tests that link it alone: turns that count, one
 * thread. */
#ifndef KEN_TESTS_SHIM_SIGNALS_H
#define KEN_TESTS_SHIM_SIGNALS_H

#include "net/pidfd.h"
#include "shim/call_signal.h"
#include "shim/call_wait.h"
#include "shim/heir.h"
#include "shim/process.h"
#include "shim/sigsys.h"
#include "shim/threads.h"
#include "shim/turn.h"

#include <criterion/criterion.h>

bool call_passive, threads_many;
static int turns_ended;

void turn_end(enum turn_reason reason)
{
    (void)reason;
    turns_ended++;
}

int64_t turn_grace_ns(void)
{
    return 0;
}

bool turn_overdue(void)
{
    return false;
}

uint64_t turn_number(void)
{
    return 42;
}

bool wait_beside(int fd, unsigned ms, long nr, long *result)
{
    (void)fd, (void)ms, (void)nr, (void)result;
    return false;
}

void threads_install_signal(void) {}

struct description *fd_find(int fd)
{
    return NULL;
}

long pidfd_process(const struct description *d)
{
    return 0;
}

bool sigsys_install(void)
{
    return true;
}

void threads_lock(void) {}

void threads_unlock(void) {}

void threads_back(const siginfo_t *info, uint64_t mask)
{
    (void)info, (void)mask;
}

long threads_away(long (*wait)(void *), void *context)
{
    return wait(context);
}

long threads_real_tid(long tid)
{
    return process_real_pid(tid);
}

long threads_known_tid(long tid)
{
    return process_known_pid(tid);
}

static struct thread *another; /* stands for a thread besides the caller */

struct thread *threads_other(uint32_t *place)
{
    bool first = *place == 0;
    *place = THREADS_MAX;
    return first ? another : NULL;
}

struct thread *threads_named(long tid)
{
    return tid == sys(SYS_gettid) ? thread_self() : NULL;
}

static struct peer only = {.state = THREAD_RUNNING};

struct peer *threads_at(uint32_t place)
{
    only.real_tid = sys(SYS_gettid);
    return place ? NULL : &only;
}

struct peer *threads_by_tid(long tid)
{
    return tid == sys(SYS_gettid) ? &only : NULL;
}

long threads_tid_at(uint32_t place)
{
    (void)place;
    return sys(SYS_gettid);
}

bool threads_ask(uint32_t place)
{
    (void)place;
    return false;
}

bool heir_candidate;

bool heir_due(void)
{
    return false;
}

void heir_mourns_itself(void) {}

bool heir_followed(long pid)
{
    (void)pid;
    return false;
}

void fd_capture(void) {}

/* As call_dispatch() does it. */
static inline long run(call_handler *handler, struct call *c)
{
    struct thread *self = thread_self();
    self->inside++;
    long result = handler(c);
    if (--self->inside == 0 && signal_waiting())
        signal_leave(c);
    return result;
}

#define RUN(handler, number, ...) run(handler, &(struct call){.nr = number, .arg = {__VA_ARGS__}})

static inline void handle(int signal, void (*handler)(int, siginfo_t *, void *), int flags)
{
    struct signal_action a = {.handler = (uintptr_t)handler, .flags = SA_SIGINFO | (unsigned)flags};
    cr_assert_eq(RUN(call_rt_sigaction, SYS_rt_sigaction, signal, (long)&a, 0, 8), 0);
}

#endif
