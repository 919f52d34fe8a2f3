/* The redo log: how one turn's changes to the image become durable in one write.
 *
 *   log_begin(); log_lines() ...; log_punch() ...; log_commit();  -> durable
 *   log_apply();                                                  -> in the image file (page cache)
 *
 * Rules that hold this together:
 *  1. A record is in the log, durably, before any of its lines reaches the image file.
 *  2. A record is applied before the next one is committed: its lines, and the sums of the pages that they lie in.
 *  3. A segment is used again only when the image has been synced since its last record was applied,
 *     *and* a durable record says so (struct record.synced). Else recovery could not tell a segment that
 *     is being reused from a damaged one.
 *     What is owed to the image (heap/loose.h) is in it before the sync begins.
 *  4. One write is in flight at a time, so a valid record behind an invalid one is damage, not a tear.
 * Records, segments and their validity: layout.h. Source of the idea: Mohan et al., "ARIES", TODS 1992
 * (redo), with physical line images so that replaying twice does no harm.
 *
 * struct log lives in the window, zeroed before its first use. Not thread-safe. Nothing allocates.
 */
#ifndef KEN_HEAP_LOG_H
#define KEN_HEAP_LOG_H

#include "heap/layout.h"
#include "heap/store.h"

#include <liburing.h>

#define LOG_BUFFER_BYTES (8UL << 30) /* address space for one record; pages are given back after use */

enum sync {
    SYNC_POWER,   /* a commit survives the loss of power */
    SYNC_PROCESS, /* a commit survives the death of the process only */
};

enum log_flags {
    LOG_NEW = 1, /* these lines may lie on a page the file has no block for: written by pwrite, so that a
                    full disk is an error, not a SIGBUS */
};

struct log_segment {
    int direct_fd;   /* O_DIRECT, or -1 where it is refused */
    int buffered_fd; /* the same file */
    uint64_t bytes;  /* size of the file */
    uint64_t tail;   /* where the next record goes */
    uint64_t last;   /* sequence of the last record in it, 0 when there is none */
};

/* The io_uring that background syncs go through; made at the first one. */
struct log_ring {
    struct io_uring uring;
    int fd; /* valid while `mapped` */
    bool mapped;
    bool refused; /* this kernel has none: sync in the foreground */
};

struct log {
    struct store *store;
    int image_fd;          /* not owned */
    enum sync sync;
    bool read_only;
    uint8_t *twin;         /* the image mapped shared, set by log_use_twin(); NULL: apply by pwrite */
    struct log_segment segment[2];
    unsigned active;       /* the segment records are appended to */
    uint64_t nominal;      /* bytes of a segment */
    uint64_t sequence;     /* of the last committed record */
    uint64_t applied;      /* of the last applied record */
    uint64_t synced;       /* the image is on the disk up to this record */
    uint64_t proven;       /* the highest `synced` that a durable record carries */
    uint64_t sync_target;  /* what `synced` becomes when the running sync ends; 0: none runs */
    uint64_t sync_bytes;   /* the image file's size when the running sync began */
    uint64_t synced_bytes; /* the same of the last one that ended: so much of the file is on the disk */
    uint64_t boot;         /* which boot of the machine this is */
    uint64_t mount;        /* and which mount the image is on; 0: the kernel does not tell (before Linux 6.8) */
    bool trust_cache;      /* records that were applied in this boot and mount are in the page cache: not again */
    struct loose *loose;   /* NULL: nothing is ever owed */
    uint64_t owed;         /* the first record of the idle segment of which the image may lack something; 0: none */
    uint64_t owed_next;    /* the same of the active one */
    uint64_t image_end;    /* found by log_recover(): no record reaches beyond this offset */
    struct log_ring ring;
    /* The record in the making. */
    uint8_t *buffer;
    uint64_t used; /* bytes of it, header included */
    uint32_t runs;
    bool owes;   /* it has a run that comes into the image later */
    struct iovec *parts; /* what is written: the buffer, then the pages of such runs */
    unsigned part_count;
    int fault;   /* the first error of log_lines() or log_punch() */
    bool ready;  /* recovered: records may be committed */
    bool marked; /* SYNC_PROCESS: a record that says so was made durable */
    bool full;   /* the disk is; said */
    /* Counters, for benchmarks and inspection. */
    uint64_t commits, written_bytes, switches, foreground_waits;
};

