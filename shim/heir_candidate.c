/* A child of fork that may become the program, until it does or is plain. */
#include "heap/disk.h"
#include "heap/fault.h"
#include "heap/proc.h"
#include "heap/say.h"
#include "heap/session.h"
#include "heap/tracker.h"
#include "net/fdtable.h"
#include "net/outbox.h"
#include "net/peers.h"
#include "shim/boot.h"
#include "shim/call_limits.h"
#include "shim/call_memory.h"
#include "shim/call_signal.h"
#include "shim/call_time.h"
#include "shim/children.h"
#include "shim/heir_inner.h"
#include "shim/process.h"
#include "shim/sigsys.h"
#include "shim/threads.h"

#include <fcntl.h>
#include <sys/prctl.h>

#define LOOK_MS 10
#define SECOND_FORK_MS 1000 /* in which the parent was never seen to compute */
#define SECOND_FORK_LAST_MS 8000 /* for one that computes all the time: its own parent waits for 10 s */

static void lead(struct tie *s)
{
    if (!s)
        return;
    tie_put(&s->leads, 1);
    if (tie_change(s, CANDIDATE, LEADER))
        MUTANT("heir.unfollowed", (void)0, store_follow(&session->store, true));
}

/* What is said of the lower tie while its child is promoted must hold for the upper one: each of the two looks at what the other
 * does once more after what it did itself, see heir_candidate_exit(). */
struct tie *heir_above(struct heir *h)
{
    for (;;) {
        struct tie *s = tie_find(h->page, h->above);
        uint64_t next = s ? __atomic_load_n(&s->promoted, __ATOMIC_SEQ_CST) : 0;
        FAULT_STEP("tie.above");
        if (!next)
            return s;
        h->above = next;
        if (h->leads)
            lead(tie_find(h->page, next));
    }
}

/* The one that holds the lock was killed. One that exits says so first. While the lock passes on it is the one or the other's. */
static bool guard_is_gone(const struct heir *h)
{
    const struct lineage *page = h->page;
    for (;;) {
        int32_t taker = __atomic_load_n(&page->taker, __ATOMIC_SEQ_CST), guard = __atomic_load_n(&page->guard, __ATOMIC_SEQ_CST);
        long holder = store_holder(session->store.lock_fd);
        if (holder < 0 || (holder && (holder == guard || holder == taker)))
            return false;
        if (taker == __atomic_load_n(&page->taker, __ATOMIC_SEQ_CST) && guard == __atomic_load_n(&page->guard, __ATOMIC_SEQ_CST))
            return true;
    }
}

/* The one between a protected process and all that came of it; NULL: others have been through the place since. */
static const struct tie *topmost(const struct heir *h, const struct tie *s)
{
    while (s && !s->of_protected)
        s = tie_find(h->page, s->up);
    return s;
}

/* A protected process that wants no heir, or has one, sees to the state before it goes: what is looked at last here. */
static bool killed_over(const struct heir *h, const struct tie *s)
{
    const struct tie *top = topmost(h, s);
    return top && tie_look(&s->state) == LEADER && MUTANT("heir.outlives", false, guard_is_gone(h)) && tie_look(&top->state) == LEADER;
}

/* The restart of the parent begins this child again: two must not be. */
_Noreturn void heir_die_with_parent(void)
{
    for (;;)
        sys(SYS_kill, sys(SYS_getpid), SIGKILL);
}

/* What belongs to the parent, in the kernel or by number, is not this process's. */
void heir_begin(void)
{
    struct session *s = session;
    struct heir *h = s->heir;
    s->apart = true;
    fault_apart(true);
    tracker_close(&s->tracker);
    sys(SYS_close, s->maps_fd);
    long maps = proc_open("self/maps", O_RDONLY);
    s->maps_fd = sys_failed(maps) ? -1 : (int)disk_high_fd(maps);
    process_boot();
    threads_forked();
    children_forked();
    time_forked();
    fd_stand_by();
    h->above = h->born = h->below;
    h->below = 0;
    h->leads = heir_led = h->hurried = false;
    h->since_ns = time_monotonic_ns();
    h->busy_ns = 0;
    life_watch();
    h->mourns = !sys_failed(sys(SYS_prctl, PR_SET_PDEATHSIG, THREADS_SIGNAL, 0, 0, 0));
    struct tie *a = tie_find(h->page, h->above);
    if (a)
        a->pid = a->first_pid = (int32_t)sys(SYS_getpid);
    if (a && tie_look(&a->state) == LEADER)
        MUTANT("heir.unfollowed", (void)0, store_follow(&session->store, true));
    heir_candidate = heir_concerned = true;
    sigsys_thread_on();
}

