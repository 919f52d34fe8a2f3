/* The program's threads: who they are, how they stand still for a commit, how they come back.
 *
 * One lock serialises libken: a handler holds it from its beginning to its end, except while it waits in the
 * kernel. So whoever commits finds every other thread in the program's own code, at the entrance, or in a wait:
 * never in the middle of a change. It stops them by a signal that the program does not see; the handler of
 * that signal is where each thread is saved, and where it comes back in the next incarnation.
 *
 * A thread that waits in the kernel was saved before it began to, and is left alone: it cannot come back to the
 * program without the lock. In the next incarnation it begins its wait anew.
 *
 * A wait in the kernel may be cut off after the kernel has answered and before libken has written the answer down. So
 * what changes libken's own records (a new descriptor, bytes taken from a pipe of the program's own) is only waited for
 * without the lock, by a poll, and taken with it.
 *
 * Lock order: the lock, then nothing. A thread that holds the allocator's lock may be stopped; the one that
 * commits must therefore not allocate.
 */
#ifndef KEN_SHIM_THREADS_H
#define KEN_SHIM_THREADS_H

#include "heap/layout_meta.h"
#include "shim/call.h"
#include "shim/call_cpu.h"

#include <signal.h>

#define THREADS_MAX 4096
#define THREADS_SIGNAL 64 /* SIGRTMAX: kept from the program, as SIGSYS is */

enum thread_state {
    THREAD_NONE,
    THREAD_RUNNING,
    THREAD_AWAY,    /* waits in the kernel, without the lock */
    THREAD_STOPPED, /* between the committer's request and its go */
    THREAD_EXITING, /* makes no more calls; gone as soon as the kernel says so */
};

/* Part of the image. Written by its thread, or by the holder of the lock while the thread stands still. */
struct peer {
    uint32_t state; /* enum thread_state; atomic */
    uint32_t go_seen;
    uint32_t asked; /* atomic: what waits for it in the kernel, by threads_ask() */
    bool leader; /* the thread the process began with */
    long tid;    /* as the program knows it; never changes */
    long real_tid;
    uint64_t fs_base;
    uint64_t clear_child_tid, robust_list, robust_list_bytes;
    uint64_t mask; /* the program's, of signals, when it went away */
    uint64_t rseq, rseq_bytes, rseq_signature;
    struct context context;
    struct thread_cpu cpu; /* call_cpu.c's */
};

/* True as soon as there was a second thread. */
extern bool threads_many;

void threads_boot(const struct meta *); /* the calling thread is the leader */

/* Installs the handler of THREADS_SIGNAL; once more when altstack_flag() says something else. */
void threads_install_signal(void);

/* In a child of fork that is followed: the calling thread is the only one, and the first. */
void threads_forked(void);

/* Entering and leaving libken, and a wait in the kernel in between. No-ops while there is one thread. */
void threads_lock(void);
void threads_unlock(void);

/* Calls wait(context), which only waits in the kernel, while others may go on and commit. Lock held. Returns what it
 * returns, or THREADS_AGAIN in a new incarnation: nothing was waited for. */
#define THREADS_AGAIN (-600L)
long threads_away(long (*wait)(void *), void *context);

/* True when every other thread of the program waits in the kernel, and nothing but its wait's end brings it back. Lock held.
 * No more than advice: a thread may wake the moment after. */
bool threads_alone(void);

/* The same, asked within a wait, without the lock: nobody is awake. */
bool threads_resting(void);

/* A handler of the program is about to run within such a wait, for this signal; `mask` is what the wait was made with. The
 * kernel has given the signal away: until the thread has the lock, it stands in its queue for whoever commits. */
void threads_back(const siginfo_t *, uint64_t mask);

/* Stops all other threads; they are saved when it returns. Lock held. */
void threads_stop(void);

/* Lets them go on. */
void threads_go(void);

/* How often the calling thread was stopped: a wait that was interrupted by it is just made again. */
unsigned threads_stops(void);

/* Which thread commits: written into the image's header. */
void threads_capture(struct meta *);

/* The threads of the program but for the calling one, which holds the lock: the first one from *place on, which is then its
 * place in the list; NULL behind the last one. */
struct thread;
struct thread *threads_other(uint32_t *place);

/* The kernel's number of the thread at that place. */
long threads_tid_at(uint32_t place);

/* The thread that the program calls `tid`, or NULL. */
struct thread *threads_named(long tid);
struct peer *threads_by_tid(long tid);

/* The entry at that place, which may be of no living thread; NULL behind the last one. */
struct peer *threads_at(uint32_t place);

/* Has a thread call pending_answer() now, wherever it stands or waits; true: it waits, and may do more than that. After
 * threads_stop(). */
bool threads_ask(uint32_t place);

/* In a new incarnation, running as the thread that committed: makes the others again; they wait for
 * threads_go(). If the committer was not the leader, the two change places first. */
void threads_resume(void);

/* The kernel's number of a thread that the program calls `tid`, and back; the same when it is none of ours. */
long threads_real_tid(long tid);
long threads_known_tid(long real_tid);

call_handler call_clone_thread, call_futex, call_set_robust_list, call_rseq;

/* Where clone_shared.S enters a new thread, and one that comes back. */
void threads_begin(void);
_Noreturn void threads_reenter(struct peer *);

/* Ends the calling thread if it is not the last one; returns if it is. */
void threads_exit(long status);

#endif
