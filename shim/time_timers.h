/* POSIX timers. The program's ids are places in a table; the kernel's differ in each incarnation.
 */
#ifndef KEN_SHIM_TIME_TIMERS_H
#define KEN_SHIM_TIME_TIMERS_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

/* More of them fail with EAGAIN, as beyond RLIMIT_SIGPENDING. */
#define TIMERS_MAX 64

bool timers_capture(uint64_t *rung); /* as time_capture_timers() */

uint64_t timers_signals(void);                 /* as time_timers_signals() */
bool timers_info(siginfo_t *info, long tid); /* as time_timers_info() */

/* As time_left_ns(). How long the process was away, by the monotonic and by the wall clock. */
void timers_resume(int64_t down, int64_t wall_down);

void timers_forked(void);

#endif
