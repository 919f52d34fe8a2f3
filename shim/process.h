/* Numbers of the process as the program knows them.
 *
 * The program keeps the pid of its first incarnation for ever: it is in its memory, in the TCB, in
 * files it wrote. Calls that name it are translated on their way to the kernel.
 */
#ifndef KEN_SHIM_PROCESS_H
#define KEN_SHIM_PROCESS_H

#include "shim/call.h"
#include "shim/children.h"

#include <signal.h>

void process_boot(void);   /* the program's pid is the kernel's from now on */
void process_resume(void); /* learns the new real one */

/* The pid (and tid of the first thread) that the program knows. */
long process_virtual_pid(void);

/* What to tell the kernel for a pid, tid or negated process group that the program names, and back.
 * Others than the program's own pass unchanged. In a child of fork nothing is translated. */
long process_real_pid(long pid);
long process_known_pid(long pid);

/* In a siginfo that came from the kernel: the sender's pid as the program knows it. */
void process_correct_sender(siginfo_t *info);

call_handler call_getpid, call_gettid, call_getppid, call_set_tid_address, call_group, call_setpgid,
    call_thread_first, call_thread_second;
call_handler call_kill, call_tkill, call_tgkill, call_rt_sigqueueinfo, call_rt_tgsigqueueinfo;

#endif
