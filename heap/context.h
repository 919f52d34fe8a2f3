/* Saving and resuming a C call, as setjmp and longjmp do, across processes.
 *
 * setjmp cannot be used: glibc mangles the pointers with a secret of the process, and its
 * sigsetjmp enters the kernel. Needs no stack beyond the caller's; async-signal-safe.
 */
#ifndef KEN_HEAP_CONTEXT_H
#define KEN_HEAP_CONTEXT_H

#include "heap/layout_meta.h"

/* Stores the caller's context; returns 0. It returns a second time, with 1, when resumed. */
int context_save(struct context *) __attribute__((returns_twice));

/* Goes on behind the context_save() that filled `*c`. */
_Noreturn void context_resume(const struct context *c);

#endif
