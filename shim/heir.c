#include "heap/disk.h"
#include "heap/fault.h"
#include "heap/say.h"
#include "heap/session.h"
#include "heap/window.h"
#include "net/outbox.h"
#include "net/peers.h"
#include "shim/call_time.h"
#include "shim/children.h"
#include "shim/heir_inner.h"
#include "shim/threads.h"

#include <fcntl.h>
#include <sys/mman.h>

#define UNDECIDED_MS 2000 /* an exit waits so long for a child that neither leads nor waits */
#define LEADER_MS 10000   /* and so long for one that leads to end a turn */
#define ENDING_LOOKS 10   /* a daemon that is ending gets so many ms */

bool heir_concerned, heir_candidate, heir_led;

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
    h->leads = MUTANT("heir.lead_forgotten", false, heir_led);
    session->heir = h;
}

void heir_not(void)
{
    disk_close(&session->life[1]);
    disk_close(&session->life[0]);
}

bool heir_before_fork(void)
{
    struct heir *h = session->heir;
    if (!h || !session->sigsys)
        return false;
    struct tie *b = tie_find(h->page, h->below);
    if (tie_is_open(b) && tie_look(&b->leads))
        return false;
    tie_decline(b);
    struct tie *a = heir_candidate ? heir_above(h) : NULL;
    uint64_t ticket;
    struct tie *s = tie_make(h->page, &ticket);
    bool leads = a ? tie_look(&a->state) == LEADER : h->leads;
    s->of_protected = !heir_candidate;
    s->up = h->above;
    s->inherited = leads;
    s->state = leads ? LEADER : CANDIDATE;
    h->below = h->last = ticket;
    h->outputs = 0;
    if (!heir_candidate)
        life_open();
    if (!heir_candidate)
        h->since_ns = time_monotonic_ns();
    return true;
}

/* Peers are not heard meanwhile: what this process takes in after the fork its child would not know. */
static bool undecided(void)
{
    struct heir *h = session->heir;
    struct tie *s = tie_find(h->page, h->below);
    bool soon = peers_any() && s && tie_look(&s->state) == CANDIDATE;
    int64_t age = time_monotonic_ns() - h->since_ns;
    return tie_is_open(s) && age < (soon ? HEIR_SETSID_MS : HEIR_PEERS_MS) * 1000000L;
}

void heir_after_fork(long pid)
{
    struct heir *h = session->heir;
    struct tie *s = tie_find(h->page, h->below);
    if (sys_failed(pid))
        tie_decline(s);
    else if (s) /* unless the child, or the one in its place, was faster */
        __atomic_compare_exchange_n(&s->pid, &(int32_t){0}, (int32_t)pid, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    heir_concerned = true;
    if (!heir_candidate && tie_is_open(s))
        transport_hold_while(undecided);
}

/* The heir is ready: from here on it may commit, and this process must not. */
static _Noreturn void leave(struct tie *s, int status)
{
    FAULT("heir.leaving");
    session->apart = true;
    transport_forked();
    disk_close(&session->store.lock_fd);
    if (VARIANT("heir.parts_slowly", true, false))
        disk_pause(10 * SOON_MS);
    tie_put(&s->parent, RELEASED);
    FAULT("heir.released");
    while (!tie_await(&s->state, TAKING, SOON_MS))
        if (tie_is_dead(s) && tie_look(&s->state) == TAKING)
            heir_die_with_parent(); /* the store knows who of the two is the program: a restart tells */
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
        heir_candidate_exit(h, status);
    struct tie *s = tie_find(h->page, h->below);
    if (!tie_is_open(s) || (status & 0xff) || peers_spoke()) {
        tie_decline(s);
        transport_hold_while(NULL);
        return;
    }
    FAULT("heir.offered");
    tie_put(&s->parent, LEAVES);
    int64_t began = time_monotonic_ns();
    for (;;) {
        uint32_t state = tie_look(&s->state);
        long waited = (time_monotonic_ns() - began) / 1000000;
        if (state == TAKING)
            leave(s, status);
        if (state == DECLINED)
            return;
        bool late = waited > (state == LEADER ? LEADER_MS : UNDECIDED_MS);
        if (late || tie_is_dead(s)) {
            tie_decline(s);
            continue;
        }
        tie_urge(s);
        tie_await(&s->state, state, SIGNAL_AGAIN_MS);
    }
}

/* Or in this one, when it was forked by a daemon that did not wait since: it did not see that it may go on. */
static bool one_lives(const struct heir *h)
{
    long own = sys(SYS_getsid, 0);
    for (int i = 0; i < TIES; i++) {
        const struct tie *s = &h->page->ties[i];
        long theirs = s->ticket >= h->last && s->pid > 0 ? sys(SYS_getsid, s->pid) : 0;
        bool apart = theirs != own || (s->inherited && s->ticket == h->below);
        if (theirs > 0 && apart && !tie_ended(s->pid))
            return true;
    }
    return false;
}

bool heir_went_on(void)
{
    const struct heir *h = session->heir;
    for (int attempt = 0; attempt < ENDING_LOOKS; attempt++) {
        if (!h || !h->last || !one_lives(h))
            return false;
        disk_pause(1);
    }
    return true;
}

bool heir_followed(long pid)
{
    const struct heir *h = session->heir;
    for (int i = 0; h && i < TIES; i++)
        if (h->page->ties[i].exited && h->page->ties[i].first_pid == pid)
            return true;
    return false;
}

/* While a candidate may become the daemon the store keeps the program as it was before the fork. */
static bool parent_turn(struct heir *h, enum turn_reason reason)
{
    struct tie *s = tie_find(h->page, h->below);
    bool goes_on_itself = s && s->inherited && !tie_look(&s->leads) && reason == TURN_WAIT;
    if (peers_spoke() || goes_on_itself)
        tie_decline(s);
    if (!tie_is_open(s)) {
        h->below = 0;
        heir_concerned = h->taking;
        transport_hold_while(NULL);
        return true;
    }
    int64_t age = time_monotonic_ns() - h->since_ns;
    if (reason == TURN_WAIT && !outbox_held() && age < HEIR_UNCOMMITTED_MS * 1000000L)
        return false;
    if (outbox_held() && ++h->outputs > HEIR_OUTPUTS)
        tie_decline(s);
    return true;
}

bool heir_turn(enum turn_reason reason)
{
    struct heir *h = session->heir;
    return heir_candidate ? heir_candidate_turn(h, reason) : parent_turn(h, reason);
}

void heir_turned(void)
{
    struct heir *h = session->heir;
    if (!h || !h->taking)
        return;
    struct tie *s = tie_find(h->page, h->above);
    FAULT("heir.taken");
    h->taking = false;
    h->above = 0;
    __atomic_store_n(&h->page->taker, 0, __ATOMIC_SEQ_CST);
    heir_concerned = h->below != 0;
    if (tie_find(h->page, h->below))
        tie_find(h->page, h->below)->of_protected = 1;
    if (s)
        tie_change(s, TAKING, TAKEN);
}

void heir_decline(void)
{
    struct heir *h = session->heir;
    if (heir_candidate)
        heir_become_plain(h);
    else if (heir_concerned)
        tie_decline(tie_find(h->page, h->below));
}
