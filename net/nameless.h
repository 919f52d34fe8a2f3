/* The names of open files, and files that lose theirs while they are open: temporary ones above all (tmpfile(), unlink() of
 * what was just made), logs that are moved aside, a file that another one is renamed over.
 *
 * A restart finds an open file by its path. One whose path goes gets a link in the store first, named after its inode
 * (in STORE_KEPT, layout.h); it is removed when, durably, nobody needs it: no description has it open, no mapping shows it, or its name
 * is known again. Without a link (another file system than the store's, hard links forbidden) the
 * descriptor reads as closed after a restart, and a line says so.
 *
 * A file that somebody else gave another name in its directory (a log that is rotated) is looked for there by its inode.
 *
 * Like every change to files these are not rolled back; but a name that was taken away in a turn that is lost is given back, so
 * that the turn finds it again. Not thread-safe; callers hold signals off.
 */
#ifndef KEN_NET_NAMELESS_H
#define KEN_NET_NAMELESS_H

#include "net/fdtable.h"

/* Learns path, device and inode of an open file, once. */
void file_learn(int fd, struct description *);

/* A file that is about to lose a name. */
struct loss {
    uint64_t device, inode;
    bool used; /* some description has it open, or had at the last commit, or a mapping may show it */
    bool kept; /* and the store has a link to it, just made */
};

/* Before unlink() or rename(): the file at `path`, as openat() takes it. */
struct loss nameless_before(int directory, const char *path);

/* True when a rename between them is one that a lost turn made already: both names lead to the file now, as the one that was taken
 * away was given back, and rename() would leave them so. */
bool nameless_again(const struct loss *from, const struct loss *to);

/* Behind it, with its result. */
void nameless_after(const struct loss *, long result);

/* A directory got another name, and so has whatever is in it. */
void nameless_moved(void);

/* A file that was opened without a name. */
void nameless_born(int fd, struct description *);

/* The file that the store keeps for a description, opened with these flags, or -ENOENT. */
long nameless_open(const struct fd_file *, uint32_t flags);

/* Opens a file by its path; or, when that is gone or leads to another file and the store has a link to the right one, by that: then
 * the path is made to lead to it again. Descriptor or -errno. */
long nameless_find(struct fd_file *, uint32_t flags);

/* The last description of a file is given up. */
void nameless_closed(const struct fd_file *);

/* In a new process, when every descriptor was made again: links that only a lost turn needed are removed. */
void nameless_reopened(void);

/* After a commit: links that nobody needs any more are removed. */
void nameless_committed(void);

#endif