void heir_leads(void)
{
    struct heir *h = session->heir;
    struct tie *s = heir_candidate ? heir_above(h) : NULL;
    if (!s)
        return;
    h->leads = heir_led = true;
    lead(s);
    heir_above(h);
}

void heir_mourns_itself(void)
{
    if (session->heir)
        session->heir->mourns = false;
}

void heir_become_plain(struct heir *h)
{
    for (struct tie *s = NULL, *now; (now = heir_above(h)) && now != s; s = now) {
        tie_decline(now);
        tie_unurged(now);
    }
    store_follow(&session->store, false);
    life_leave();
    if (h->mourns)
        sys(SYS_prctl, PR_SET_PDEATHSIG, 0, 0, 0, 0);
    tie_decline(tie_find(h->page, h->below));
    heir_candidate = heir_concerned = false;
    transport_forked();
    outbox_release();
    outbox_drain();
    call_passive = true;
    limits_give_back();
    sigsys_thread_off();
}

/* The parent was killed before it gave the lock up. One that is slow is between giving it up and saying so. */
static bool parent_failed(const struct heir *h, const struct tie *s)
{
    return guard_is_gone(h) && MUTANT("heir.lock_tells_all", true, tie_ended(h->page->guard)) && tie_look(&s->parent) == LEAVES;
}

/* The parent has committed, and waits: it gives the lock up as soon as it sees that this one is ready. */
static bool take(struct heir *h, struct tie *s)
{
    int32_t self = (int32_t)sys(SYS_getpid);
    __atomic_store_n(&s->pid, self, __ATOMIC_SEQ_CST);
    __atomic_store_n(&h->page->taker, self, __ATOMIC_SEQ_CST);
    store_lock_next(&session->store);
    if (!tie_change(s, LEADER, TAKING)) {
        store_lock_decline(&session->store);
        __atomic_store_n(&h->page->taker, 0, __ATOMIC_SEQ_CST);
        return false;
    }
    FAULT("heir.taking");
    while (!tie_await(&s->parent, LEAVES, SOON_MS))
        if (parent_failed(h, s))
            heir_die_with_parent();
    life_leave();
    if (h->mourns)
        sys(SYS_prctl, PR_SET_PDEATHSIG, 0, 0, 0, 0);
    boot_inherit();
    __atomic_store_n(&h->page->guard, self, __ATOMIC_SEQ_CST);
    fd_take_over();
    FAULT("heir.ready");
    h->taking = true;
    heir_candidate = false;
    return true;
}

/* A child of this one goes on alone if it did setsid() itself; else it is this one that goes on. */
static void settle_below(struct heir *h)
{
    struct tie *b = tie_find(h->page, h->below);
    if (tie_is_open(b) && !tie_look(&b->leads))
        tie_decline(b);
}

/* Whether the parent computes, or would if it had a processor. */
static bool parent_is_busy(void)
{
    char name[24], text[512];
    say_format(name, sizeof name, "%d/stat", (int)sys(SYS_getppid));
    long n = proc_read(name, text, sizeof text);
    while (n > 0 && text[n - 1] != ')') /* which ends the name, whatever is in it */
        n--;
    return n > 0 && n + 1 < (long)sizeof text && text[n + 1] != 'S';
}

/* A parent that leads exits now, or is the daemon itself and waits for something: until it is seen which of the two it does. */
static void await_second_fork(struct heir *h, struct tie *s)
{
    if (tie_await(&s->parent, LIVES, LOOK_MS))
        return;
    int64_t now = time_monotonic_ns();
    if (!h->busy_ns || parent_is_busy())
        h->busy_ns = now;
    if (now - h->busy_ns > SECOND_FORK_MS * 1000000L || now - h->since_ns > SECOND_FORK_LAST_MS * 1000000L)
        tie_decline(s);
}

