/* The commit: the one place where a turn becomes durable.
 *
 *   context saved -> restored pages verified, if touched -> areas refreshed -> dirty pages found -> compared with
 *   their twins -> one record -> ONE durable write.    Then, by the caller: outputs released -> commit_apply().
 *
 * Runs on the thread that ended the turn. Source of the idea: Yoo et al., "Composable Reliability for
 * Asynchronous Systems", USENIX ATC 2012, section 3 (turns), with write-ahead redo logging of lines.
 */
#ifndef KEN_HEAP_COMMIT_H
#define KEN_HEAP_COMMIT_H

#include "heap/session.h"

enum commit_result {
    COMMIT_DONE,    /* durable; outputs may leave */
    COMMIT_RESUMED, /* the same, and this is a new incarnation: the kernel's side is to be made again */
};

/* Makes the process's memory and the calling context durable as the next turn. Returns twice when a later
 * incarnation resumes. `captured` is called when memory has been copied, before the disk answers: other threads
 * may go on; but loose pages (heap/loose.h) must not change before commit() has returned.
 * Errors do not return: see log_commit(). Not thread-safe; no signal handler may run. */
enum commit_result commit(struct session *, enum run_state, void (*captured)(void));

/* Brings the image file up to the last commit. To be called after each commit, before the next. */
void commit_apply(struct session *);

#endif
