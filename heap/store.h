/* The store: the directory that holds one program's committed state. Formats: layout.h.
 *
 * struct store may be copied (boot opens the store before the window, then moves the struct into it); it
 * holds no pointers. Descriptors are high and close-on-exec. Not thread-safe.
 */
#ifndef KEN_HEAP_STORE_H
#define KEN_HEAP_STORE_H

#include "heap/layout.h"

#include <limits.h>
#include <stdbool.h>
#include <sys/types.h>

#define STORE_PATH_BYTES 1024u
#define STORE_PIN_BYTES 32u
#define STORE_SEGMENT_BYTES (8UL << 20) /* recovery reads both segments: 10-20 ms */

enum store_state {
    STORE_FRESH,  /* nothing to resume: store_format() it */
    STORE_EXISTS, /* `super` is filled in; log_open() and log_recover() come next */
};

/* What may be wrong, beyond errno. Nothing was changed. */
enum store_fault {
    STORE_FOREIGN = -10001,   /* not a store of libken */
    STORE_NEWER = -10002,     /* written by a newer libken */
    STORE_DAMAGED = -10003,   /* checksum or size are wrong */
    STORE_INCOMPLETE = -10004, /* a file is missing */
    STORE_UNSAFE = -10005,    /* others may write to it, or it belongs to somebody else */
    STORE_REBOOTED = -10006,  /* kept with SYNC_PROCESS, and the machine went down since */
    STORE_TOO_LONG = -10007,  /* the path */
    STORE_OLDER = -10008,     /* written by an older libken, in another format */
};

struct store {
    int directory_fd, lock_fd, image_fd; /* image_fd: O_RDWR, or O_RDONLY when inspecting */
    int kept_fd;                         /* STORE_KEPT; -1 when inspecting */
    pid_t holder_pid;                    /* after -EBUSY; 0 when it cannot be told */
    uint32_t found_version;              /* after STORE_NEWER, STORE_OLDER */
    bool read_only;
    bool pins_dirty;                  /* a pin was made since store_sync_pins() */
    struct super super;               /* as on the disk */
    char path[STORE_PATH_BYTES];      /* absolute */
    char fault_path[64];              /* which file a fault is about, "" for the directory */
};

/* What a fresh run is born with. Strings are cut to the superblock's room. */
struct store_birth {
    uint8_t build[STORE_BUILD_BYTES];
    uint32_t cpu_words;
    uint32_t cpu[STORE_CPU_WORDS];
    uint64_t window_base;
    uint64_t command_hash;
    uint64_t segment_bytes; /* 0: STORE_SEGMENT_BYTES; a multiple of BLOCK_BYTES, at least 16 blocks */
    const char *executable, *command;
};

/* Makes the directory (0700, and its parents) if need be, takes its lock, reads the superblock.
 * A killed process keeps the lock until its memory is torn down: retries for wait_ms.
 * Returns enum store_state, enum store_fault, or -errno (-EBUSY: holder_pid has it). After an error the
 * store is closed, and only holder_pid, found_version and the paths mean something. */
int store_open(struct store *, const char *directory, unsigned wait_ms);

/* As above without lock, creation or any write, for an inspector. STORE_FRESH: there is nothing. */
int store_open_read_only(struct store *, const char *directory);

/* Begins a fresh run in a store that is open, whatever it held: new id, empty image, no pins, segments
 * zero-written. A crash in between leaves the old store or one that opens as STORE_FRESH. Until the first
 * log_commit() the new run is empty: log_recover() returns 0. 0 or -errno. */
int store_format(struct store *, const struct store_birth *);

/* Forgets the input that a finished run had read. A run that never came to its first commit leaves its input to the
 * next: so this is not part of store_format(). 0 or -errno. */
int store_drop_journals(const struct store *);

/* Moves a store out of the way, to `<directory>.old-<date>-<time>`, and says so. 0 when there was none,
 * 1 when it was moved, -EBUSY when it is in use, -errno. */
int store_set_aside(const char *directory);

/* A sync of the image failed: the kernel may have dropped pages that it calls clean. From now on, until the store is
 * formatted, recovery relies on the log alone. */
void store_distrust_cache(const struct store *);
bool store_distrusts_cache(const struct store *);

/* The process that has the lock, by a descriptor of its file; while it is passed on, the former one as long as it has it.
 * 0: nobody but the caller. -errno. */
long store_holder(int lock_fd);

/* A child of fork takes the lock over from its parent, by the descriptor that is open already: it stands next in line, so that
 * nobody else finds the lock free in between, and takes it when its parent has given it up; or it is not next any more.
 * 0, -EBUSY (holder_pid; another one was faster), -errno. */
int store_lock_next(struct store *);
int store_lock_pass(struct store *);
void store_lock_decline(struct store *);

/* A child that may become the program, until it does (store_lock_pass()) or is none: a start waits for its end, if it waits at all. */
void store_follow(struct store *, bool);

/* Releases the lock and all descriptors. */
void store_close(struct store *);

/* One line about an error of the above (or of log_recover()) and what to do; without prefix. */
void store_explain(const struct store *, int error, char *line, size_t bytes);

/* Keeps a file that is mapped: `path` must still be `device`/`inode` (0 for device: do not compare).
 * `name` identifies it for store_pin_open(); the same file gets the same name again. A hard link, else a
 * copy. 0 or -errno; -ESTALE: the path leads to another file now. */
int store_pin(struct store *, const char *path, uint64_t device, uint64_t inode,
              char name[STORE_PIN_BYTES]);

/* Makes the pins of late durable; to be called before the commit that relies on them. Cheap when there
 * are none. */
int store_sync_pins(struct store *);

/* Opens a pinned file for reading: descriptor or -errno; -ESTALE when it was written to since. */
long store_pin_open(const struct store *, const char *name);

#endif
