/* CPU time: what the process and its threads have used, over all incarnations.
 *
 * The kernel counts from 0 in each process. What was used up to a commit is written down with it, from the first time
 * that the program asks; the next incarnation adds what is missing.
 */
#ifndef KEN_SHIM_CALL_CPU_H
#define KEN_SHIM_CALL_CPU_H

#include "shim/call.h"

#include <stdint.h>

/* In struct peer. Nanoseconds. */
struct thread_cpu {
    int64_t last;                       /* what it had used at the last commit, as the program knows it */
    int64_t offset;                     /* what to add to the kernel's */
    int64_t user_seen, system_seen;     /* what the program was told of (RUSAGE_THREAD) */
    int64_t user_offset, system_offset; /* what to add to the kernel's, there */
};

/* Whether the clock counts the CPU time of a process or thread. */
bool cpu_is_clock(long clock);

/* Of such a clock: what to add to the kernel's time to get the program's. From now on it is watched. */
int64_t cpu_offset_ns(long clock);

/* A clock that is the calling thread's, by a name that says so in every thread; others as they are. */
long cpu_clock_named(long clock);

void cpu_capture(void); /* before each commit */
void cpu_resume(void);  /* all threads are there again */
void cpu_forked(void);  /* a child of fork has used nothing */

call_handler call_getrusage, call_times;

#endif
