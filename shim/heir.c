#include "shim/heir.h"
#include "heap/disk.h"
#include "heap/fault.h"
#include "heap/say.h"
#include "heap/session.h"
#include "heap/tracker.h"
#include "heap/window.h"
#include "net/fdtable.h"
#include "net/outbox.h"
#include "net/peers.h"
#include "shim/boot.h"
#include "shim/call_memory.h"
#include "shim/call_signal.h"
#include "shim/call_time.h"
#include "shim/children.h"
#include "shim/process.h"
#include "shim/sigsys.h"
#include "shim/threads.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#define TIES 62
#define SIGNAL_AGAIN_MS 50
#define SOON_MS 2 /* each looks whether the other lives */
#define UNDECIDED_MS 2000 /* an exit waits so long for a child that neither leads nor waits */
#define LEADER_MS 10000   /* and so long for one that leads to end a turn */
#define SECOND_FORK_MS 1000

enum { CANDIDATE = 1, LEADER, TAKING, TAKEN, DECLINED };
enum { LIVES = 1, LEAVES, RELEASED, PROMOTED };

/* One fork's child and parent. Both words are futexes. */
struct tie {
    uint64_t ticket;
    uint64_t promoted;   /* the ticket that the child now has, for its parent's */
    uint32_t state;      /* of the child; written by both, by compare and exchange */
    uint32_t parent;     /* of the parent; written by it */
    int32_t pid;         /* of the child */
    uint32_t leads;      /* the child itself called setsid() */
    uint32_t signalling; /* the parent is about to send a signal: the child must not exec just now */
    uint32_t of_protected;
    uint32_t inherited; /* it leads only because its parent does: it is the second of two forks, or not concerned */
};

struct lineage {
    uint64_t tickets;
    int32_t guard; /* pid of the protected process: it holds the store's lock */
    struct tie ties[TIES];
};

_Static_assert(sizeof(struct lineage) <= PAGE_BYTES, "one page");

/* In the window; after a fork each side has its own, all but the page. */
struct heir {
    struct lineage *page;
    uint64_t above, below; /* tickets: as whose child, and which child; 0: none */
    bool leads, taking, hurried, mourns;
    uint32_t outputs;
    int64_t since_ns; /* when it was forked; in a protected process, when its candidate was */
};

bool heir_concerned, heir_candidate;

void heir_boot(void)
{
    struct heir *h = window_alloc(sizeof *h);
    void *page = window_alloc(PAGE_BYTES);
    heir_concerned = heir_candidate = false;
    session->heir = NULL;
    if (!h || !page || sys_failed(sys(SYS_mmap, page, PAGE_BYTES, PROT_READ | PROT_WRITE,
                                      MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0)))
        return; /* without it children are plain */
    h->page = page;
    h->page->guard = (int32_t)sys(SYS_getpid);
    session->heir = h;
}

/* --- the page ------------------------------------------------------------------------------------ */

static uint32_t look(const uint32_t *word)
{
    return __atomic_load_n(word, __ATOMIC_SEQ_CST);
}

static void put(uint32_t *word, uint32_t value)
{
    __atomic_store_n(word, value, __ATOMIC_SEQ_CST);
    sys(SYS_futex, word, FUTEX_WAKE, INT32_MAX, 0, 0, 0);
}

static bool change(struct tie *s, uint32_t from, uint32_t to)
{
    bool done = __atomic_compare_exchange_n(&s->state, &from, to, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    if (done)
        sys(SYS_futex, &s->state, FUTEX_WAKE, INT32_MAX, 0, 0, 0);
    return done;
}

/* Waits until the word is another; false after `ms`. */
static bool await(const uint32_t *word, uint32_t value, long ms)
{
    int64_t until = time_monotonic_ns() + ms * 1000000;
    for (int64_t left; look(word) == value && (left = until - time_monotonic_ns()) > 0;) {
        struct timespec limit = time_spec(left);
        sys(SYS_futex, word, FUTEX_WAIT, value, &limit, 0, 0);
    }
    return look(word) != value;
}

/* NULL when others have been through the slot since. */
static struct tie *tie_of(const struct heir *h, uint64_t ticket)
{
    struct tie *s = &h->page->ties[ticket % TIES];
    return ticket && s->ticket == ticket ? s : NULL;
}

static struct tie *above(struct heir *h)
{
    for (;;) {
        struct tie *s = tie_of(h, h->above);
        uint64_t next = s ? __atomic_load_n(&s->promoted, __ATOMIC_SEQ_CST) : 0;
        if (!next)
            return s;
        h->above = next;
        if (h->leads && tie_of(h, next))
            put(&tie_of(h, next)->leads, 1);
    }
}

static bool is_undecided(const struct tie *s)
{
    return s && (look(&s->state) == CANDIDATE || look(&s->state) == LEADER);
}

static void decline(struct tie *s)
{
    if (s && !change(s, CANDIDATE, DECLINED))
        change(s, LEADER, DECLINED);
}

/* The one that holds the lock was killed. One that exits says so first. */
static bool guard_is_gone(const struct heir *h)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (sys_failed(sys(SYS_fcntl, session->store.lock_fd, F_GETLK, &lock)))
        return false;
    return lock.l_type == F_UNLCK || lock.l_pid != h->page->guard;
}