/* Opens the segments of an open store. `image_fd` is the image file; it stays the caller's. The buffer of
 * a log that was open before is used again. A store opened read-only gives a read-only log.
 * 0, enum store_fault (said already) or -errno. */
int log_open(struct log *, struct store *, enum sync, int image_fd);
void log_close(struct log *);

/* In a child of fork that goes on with its parent's log, by the same descriptors: forgets all else. log_recover() comes next. */
void log_inherit(struct log *);

/* Where recovery applies records. */
struct image_writer {
    uint8_t *twin;       /* with fd: the same file mapped shared, or NULL; used where its pages are sure to be there */
    uint64_t twin_bytes; /* of that mapping, all within the file */
    int fd;          /* >= 0: by pwrite and punching */
    bool owing;      /* runs that are owed are left out */
    uint8_t *memory; /* else, when not NULL: here; must reach to image_end. Else records are only checked */
    uint64_t memory_bytes;
};

/* Checks the whole log, then applies what it holds, in order, drops the torn tail, and readies the log for
 * log_begin(). Nothing is written before all has been found right. A read-only log writes nothing.
 * Returns how many records were applied (those that the image was not known to hold; none in a fresh run);
 * enum store_fault after a line that names segment file and offset
 * (STORE_DAMAGED, STORE_FOREIGN, STORE_NEWER, STORE_INCOMPLETE, STORE_REBOOTED), or -errno.
 * May be called again; the result is the same. */
long log_recover(struct log *, const struct image_writer *);

/* For an inspector: recovers into a private copy of the image in memory (copy on write; nothing on the disk
 * changes). *memory and *bytes are the mapping, the caller's to unmap. Result as of log_recover(). */
long log_overlay(struct log *, uint8_t **memory, uint64_t *bytes);

/* Applies by memcpy to this mapping of the image from now on. */
void log_use_twin(struct log *, void *twin);

/* To be called behind the restorer: forgets what was mapped outside of the window before it (the ring). */
void log_attach_after_restore(struct log *);

/* Starts a record. One that was not committed is dropped. */
void log_begin(struct log *);

/* Adds lines (64 bytes each, 1 to 64, within one page) to be written at `offset` in the image. `sum` is that of the page
 * (heap/sums.h) once all of this record is applied: every run of a page may carry it, the last one has to. 0, -E2BIG or
 * -EINVAL: no such lines (also told by log_commit()). `data` is copied. */
int log_lines(struct log *, uint64_t offset, const void *data, unsigned lines, uint32_t sum, unsigned flags);

/* Adds all lines of a page, with the sum of what was copied. The flag may be RUN_OWED, too: a page that comes into the image later,
 * if it is still needed then (heap/loose.h). It is not copied, unless there are too many: it must not change until log_commit()
 * has returned. Aligned as pages are. */
int log_page(struct log *, uint64_t offset, const void *page, unsigned flags);

/* Adds: the range becomes a hole. Offset and bytes are multiples of BLOCK_BYTES. */
int log_punch(struct log *, uint64_t offset, uint64_t bytes);

/* How many bytes the record has so far, padding not counted. */
size_t log_pending(const struct log *);

/* Makes the record durable, with one write. *sequence (may be NULL) becomes its number.
 * A full disk makes it wait (said once); a disk that fails ends the process. -E2BIG: the record did not fit
 * the buffer, nothing was written. -EINVAL: read-only or not recovered. */
int log_commit(struct log *, uint64_t *sequence);

/* Brings the record just committed into the image. A second call does nothing. 0; full disk and errors
 * as log_commit(). */
int log_apply(struct log *);

/* Syncs the image now, in the foreground: for the end of a run. Dies when the disk fails. */
void log_sync(struct log *);

#endif
