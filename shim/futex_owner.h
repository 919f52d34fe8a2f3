/* Futexes whose word names the owner: robust and priority-inheriting mutexes.
 *
 * The word holds the tid that the program knows. The kernel compares it with its own number of the thread, which is another
 * one after a restart; and it may give a lock to a thread that is cut off before it hears of it. So libken does the kernel's
 * part, without lending priority.
 * Source: the kernel's Documentation/locking/robust-futex-ABI.rst and pi-futex.rst.
 */
#ifndef KEN_SHIM_FUTEX_OWNER_H
#define KEN_SHIM_FUTEX_OWNER_H

#include "shim/call.h"

/* The operation is one that libken does itself. */
bool owner_operation(int operation);

/* FUTEX_TRYLOCK_PI and FUTEX_UNLOCK_PI. */
long owner_try(const struct call *c);
long owner_unlock(const struct call *c);

/* FUTEX_LOCK_PI and FUTEX_LOCK_PI2: one attempt. True: *result is the answer. False: `*wait` is the call to wait with;
 * then try again. */
bool owner_lock(const struct call *c, bool waited, struct call *wait, long *result);

/* The calling thread ends: who waits for its robust mutexes is told. */
void owner_exits(void);

#endif
