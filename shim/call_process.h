/* Calls that make, replace or end a process.
 *
 * A child runs unprotected and unhindered; the parent stays protected, unless the child is its heir (heir.h). exec inside the protected process
 * carries the protection over to the new program, in the same store. Exit is the last turn.
 */
#ifndef KEN_SHIM_CALL_PROCESS_H
#define KEN_SHIM_CALL_PROCESS_H

#include "shim/call.h"

call_handler call_fork, call_vfork, call_clone, call_clone3, call_execve, call_exit, call_setsid;

/* clone(2) for a child that shares this memory: it goes on at the frame's instruction pointer with the frame's
 * registers, a result of 0 and the stack of the call, not in the handler. Returns the child's pid or -errno. */
long clone_shared(unsigned long flags, unsigned long stack, long parent_tid, long child_tid, long tls,
                  const ucontext_t *frame);

/* The same for a thread: it calls threads_begin() before it goes on. */
long clone_thread(unsigned long flags, unsigned long stack, long parent_tid, long child_tid, long tls,
                  const ucontext_t *frame);

#endif
