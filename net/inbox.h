/* The inbox: input from an inherited pipe, FIFO or terminal, journaled so that a lost turn loses none.
 *
 * Bytes go from the kernel's pipe into an append-only file of the store (`inbox-N`) by splice(2), which is
 * completed inside the kernel even when the process is killed: the file's size tells exactly what was
 * consumed. The program reads from the file at a position kept in the image. Since a file offset is a logical
 * offset of the stream, for ever, no step needs to be atomic with another:
 *
 *   killed after the splice          the file is longer than the restored position: the rest is served again
 *   killed after the program's read  the same: the position is rolled back with the program
 *   killed after the commit          the position is durable; what lies before it is never read again
 *   killed before or in the punch    the hole lies wholly before the durable position
 *   power lost                       the file may be shorter than the position: it is lengthened again, and
 *                                    the writer of the pipe is gone as well
 *
 * Where splice is refused (terminals) the bytes are read and then appended; a kill between the two loses them.
 */
#ifndef KEN_NET_INBOX_H
#define KEN_NET_INBOX_H

#include "net/fdtable.h"

#include <sys/uio.h>

struct inbox {
    int64_t position; /* of the program's next byte */
    int64_t end;      /* the file's size, as far as this process knows */
    int64_t punched;  /* whole pages before this have been given back */
    int32_t file;     /* the journal's descriptor, of this incarnation */
    bool no_splice;
    char name[48];
    struct inbox *next; /* of all inboxes */
};

/* Gives the description an inbox if its input needs one (readable; a FIFO, terminal or inherited stream) and there
 * is a store. Harmless otherwise. */
void inbox_attach(struct description *, int fd);

/* Closes the journal; the file is removed once the turn is durable. NULL is nothing. */
void inbox_close(struct inbox *);

/* Bytes that the program may read without asking the kernel. */
size_t inbox_unread(const struct inbox *);

/* Moves up to `bytes` from the kernel to the journal. Returns how many, 0 at the end of the input, -EAGAIN when it
 * would block, or -errno. Never blocks, if nobody else reads from the same pipe. */
long inbox_fill(struct inbox *, int fd, size_t bytes);

/* Copies unread bytes to the program and moves the position. Returns how many or -errno. */
long inbox_take(struct inbox *, const struct iovec *, int count);

/* The journal's end may be further than known: a blocking splice into it, made by the caller, returned. */
void inbox_grown(struct inbox *, long bytes);

/* After a commit: what lies before every position is given back, files of closed inboxes are removed. */
void inbox_committed(void);

/* In a new process: opens the journals again. Returns 0 or -errno. */
int inbox_reopen(void);

/* True when `fd` is a journal's descriptor. */
bool inbox_owns(int fd);

/* True when some inbox holds unread bytes: the wait handlers have to look. */
bool inbox_any(void);

/* In a child of fork: all of them are its parent's. Whoever points to one forgets it. */
void inbox_forked(void);

/* What the journal holds was read by an earlier process: the input begins behind it. */
void inbox_begin_here(struct inbox *);

#endif
