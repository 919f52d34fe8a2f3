/* A small futex lock (Drepper, "Futexes are tricky", mutex 3), entered by raw system calls only.
 *
 * The allocator has one. Held for short: spins a little first. Not recursive. The word is ordinary
 * memory: in the image it says "free" or is held by a thread that comes back with it. */
#ifndef KEN_HEAP_ALLOC_LOCK_H
#define KEN_HEAP_ALLOC_LOCK_H

#include "heap/sys.h"

#include <linux/futex.h>

struct lock {
    int word; /* 0 free, 1 held, 2 held and waited for */
};

static inline bool lock_try(struct lock *l)
{
    int expected = 0;
    return __atomic_compare_exchange_n(&l->word, &expected, 1, false, __ATOMIC_ACQUIRE,
                                       __ATOMIC_RELAXED);
}

static inline void lock_take(struct lock *l)
{
    for (int spin = 0; spin < 100; spin++) {
        if (lock_try(l))
            return;
        __builtin_ia32_pause();
    }
    while (__atomic_exchange_n(&l->word, 2, __ATOMIC_ACQUIRE) != 0)
        sys(SYS_futex, &l->word, FUTEX_WAIT_PRIVATE, 2, 0, 0, 0);
}

static inline void lock_give(struct lock *l)
{
    if (__atomic_exchange_n(&l->word, 0, __ATOMIC_RELEASE) == 2)
        sys(SYS_futex, &l->word, FUTEX_WAKE_PRIVATE, 1, 0, 0, 0);
}

#endif
