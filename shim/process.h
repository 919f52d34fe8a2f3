/* Numbers of the process as the program knows them, and its children.
 *
 * The program keeps the pid of its first incarnation for ever: it is in its memory, in the TCB, in
 * files it wrote. Calls that name it are translated on their way to the kernel.
 */
#ifndef KEN_SHIM_PROCESS_H
#define KEN_SHIM_PROCESS_H

#include "shim/call.h"

#include <signal.h>

void process_boot(void);   /* the program's pid is the kernel's from now on */
void process_resume(void); /* learns the new real one; children of the last incarnation are dead */

/* The pid (and tid of the first thread) that the program knows. */
long process_virtual_pid(void);

/* What to tell the kernel for a pid, tid or negated process group that the program names, and back.
 * Others than the program's own pass unchanged. In a child of fork nothing is translated. */
long process_real_pid(long pid);
long process_known_pid(long pid);

/* In a siginfo that came from the kernel: the sender's pid as the program knows it. */
void process_correct_sender(siginfo_t *info);

/* Children that wait4() has not reported yet. The core's fork handler adds them in the parent.
 * When the table is full further ones are not known after a restart: wait4 says ECHILD then. */
#define CHILDREN_MAX 256
void children_add(long pid);
void children_remove(long pid);

/* Takes a child that died with the last incarnation out of the table: any one (pid -1), or that one.
 * Returns its pid, 0 when there is none. children_dead() only looks. */
long children_take_dead(long pid);
bool children_dead(long pid);

call_handler call_getpid, call_gettid, call_getppid, call_set_tid_address, call_pid_first,
    call_pid_second;
call_handler call_wait4, call_waitid;

#endif