/* A parent that exits, or wants no heir, has said so before it went. */
static bool killed_over(const struct heir *h, const struct tie *s)
{
    return guard_is_gone(h) && look(&s->parent) == LIVES && look(&s->state) == LEADER;
}

/* The restart of the parent begins this child again: two must not be. */
static _Noreturn void die_with_parent(void)
{
    for (;;)
        sys(SYS_kill, sys(SYS_getpid), SIGKILL);
}

/* The end of the protected process closes the pipe, which sends its reader a signal: also a child's child, which
 * PR_SET_PDEATHSIG does not serve. The owner, the latest candidate, belongs to the one open file that all share. */
static void open_life(void)
{
    struct session *s = session;
    int ends[2];
    if (s->life[1] >= 0 || sys_failed(sys(SYS_pipe2, ends, O_CLOEXEC)))
        return;
    s->life[0] = (int)disk_high_fd(ends[0]);
    s->life[1] = (int)disk_high_fd(ends[1]);
    sys(SYS_fcntl, s->life[0], F_SETSIG, THREADS_SIGNAL);
    sys(SYS_fcntl, s->life[0], F_SETFL, O_ASYNC);
}

static void watch_life(void)
{
    disk_close(&session->life[1]);
    if (session->life[0] >= 0)
        sys(SYS_fcntl, session->life[0], F_SETOWN, sys(SYS_getpid));
}

static void leave_life(void)
{
    int fd = session->life[0];
    if (fd >= 0 && sys(SYS_fcntl, fd, F_GETOWN) == sys(SYS_getpid))
        sys(SYS_fcntl, fd, F_SETOWN, 0);
    disk_close(&session->life[0]);
}

void heir_not(void)
{
    disk_close(&session->life[1]);
    disk_close(&session->life[0]);
}

/* --- fork ---------------------------------------------------------------------------------------- */

bool heir_before_fork(void)
{
    struct heir *h = session->heir;
    if (!h || !session->sigsys || peers_any())
        return false;
    struct tie *b = tie_of(h, h->below);
    if (is_undecided(b) && look(&b->leads))
        return false;
    decline(b);
    struct tie *a = heir_candidate ? above(h) : NULL;
    uint64_t ticket = __atomic_add_fetch(&h->page->tickets, 1, __ATOMIC_SEQ_CST);
    struct tie *s = &h->page->ties[ticket % TIES];
    bool leads = a ? look(&a->state) == LEADER : h->leads;
    *s = (struct tie){.ticket = ticket, .parent = LIVES, .of_protected = !heir_candidate, .inherited = leads,
                      .state = leads ? LEADER : CANDIDATE};
    h->below = ticket;
    h->outputs = 0;
    if (!heir_candidate)
        open_life();
    if (!heir_candidate)
        h->since_ns = time_monotonic_ns();
    return true;
}

