/* The page of progress: how much of a committed turn's outputs has left, exact under SIGKILL.
 *
 * A note written after a system call returned would come too late when the process is killed on its way out of the
 * kernel, and a reader that wakes up and kills the writer makes that likely. So the kernel itself writes down what it
 * took, before the call can end: sendmmsg(2) stores each message's length, sendfile(2) the file's offset, and both are
 * made to lie in this page, which is a page of a file of the store. What is left to a kill: outputs to pipes that were
 * shared with a child and streams that die with the process, where it does not matter.
 */
#ifndef KEN_NET_PROGRESS_H
#define KEN_NET_PROGRESS_H

#include "net/outbox.h"
#include "heap/sys.h"

#include <sys/socket.h>

#define PROGRESS_FINISHED 0x80000000u

struct release_progress {
    uint64_t turn;    /* whose outputs; 0: says nothing */
    uint64_t entries; /* done[0, entries) mean something */
    uint64_t bytes;   /* all together, for whoever looks from outside */
    uint32_t current; /* index + 1 of the entry that is with the kernel; 0: none */
    uint32_t before;  /* what had left of it before */
    int64_t base;     /* sendfile: where its piece began in the source */
    int64_t offset;   /*           where the kernel is now */
    struct mmsghdr message;             /* sendmmsg: msg_len is the kernel's answer */
    uint32_t done[OUTBOX_ENTRIES];      /* bytes that left; PROGRESS_FINISHED when settled */
};
_Static_assert(sizeof(struct release_progress) <= PAGE_BYTES, "one page");

/* Begins a commit's release: outbox.entries[0, committed). Takes over what an earlier incarnation achieved of the same
 * commit: done and finished of the entries. */
void progress_begin(void);

/* The entry's bytes that left and whether it is settled, after `bytes` more. */
void progress_note(const struct output *, long bytes);

/* Hands the rest of the entry to the kernel, which notes what it takes. The result of the call. */
long progress_emit(const struct output *);

/* True for the source of sendfile(2), a descriptor of libken. */
bool progress_owns(int fd);

/* In a new process: the source is gone. */
void progress_reopen(void);

#endif
