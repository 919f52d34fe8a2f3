/* A saved process: a store opened for reading, with its memory as the last committed turn left it.
 *
 * The store is never changed, also while its program runs. The image is a private copy that the log has brought
 * up to date. What the metadata say is checked before it is used: the store may be damaged.
 */
#ifndef KEN_HEAP_KENCTL_SAVED_H
#define KEN_HEAP_KENCTL_SAVED_H

#include "heap/kenctl_frames.h"
#include "heap/layout_meta.h"
#include "heap/log.h"
#include "heap/store.h"

#include <sys/types.h>

struct saved {
    struct store store;
    struct log log;
    uint8_t *image;
    uint64_t bytes;   /* of the image */
    long records;     /* how many the log held */
    pid_t holder;     /* the process that uses the store now; 0: none */
    bool empty;       /* no turn was committed yet; there is nothing else then */
    struct meta header;
    const struct meta *meta; /* `header` */
    const struct chunk *chunks;
    const struct area *areas;
    const struct file *files;
};

/* Opens the store, and says on stderr what is wrong with it. True if it is usable. While the program runs a
 * store that seems damaged is looked at again: it may have been read in the middle of a commit. */
bool saved_open(struct saved *, const char *directory);
void saved_close(struct saved *);

/* Copies memory of the process; what no private mapping holds is not there: false. */
bool saved_read(const struct saved *, uint64_t address, void *to, size_t bytes);

/* The bytes of page `address`, or NULL when the page is absent (zero, or the file's). */
const void *saved_page(const struct saved *, uint64_t address);
const struct area *saved_area(const struct saved *, uint64_t address);

/* Where the file of an area can be read: its pin in the store, else its path. False when it does not fit. */
bool saved_file_path(const struct saved *, const struct file *, char *path, size_t bytes);

/* The mappings of files, for names and symbols. 0 or -errno. */
int saved_objects(const struct saved *, struct objects *);

/* Gives the objects of a process that was resumed, which are mapped from pins, the names that their files had. */
void saved_name_pins(struct objects *);

/* Prints one line, "descriptors: 0 terminal, ..."; nothing where libken's symbols are stripped. */
void saved_print_descriptors(const struct saved *);

/* True if the program has committed since the store was opened, so that what was read may mix two turns. */
bool saved_went_on(const struct saved *);

/* Counts what in the metadata breaks the format's rules; tells it on stderr, one line each, if asked to. */
unsigned saved_check(const struct saved *, bool tell);

#endif