void heir_after_fork(long pid)
{
    struct heir *h = session->heir;
    struct tie *s = tie_of(h, h->below);
    if (sys_failed(pid))
        decline(s);
    else if (s) /* unless the child, or the one in its place, was faster */
        __atomic_compare_exchange_n(&s->pid, &(int32_t){0}, (int32_t)pid, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    heir_concerned = true;
}

/* What belongs to the parent, in the kernel or by number, is not this process's. */
void heir_begin(void)
{
    struct session *s = session;
    struct heir *h = s->heir;
    s->apart = true;
    tracker_close(&s->tracker);
    sys(SYS_close, s->maps_fd);
    long maps = sys(SYS_open, "/proc/self/maps", O_RDONLY | O_CLOEXEC, 0);
    s->maps_fd = sys_failed(maps) ? -1 : (int)disk_high_fd(maps);
    process_boot();
    threads_forked();
    children_forked();
    time_forked();
    fd_stand_by();
    h->above = h->below;
    h->below = 0;
    h->leads = h->hurried = false;
    h->since_ns = time_monotonic_ns();
    watch_life();
    h->mourns = !sys_failed(sys(SYS_prctl, PR_SET_PDEATHSIG, THREADS_SIGNAL, 0, 0, 0));
    struct tie *a = tie_of(h, h->above);
    if (a)
        a->pid = (int32_t)sys(SYS_getpid);
    heir_candidate = heir_concerned = true;
    sigsys_thread_on();
}

void heir_leads(void)
{
    struct heir *h = session->heir;
    struct tie *s = heir_candidate ? above(h) : NULL;
    if (!s)
        return;
    h->leads = true;
    put(&s->leads, 1);
    change(s, CANDIDATE, LEADER);
}

void heir_mourns_itself(void)
{
    if (session->heir)
        session->heir->mourns = false;
}

/* --- the candidate ------------------------------------------------------------------------------- */

static void become_plain(struct heir *h, struct tie *s)
{
    decline(s);
    for (int n = 0; s && look(&s->signalling) && n < 1000; n++)
        sys(SYS_sched_yield);
    leave_life();
    if (h->mourns)
        sys(SYS_prctl, PR_SET_PDEATHSIG, 0, 0, 0, 0);
    decline(tie_of(h, h->below));
    heir_candidate = heir_concerned = false;
    transport_forked();
    outbox_release();
    outbox_drain();
    call_passive = true;
    sigsys_thread_off();
}

/* The parent has committed, and waits: it gives the lock up as soon as it sees that this one is ready. */
static bool take(struct heir *h, struct tie *s)
{
    if (!change(s, LEADER, TAKING))
        return false;
    FAULT("heir.taking");
    while (!await(&s->parent, LEAVES, SOON_MS))
        if (guard_is_gone(h) && look(&s->parent) == LEAVES)
            die_with_parent();
    leave_life();
    if (h->mourns)
        sys(SYS_prctl, PR_SET_PDEATHSIG, 0, 0, 0, 0);
    boot_inherit();
    h->page->guard = (int32_t)sys(SYS_getpid);
    fd_take_over();
    FAULT("heir.ready");
    h->taking = true;
    heir_candidate = false;
    return true;
}

/* A child of this one goes on alone if it did setsid() itself; else it is this one that goes on. */
static void settle_below(struct heir *h)
{
    struct tie *b = tie_of(h, h->below);
    if (is_undecided(b) && !look(&b->leads))
        decline(b);
}

static bool candidate_turn(struct heir *h)
{
    settle_below(h);
    for (;;) {
        struct tie *s = above(h);
        uint32_t parent = s ? look(&s->parent) : 0;
        bool old = time_monotonic_ns() - h->since_ns > HEIR_YEARS_MS * 1000000L;
        if (!s || look(&s->state) != LEADER || old) {
            become_plain(h, s);
            return false;
        }
        if (s->inherited && !h->leads && parent == LIVES) {
            /* Its parent exits now, or is the daemon itself. */
            if (!await(&s->parent, parent, SECOND_FORK_MS))
                decline(s);
            continue;
        }
        if (s->of_protected && parent == LEAVES) {
            if (take(h, s))
                return true;
            continue;
        }
        if (killed_over(h, s))
            die_with_parent();
        if (!outbox_held() || h->hurried)
            break;
        h->hurried = !await(&s->parent, parent, HEIR_HOLD_MS);
    }
    outbox_release();
    return false;
}

bool heir_due(void)
{
    struct heir *h = session->heir;
    struct tie *s = above(h);
    return !s || (look(&s->state) == LEADER && s->of_protected && look(&s->parent) == LEAVES);
}

void heir_decline(void)
{
    struct heir *h = session->heir;
    if (heir_candidate)
        become_plain(h, above(h));
    else if (heir_concerned)
        decline(tie_of(h, h->below));
}

/* In the program's own code, or just before a wait. Anywhere else within libken the next turn's end sees to it. */
void heir_signalled(ucontext_t *uc)
{
    struct heir *h = session->heir;
    if (!heir_candidate || call_passive)
        return;
    struct tie *s = above(h);
    if (s && s->of_protected && killed_over(h, s))
        die_with_parent();
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
static _Noreturn void candidate_exit(struct heir *h, int status)
{
    struct tie *s = above(h), *b = tie_of(h, h->below);
    if (s && is_undecided(s) && is_undecided(b) && !(status & 0xff)) {
        __atomic_store_n(&s->pid, b->pid, __ATOMIC_SEQ_CST);
        if (look(&b->state) == LEADER)
            change(s, CANDIDATE, LEADER);
        __atomic_store_n(&b->promoted, h->above, __ATOMIC_SEQ_CST);
        put(&b->parent, PROMOTED);
        if (look(&s->parent) == LEAVES)
            sys(SYS_kill, s->pid, THREADS_SIGNAL);
    } else {
        decline(b);
        decline(s);
    }
    outbox_release();
    outbox_drain();
    for (;;)
        sys(SYS_exit_group, status);
}

/* --- the parent ---------------------------------------------------------------------------------- */

/* One that exits for a child of its own has written that one's pid before. */
static bool is_dead(const struct tie *s)
{
    int32_t pid = (int32_t)look((const uint32_t *)&s->pid);
    long fd = sys(SYS_pidfd_open, pid, 0);
    struct pollfd p = {(int)fd, POLLIN, 0};
    bool dead = fd == -ESRCH || (fd >= 0 && sys(SYS_poll, &p, 1, 0) == 1);
    if (fd >= 0)
        sys(SYS_close, fd);
    return dead && (int32_t)look((const uint32_t *)&s->pid) == pid;
}

static void urge(struct tie *s)
{
    put(&s->signalling, 1);
    if (look(&s->state) == LEADER && s->pid > 0)
        sys(SYS_kill, s->pid, THREADS_SIGNAL);
    put(&s->signalling, 0);
}

/* The heir is ready: from here on it may commit, and this process must not. */
static _Noreturn void leave(struct tie *s, int status)
{
    FAULT("heir.leaving");
    session->apart = true;
    transport_forked();
    disk_close(&session->store.lock_fd);
    put(&s->parent, RELEASED);
    FAULT("heir.released");
    while (!await(&s->state, TAKING, SOON_MS))
        if (is_dead(s) && look(&s->state) == TAKING)
            die_with_parent(); /* the store knows who of the two is the program: a restart tells */
    FAULT("heir.left");
    outbox_release();
    outbox_drain();
    for (;;)
        sys(SYS_exit_group, status);
}

void heir_exit(int status)
{
    struct heir *h = session->heir;
    if (!heir_concerned)
        return;
    if (heir_candidate)
        candidate_exit(h, status);
    struct tie *s = tie_of(h, h->below);
    if (!is_undecided(s) || (status & 0xff) || peers_any()) {
        decline(s);
        return;
    }
    FAULT("heir.offered");
    put(&s->parent, LEAVES);
    int64_t began = time_monotonic_ns();
    for (;;) {
        uint32_t state = look(&s->state);
        long waited = (time_monotonic_ns() - began) / 1000000;
        if (state == TAKING)
            leave(s, status);
        if (state == DECLINED)
            return;
        bool late = waited > (state == LEADER ? LEADER_MS : UNDECIDED_MS);
        if (late || is_dead(s)) {
            decline(s);
            continue;
        }
        urge(s);
        await(&s->state, state, SIGNAL_AGAIN_MS);
    }
}

/* While a candidate may become the daemon the store keeps the program as it was before the fork. */
static bool parent_turn(struct heir *h, enum turn_reason reason)
{
    struct tie *s = tie_of(h, h->below);
    if (!is_undecided(s)) {
        h->below = 0;
        heir_concerned = h->taking;
        return true;
    }
    if (s->inherited && !look(&s->leads)) {
        decline(s);
        return true;
    }
    int64_t age = time_monotonic_ns() - h->since_ns;
    if (reason == TURN_WAIT && !outbox_held() && age < HEIR_UNCOMMITTED_MS * 1000000L)
        return false;
    if (outbox_held() && ++h->outputs > HEIR_OUTPUTS)
        decline(s);
    return true;
}

bool heir_turn(enum turn_reason reason)
{
    struct heir *h = session->heir;
    return heir_candidate ? candidate_turn(h) : parent_turn(h, reason);
}

void heir_turned(void)
{
    struct heir *h = session->heir;
    if (!h || !h->taking)
        return;
    struct tie *s = tie_of(h, h->above);
    FAULT("heir.taken");
    h->taking = false;
    h->above = 0;
    heir_concerned = h->below != 0;
    if (tie_of(h, h->below))
        tie_of(h, h->below)->of_protected = 1;
    if (s)
        change(s, TAKING, TAKEN);
}
