/* Signal state that is part of the image: what the program asked for, what waits for delivery.
 *
 * The kernel is given libken's wrapper in place of each of the program's handlers; this is the
 * table of the originals. No function here enters the kernel. Masks are the kernel's, 64 bits.
 */
#ifndef KEN_SHIM_SIGNAL_STATE_H
#define KEN_SHIM_SIGNAL_STATE_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#define SIGNAL_COUNT 65 /* signals are 1..64 */
#define SIGNAL_BIT(n) (1UL << ((n)-1))

/* Kept from the program: the net's, and the one that stops threads for a commit (THREADS_SIGNAL).
 * It is told that it blocked, handled or ignored them; the kernel never hears of it. */
#define SIGNAL_KEPT (SIGNAL_BIT(SIGSYS) | SIGNAL_BIT(64))
/* Signals an instruction raises; libken never blocks them, else the kernel kills at once. */
#define SIGNAL_FAULTS                                                                              \
    (SIGNAL_BIT(SIGSEGV) | SIGNAL_BIT(SIGBUS) | SIGNAL_BIT(SIGILL) | SIGNAL_BIT(SIGFPE) |          \
     SIGNAL_BIT(SIGTRAP))
/* What is blocked while something waits in the queue. */
#define SIGNAL_DEFERRED (~(SIGNAL_FAULTS | SIGNAL_KEPT))

/* struct sigaction as rt_sigaction(2) has it on x86-64. */
struct signal_action {
    uintptr_t handler;
    unsigned long flags;
    uintptr_t restorer;
    uint64_t mask;
};

/* A signal that came while libken was busy. The kernel blocks the rest from then on, so more than
 * one is rare: only faults sent by kill(2) get through. */
#define SIGNAL_QUEUE 8

/* How often signals were captured (with several threads): an entry has it in si_errno, of which nobody hears. */
extern uint32_t signal_captures;

struct signal_thread {
    int queued;   /* entries claimed; raised by the wrapper, emptied by signal_leave()/_block() */
    unsigned ran; /* handlers run so far; signal_block() compares */
    unsigned ran_plain; /* those of them without SA_RESTART */
    uint64_t mask;      /* while queued: the mask that the wrapper replaced by SIGNAL_DEFERRED */
    int unheard;        /* of pending.c: sent to this thread alone, and not heard, as far as is known. Atomic */
    int queue_heard;    /* what it heard meanwhile that need not have been among those. Atomic */
    bool handing;       /* gives back to the kernel what it had queued */
    uint64_t pretended; /* the part of SIGNAL_KEPT that the program believes it blocks */
    bool has_altstack;
    stack_t altstack; /* the program's, as it set it */
    siginfo_t queue[SIGNAL_QUEUE];
};

/* The program's action for 1 <= signal <= 64; everything zero is SIG_DFL. */
struct signal_action *signal_action(int signal);

/* The action the kernel must have for it: the wrapper, the crash handler, or as is. */
struct signal_action signal_kernel_action(int signal);

/* True for calls that start again after a handler with SA_RESTART. Source: signal(7). */
bool signal_restarts(long nr);

/* Adds `info`; a fault sent by kill(2) that finds the queue full is lost, as kernels merge them
 * too. `mask` is what the interrupted code ran with. Wrappers may nest: the outermost one's mask,
 * which every nested one's contains, is kept. Async-signal-safe. */
void signal_enqueue(struct signal_thread *t, const siginfo_t *info, uint64_t mask);

/* Takes out what came after the first `count`. */
void signal_dequeue(struct signal_thread *t, int count);

/* True when the action by default kills with a core, and libken reports it (crash.h). */
bool signal_is_crash(int signal);

#endif
