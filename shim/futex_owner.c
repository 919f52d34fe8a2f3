#include "shim/futex_owner.h"
#include "heap/sys.h"
#include "shim/threads.h"

#include <linux/futex.h>

#ifndef FUTEX_LOCK_PI2
#define FUTEX_LOCK_PI2 13
#endif
#define ROBUST_MOST 2048 /* as the kernel: a list may be a circle */

static uint32_t self(void)
{
    return (uint32_t)threads_known_tid(sys(SYS_gettid));
}

bool owner_operation(int operation)
{
    switch (operation & FUTEX_CMD_MASK) {
    case FUTEX_LOCK_PI:
    case FUTEX_LOCK_PI2:
    case FUTEX_TRYLOCK_PI:
    case FUTEX_UNLOCK_PI:
        return true;
    default:
        return false;
    }
}

static bool change(uint32_t *word, uint32_t from, uint32_t to)
{
    return __atomic_compare_exchange_n(word, &from, to, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}

/* Takes a free word: 0. Else -EDEADLK when it is the caller's, or -EAGAIN with the word marked as waited for in *value. */
static long take(uint32_t *word, bool waited, bool mark, uint32_t *value)
{
    uint32_t me = self();
    for (;;) {
        uint32_t old = __atomic_load_n(word, __ATOMIC_ACQUIRE);
        if ((old & FUTEX_TID_MASK) == me)
            return -EDEADLK;
        uint32_t next = old | FUTEX_WAITERS;
        bool free = !(old & FUTEX_TID_MASK);
        if (free) /* whoever waited cannot know whether others still do */
            next = me | old | (waited ? FUTEX_WAITERS : 0);
        if (!free && !mark)
            return -EAGAIN;
        *value = next;
        if (change(word, old, next))
            return free ? 0 : -EAGAIN;
    }
}

long owner_try(const struct call *c)
{
    uint32_t value;
    return take((uint32_t *)c->arg[0], false, false, &value);
}

bool owner_lock(const struct call *c, bool waited, struct call *wait, long *result)
{
    uint32_t value, operation = (uint32_t)c->arg[1];
    long r = take((uint32_t *)c->arg[0], waited, true, &value);
    if (r != -EAGAIN) {
        *result = r;
        return true;
    }
    uint32_t clock = (operation & FUTEX_CMD_MASK) == FUTEX_LOCK_PI ? FUTEX_CLOCK_REALTIME : operation & FUTEX_CLOCK_REALTIME;
    *wait = (struct call){.nr = SYS_futex,
                          .arg = {c->arg[0], FUTEX_WAIT_BITSET | (operation & FUTEX_PRIVATE_FLAG) | clock, value, c->arg[3], 0,
                                  FUTEX_BITSET_MATCH_ANY}};
    return false;
}

long owner_unlock(const struct call *c)
{
    uint32_t *word = (uint32_t *)c->arg[0];
    if ((__atomic_load_n(word, __ATOMIC_ACQUIRE) & FUTEX_TID_MASK) != self())
        return -EPERM;
    __atomic_store_n(word, 0, __ATOMIC_RELEASE);
    sys(SYS_futex, word, FUTEX_WAKE | (c->arg[1] & FUTEX_PRIVATE_FLAG), 1, 0, 0, 0);
    return 0;
}

/* Waiters for a robust mutex wait by the shared key, those for a priority-inheriting one by either. */
static void bereave(uint32_t *word, uint32_t me)
{
    uint32_t old;
    do {
        old = __atomic_load_n(word, __ATOMIC_ACQUIRE);
        if ((old & FUTEX_TID_MASK) != me)
            return;
    } while (!change(word, old, (old & FUTEX_WAITERS) | FUTEX_OWNER_DIED));
    if (!(old & FUTEX_WAITERS))
        return;
    sys(SYS_futex, word, FUTEX_WAKE, 1, 0, 0, 0);
    sys(SYS_futex, word, FUTEX_WAKE_PRIVATE, 1, 0, 0, 0);
}

static uint32_t *word_of(const struct robust_list_head *head, const struct robust_list *entry)
{
    return (uint32_t *)(((uintptr_t)entry & ~1UL) + (uintptr_t)head->futex_offset);
}

void owner_exits(void)
{
    struct robust_list_head *head = NULL;
    size_t bytes;
    uint32_t me = self();
    if (sys_failed(sys(SYS_get_robust_list, 0, &head, &bytes)) || !head)
        return;
    const struct robust_list *entry = head->list.next, *pending = head->list_op_pending;
    for (int n = 0; entry != &head->list && n < ROBUST_MOST; n++) {
        const struct robust_list *here = (const struct robust_list *)((uintptr_t)entry & ~1UL), *next = here->next;
        if (entry != pending)
            bereave(word_of(head, here), me);
        entry = next;
    }
    if (pending)
        bereave(word_of(head, pending), me);
}
