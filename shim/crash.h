/* A fatal signal in the program: a backtrace on stderr, written from outside by the helper program.
 *
 * libunwind must not enter the program, and nothing in a crashed program can be trusted, so a child
 * runs `kenctl crash PID TID SIGNAL TURN` against it. The store stays at the last committed turn.
 */
#ifndef KEN_SHIM_CRASH_H
#define KEN_SHIM_CRASH_H

#include <signal.h>
#include <ucontext.h>

/* Names the helper; the core calls it at boot and at resume. The path is copied; NULL, "": none. */
void crash_helper(const char *path);

/* Reports, then arranges that the process dies by `signal` as soon as the handler returns. Called
 * by the wrapper when the program's action is the default one. */
void crash_die(int signal, const siginfo_t *info, ucontext_t *uc);

/* "SIGSEGV" for SIGSEGV, "signal 34" is not known: returns NULL for those without a name. */
const char *crash_signal_name(int signal);

#endif
