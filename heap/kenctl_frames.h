/* A backtrace as a list of addresses, and its printing.
 *
 * The lines read `  #0 0x7f12 function+0x1f (libfoo.so)`, or `  #0 0x7f12 libfoo.so+0x11f` where no
 * symbol is known: that number is what addr2line takes.
 */
#ifndef KEN_HEAP_KENCTL_FRAMES_H
#define KEN_HEAP_KENCTL_FRAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { FRAMES_MOST = 64 };

struct frame {
    uint64_t ip;
    bool exact; /* ip is where it stopped, not the address after a call */
    bool signal; /* the kernel's frame under a signal handler */
};

/* What lies where in the process. */
struct object {
    uint64_t start, end, offset, inode;
    char *path; /* the file to read symbols from */
    char *name; /* what people call it */
};

struct objects {
    struct object *list;
    size_t count;
};

/* The mappings of files in /proc/PID/maps. 0 or -errno. Freed by objects_free(). */
int objects_of_process(struct objects *objects, int pid);
int objects_add(struct objects *objects, const struct object *object);
const struct object *objects_find(const struct objects *objects, uint64_t address);
void objects_free(struct objects *objects);

/* Prints one line for frame number `n` with a prefix, in one write. */
void frame_print(int fd, const char *prefix, unsigned n, const struct frame *frame,
                 const struct objects *objects);

#endif