bool heir_candidate_turn(struct heir *h, enum turn_reason reason)
{
    if (MUTANT("heir.settles_early", true, reason == TURN_WAIT))
        settle_below(h);
    /* It has forked, and may exit next: a signal in between, or what it says, decides nothing. */
    bool between = reason != TURN_WAIT && tie_is_open(tie_find(h->page, h->below));
    for (;;) {
        struct tie *s = heir_above(h);
        uint32_t parent = s ? tie_look(&s->parent) : 0;
        bool old = time_monotonic_ns() - h->since_ns > HEIR_YEARS_MS * 1000000L;
        if (!s || tie_look(&s->state) != LEADER || old) {
            heir_become_plain(h);
            return false;
        }
        if (killed_over(h, s))
            heir_die_with_parent();
        if (s->inherited && !h->leads && parent == LIVES) {
            await_second_fork(h, s);
            continue;
        }
        if (s->of_protected && parent == LEAVES && !between) {
            if (take(h, s))
                return true;
            continue;
        }
        if (!outbox_held() || h->hurried)
            break;
        h->hurried = !tie_await(&s->parent, parent, HEIR_HOLD_MS);
    }
    outbox_release();
    return false;
}

bool heir_due(void)
{
    struct heir *h = session->heir;
    struct tie *s = heir_above(h);
    uint32_t state = s ? tie_look(&s->state) : DECLINED;
    return state == DECLINED || (state == LEADER && s->of_protected && tie_look(&s->parent) == LEAVES);
}

/* Calls that may say something to a peer, or take what one said. */
static bool speaks(const struct call *c)
{
    switch (c->nr) {
    case SYS_read: case SYS_readv: case SYS_write: case SYS_writev: case SYS_recvfrom: case SYS_recvmsg: case SYS_recvmmsg:
    case SYS_sendto: case SYS_sendmsg: case SYS_sendmmsg: case SYS_sendfile: case SYS_splice: case SYS_shutdown: case SYS_connect:
    case SYS_accept: case SYS_accept4: case SYS_getsockopt: case SYS_ioctl:
        break;
    default:
        return false;
    }
    const struct description *d = fd_peek((int)c->arg[0]);
    const struct description *to = c->nr == SYS_splice ? fd_peek((int)c->arg[2]) : c->nr == SYS_sendfile ? fd_peek((int)c->arg[1]) : NULL;
    return (d && fd_may_meet_peers(d)) || (to && fd_may_meet_peers(to));
}

/* A candidate has no peers. One that leads waits for its parent's end, so as to have them; another one is plain, and its parent
 * carries what it says. */
bool heir_settle(const struct call *c)
{
    struct heir *h = session->heir;
    if (!peers_any() || !speaks(c))
        return false;
    int64_t began = time_monotonic_ns();
    turn_end(TURN_WAIT);
    while (heir_candidate && time_monotonic_ns() - began < HEIR_PEERS_MS * 1000000L) {
        struct tie *s = heir_above(h);
        if (s)
            tie_await(&s->parent, LIVES, SIGNAL_AGAIN_MS);
        turn_end(TURN_WAIT);
    }
    if (heir_candidate)
        heir_become_plain(h);
    return call_passive;
}

/* In the program's own code, or just before a wait. Anywhere else within libken the next turn's end sees to it. */
void heir_signalled(ucontext_t *uc)
{
    struct heir *h = session->heir;
    if (!heir_candidate || call_passive)
        return;
    struct tie *s = heir_above(h);
    if (s && killed_over(h, s))
        heir_die_with_parent();
    if (!heir_due() || signal_break_wait(uc) || thread_self()->inside > 0 || sigsys_is_ours(uc))
        return;
    struct call c = {.frame = uc};
    thread_self()->inside++;
    threads_lock();
    if (heir_candidate)
        turn_end(TURN_FLUSH);
    threads_unlock();
    if (--thread_self()->inside == 0 && signal_waiting())
        signal_leave(&c);
}

/* The second fork's parent, mostly: its child is in its place from now on. */
_Noreturn void heir_candidate_exit(struct heir *h, int status)
{
    struct tie *s = heir_above(h), *b = tie_find(h->page, h->below);
    if (s && tie_is_open(s) && tie_is_open(b) && !(status & 0xff)) {
        __atomic_store_n(&b->promoted, h->above, __ATOMIC_SEQ_CST);
        FAULT_STEP("tie.promoted");
        uint32_t state = tie_look(&b->state);
        if (state == LEADER)
            tie_change(s, CANDIDATE, LEADER);
        else if (state == DECLINED)
            tie_decline(s);
        __atomic_store_n(&s->pid, b->pid, __ATOMIC_SEQ_CST);
        tie_put(&b->parent, PROMOTED);
        if (tie_look(&s->parent) == LEAVES)
            tie_urge(s);
    } else {
        tie_decline(b);
        tie_decline(s);
    }
    struct tie *own = tie_find(h->page, h->born);
    if (own)
        own->exited = true;
    outbox_release();
    outbox_drain();
    for (;;)
        sys(SYS_exit_group, status);
}
