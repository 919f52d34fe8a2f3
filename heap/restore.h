/* Restore: turns this process into the one that the image holds.
 *
 * The window, the session in it and the open store stay; everything else is replaced. Memory is mapped
 * lazily from the image file, so that the time does not grow with the heap, and verified when it is used (verify.h); what
 * has to be read at once (files' pages that were written, the stack, shared memory) is verified before anything is replaced.
 */
#ifndef KEN_HEAP_RESTORE_H
#define KEN_HEAP_RESTORE_H

#include "heap/session.h"

/* What the new process has to let go of. */
struct restore_self {
    uint64_t rseq, rseq_bytes, rseq_signature; /* rseq 0: not registered */
};

/* Goes on behind the commit() that made the image. Returns only on failure, with -errno after a message,
 * and then nothing was changed yet. All signals must be blocked. */
int restore(struct session *, const struct restore_self *);

/* To be called behind the restorer: closes the files that were opened to be mapped. */
void restore_done(struct session *);

#endif
