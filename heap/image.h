/* The image: the committed memory of one program, in one flat file (format: layout_meta.h).
 *
 * `meta` and the tables behind it are this process's working copy of the file's first META_BYTES; they
 * run ahead of the file between commits and reach it through the log. `twin` is the file itself, mapped
 * shared: for each page of the program its committed twin.
 * Lives in the window. Not thread-safe: used with the program stopped.
 */
#ifndef KEN_HEAP_IMAGE_H
#define KEN_HEAP_IMAGE_H

#include "heap/layout_meta.h"
#include "heap/log.h"
#include "heap/verify.h"

#include <stddef.h>
#include <stdint.h>

struct punch {
    uint64_t offset, bytes;
};

struct image {
    int fd;
    uint64_t file_bytes; /* the file's size; what lies beyond must not be touched through twin */
    uint8_t *twin;       /* WINDOW_TWIN_BYTES of the file, MAP_SHARED */
    struct meta *meta;   /* META_BYTES in the window; the tables below point into it */
    struct chunk *chunks;
    struct area *areas;
    struct file *files;
    uint8_t *vdso;
    uint32_t *index; /* open addressing: hash of chunk number -> slot + 1 */
    uint32_t last;   /* the slot found last */
    uint32_t restored; /* slots below were mapped by the restore: not to be given to others while it lives */
    uint32_t *free_slots;
    uint32_t free_count;
    bool layout_changed; /* areas or files differ from the file's */
    struct unverified unverified;
    uint8_t *after; /* scratch: a page as it will be */
    struct punch *punches;
    size_t punch_count, punch_capacity;
};

/* Sets up the working copy for the image file `fd` (ownership passes). With `existing` the metadata are read
 * from the file, which the log must have brought up to date; else they start out empty.
 * Returns 0 or -errno; -EBADMSG when the metadata are not what the format says. */
int image_open(struct image *, int fd, bool existing);

/* In a child of fork, when the log was recovered: a working copy of its own, which holds no page: the next commit is all
 * of the process. What the files of its mappings are called stays as this process knows it. Returns as image_open(). */
int image_inherit(struct image *, bool existing);

/* Checks the metadata at the beginning of an image (at least META_BYTES of it, or all of a shorter one) against their
 * sums, each other and the file's size. 0, or -EBADMSG; nothing is changed. */
int image_examine(const void *beginning, uint64_t file_bytes);

/* The same for the file as it is. Returns 0 or -errno. */
int image_examine_file(int fd);

/* Which slot a page in the file lies in, and the how manieth of it it is. */
static inline uint32_t image_slot(uint64_t offset, unsigned *page)
{
    uint64_t at = offset - META_BYTES, within = at % GROUP_BYTES - GROUP_SUM_BYTES;
    *page = (unsigned)(within % CHUNK_BYTES / 4096);
    return (uint32_t)(at / GROUP_BYTES * GROUP_SLOTS + within / CHUNK_BYTES);
}

/* Where the page of `address` lies in the file, or 0 when its chunk has no slot. */
uint64_t image_find(struct image *, uintptr_t address);

/* As image_find(), but gives the chunk a slot. 0 when the table is full or the file cannot grow. */
uint64_t image_place(struct image *, uintptr_t address);

bool image_present(struct image *, uint64_t page_offset);
void image_set_present(struct image *, uint64_t page_offset);

/* The pages of [start, end) lost their contents (unmapped, replaced, dropped): forget them. Who drops a page may have read
 * it: those that are still to be verified are, now. */
void image_drop(struct image *, uintptr_t start, uintptr_t end);

/* How many pages from `address` up to `end` on are alike in having or not having a slot in one file run:
 * returns the end of that run; *offset is the file offset of its beginning, or 0 when there is none. */
uintptr_t image_run(struct image *, uintptr_t address, uintptr_t end, uint64_t *offset);

/* A commit's record is made in this order, which is also the order it is applied in. All return 0 or -errno.
 * First the punches: a slot that was given up may be in use again, and its new lines come behind. */
int image_log_punches(struct image *, struct log *);

/* Then the changed 64-byte lines (a bit each) of the page at `offset`, which was `before` (NULL: all zeros). Flags are the
 * log's. The record's sum is that of `before` with just these lines: others may write to `page` meanwhile. */
int image_log_lines(struct image *, struct log *, const void *page, const void *before, uint64_t offset,
                    uint64_t changed, unsigned flags);

/* Last the metadata, which the lines before may have changed. */
int image_log_meta(struct image *, struct log *);

#endif
