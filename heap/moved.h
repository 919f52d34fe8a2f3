/* Directories that get another name, and names that are new. A turn that is lost did it, and will do it again, so
 * a restart undoes it first.
 *
 * The journal is one file in the store's directory of kept files: a record for each since the last commit, written down before it
 * is made. A record that is torn was no rename yet. Not thread-safe; callers hold signals off.
 */
#ifndef KEN_HEAP_MOVED_H
#define KEN_HEAP_MOVED_H

#include <stdbool.h>
#include <stdint.h>

struct stat;

#define MOVED_FILE ".moved"
#define MOVED_MADE (1U << 31)    /* among the flags: the name is new, and is removed */
#define MOVED_LASTING (1U << 30) /* with that: the note is to be on the disk before */
#define MOVED_FAILED (1U << 29)  /* with that: it was not made after all, or not by this process */

struct moving {
    uint64_t turn; /* that makes it: of the next commit */
    uint64_t inode, device; /* 0: of a new file */
    int64_t made_ns;        /* CLOCK_REALTIME */
    uint32_t flags; /* renameat2's, or MOVED_MADE */
    uint16_t from_bytes, to_bytes; /* of the paths behind it, with their ends; then comes the length of it all, 4 bytes */
};

/* Writes down that the directory, open as `fd`, is about to become `name` in the open directory `parent`. `root` is what its path
 * begins with. 0 or -errno: then a lost turn cannot be undone. */
long moved_note(int kept, int fd, int parent, const char *name, const char *root, uint32_t flags, uint64_t turn);

/* The same of a name that is about to be made, where none is; it will lead to the file `is`, or to a new one (NULL). */
long moved_note_made(int kept, const struct stat *is, int parent, const char *name, const char *root, uint32_t flags, uint64_t turn);

/* The turn is durable, or the renames failed. */
void moved_forget(int kept);

/* In a restart that goes on from `turn`, before a path is used: takes back what later ones did, the last first. */
void moved_undo(int kept, uint64_t turn);

#endif
