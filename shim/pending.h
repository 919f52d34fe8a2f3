/* Signals that wait in the kernel, for one thread or for the process, with all they carry.
 *
 * The kernel shows which signals wait, but what they carry only to who takes them. So a commit takes them and sends
 * them again, each by the thread that it waits for: the committer its own and the process's, then every other thread
 * for which something may wait its own. Where nothing waits this costs nothing.
 *
 * Not so the signals of timers and alarms, which go on when their signal is taken: for those it is enough to know that
 * they wait. What another process sent to one of several threads (tgkill from outside) is not known of.
 */
#ifndef KEN_SHIM_PENDING_H
#define KEN_SHIM_PENDING_H

#include "shim/thread.h"

/* Beyond so many they are not saved. */
#define PENDING_MAX 256

/* The program sends a signal to the thread, or a timer has done so. Before it is sent; `sign` -1 takes it back. Lock held. */
void pending_sent(struct thread *, int sign);

/* The thread has this from the kernel. Async-signal-safe. */
void pending_heard(const siginfo_t *);

/* It gives what it had heard back to the kernel, and is about to hear it again; and that is over. */
void pending_handing(void);
void pending_handed(void);

/* Sends it to thread `tid`, as the kernel knows it, or to the process (0), with all it carries if the kernel allows. */
void pending_send(siginfo_t *info, long tid);

/* Before each commit: writes down what waits; `pending` is what rt_sigpending says. All threads stand still, all signals are
 * blocked in the caller. */
void pending_capture(uint64_t pending);

/* Called by a thread that the committer asked (threads_ask()): takes its own. */
void pending_answer(void);

/* Whether it was captured as waiting for this thread, or for all. In a new incarnation only. */
bool pending_holds(const struct thread *, int signal);

/* In a new incarnation: sends all again. Every thread blocks signals, and the program's actions are in force. */
void pending_resume(void);

void pending_exit(void);   /* of the calling thread */
void pending_forked(void); /* in a child of fork nothing waits */

#endif
