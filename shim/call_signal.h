/* Signals under libken: handlers of the program run when libken is at rest, and at once in a wait.
 *
 * The kernel has signal_wrapper() for each handler of the program. While a handler of libken runs
 * (thread_self()->inside > 0) the wrapper queues the signal, blocks the rest and returns; on the
 * way out the kernel is asked to deliver it again. Only signal_block() lowers `inside` for its
 * wait, and gives libken's lock away meanwhile.
 *
 * The core's part:
 *   - signal_boot() before Syscall User Dispatch is on; signal_capture() before each commit and
 *     signal_captured() as soon as memory is copied; signal_resume() in the new process, with
 *     `inside` raised;
 *   - the SIGSYS net is installed with SA_SIGINFO | SA_NODEFER | SA_RESTORER, an empty mask and
 *     signal_restorer, so that within it the kernel's mask is the program's. SA_ONSTACK if
 *     altstack_flag() says so: where the program has no alternate stack there is a small one
 *     of libken's, for overflows mostly;
 *   - call_dispatch(): `if (--thread_self()->inside == 0 && signal_waiting()) signal_leave(c);`
 *   - signal_forked() in a child of fork;
 *   - masks that calls carry (ppoll, pselect6, epoll_pwait) go through signal_mask_read().
 */
#ifndef KEN_SHIM_CALL_SIGNAL_H
#define KEN_SHIM_CALL_SIGNAL_H

#include "shim/call.h"
#include "shim/thread.h"

/* Adopts what the process inherited and catches fatal signals. Calls process_boot(). */
void signal_boot(void);

/* Remembers mask, pending signals and timers. From here on all is blocked, so that no signal changes
 * memory while it is copied; then signal_captured() sets the mask back. */
void signal_capture(void);
void signal_captured(void);

/* Gives the new process all of it. Calls process_resume() and children_resume(). */
void signal_resume(void);

/* The calling thread's own part, in a new incarnation: alternate stack and mask. What was queued still is. */
void signal_thread_resume(uint64_t mask);

/* The mask of the calling thread's program, which something that is queued covers up. */
uint64_t signal_mask_thread(void);

/* In a child of fork: nothing is queued there. */
void signal_forked(void);

/* Has what is queued delivered now, with `inside` at 0 meanwhile. For exec: the new program would
 * inherit the mask that the queue brings with it. */
void signal_settle(void);

/* True when signals wait for libken to leave. One load: the fast path's whole cost. */
static inline bool signal_waiting(void)
{
    return __builtin_expect(thread_this.signals.queued != 0, 0);
}

/* Has the queued signals delivered. `inside` must be 0. With c->frame they come as soon as that
 * frame returns, else before this function does; their handlers may not return (longjmp). */
void signal_leave(struct call *c);

/* Runs the blocking call `c` in the kernel with `inside` at 0: the program's handlers run at once,
 * also for signals that were queued before. Returns what the kernel would have: -EINTR after a
 * handler without SA_RESTART or for a call that never restarts; otherwise it ends the turn again,
 * because the handler may have sent something, and goes on waiting. Call turn_end(TURN_WAIT)
 * before. A handler may leave by longjmp: `inside` is 0 then, as the program's own code expects,
 * and the caller's frame is gone, so nothing in it may need undoing. Call it with c->frame's masks
 * stripped. */
long signal_block(struct call *c);

/* The same, but where signal_block() would go on SIGNAL_AGAIN comes back (end the turn first), or THREADS_AGAIN
 * (threads.h: there is another incarnation, which may be another boot's): for callers whose arguments must be prepared anew
 * (a time-out, descriptors of libken that a restore replaced). */
#define SIGNAL_AGAIN (-601L)
long signal_block_once(struct call *c);

/* Whether the result is one of those two; ends the turn for the first. */
bool signal_again(long result);

/* The same for a wait that stands for another call, `nr`, as ppoll may for the program's read:
 * whether a handler with SA_RESTART ends it goes by that one. */
long signal_block_for(struct call *c, long nr);

/* Copies between the program's memory and libken's; false where the kernel would say EFAULT. */
bool fault_copy(void *to, const void *from, size_t bytes);

/* Copies a mask that a call carries; takes SIGNAL_KEPT out. Returns 0, -EINVAL (the
 * size is not 8) or -EFAULT. */
long signal_mask_read(uint64_t *to, const void *from, size_t size);

/* The mask the program's code runs with. Source: the frame of the call, if it has one. */
uint64_t signal_mask_current(const struct call *c);

/* Gives the kernel the action for `signal` that fits signal_action(signal). 0 or -errno. */
long signal_install(int signal);

/* If the interrupted code is about to wait in the kernel, or does: it looks again what there is to do, and true. */
bool signal_break_wait(ucontext_t *);

/* Entered by the kernel only. */
void signal_wrapper(int signal, siginfo_t *info, void *context);
void signal_restorer(void);

call_handler call_rt_sigaction, call_rt_sigprocmask, call_rt_sigpending, call_rt_sigsuspend,
    call_rt_sigtimedwait, call_pause;

#endif
