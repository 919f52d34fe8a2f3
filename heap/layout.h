/* What lies in a store's directory. This header holds the persistent formats and nothing else.
 *
 *   super     one struct super: which run this store belongs to
 *   super.old the superblock of the run before, while a fresh one is being prepared; empty where there was none
 *   image     the committed memory, a flat sparse file (its contents: layout_meta.h)
 *   log.0/1   redo log segments: one struct segment_head block, then records
 *   distrust  present after a sync of the image failed: recovery takes nothing of it for granted
 *   unsent    what peers had not taken when the last run ended (net/unsent.h)
 *   pin/      hard links to, or copies of, the files that are mapped
 *   lock      locked with fcntl() while a process uses the store
 *
 * Everything is little endian. A checksum is XXH3-64 of the bytes that follow its field, to the end of
 * what it covers. Magic, checksum and version keep their places in all versions to come.
 */
#ifndef KEN_HEAP_LAYOUT_H
#define KEN_HEAP_LAYOUT_H

#include <stddef.h>
#include <stdint.h>

#define STORE_VERSION 3u /* 2: sums of the image's pages; 3: record.owed */
#define STORE_DISTRUST "distrust"
#define STORE_KEPT "kept" /* a directory of links to files that lost their names while in use, by inode in hex (net/nameless.h) */
#define STORE_JOURNAL "inbox-" /* begins the names of the journals of input (net/inbox.h) */
#define BLOCK_BYTES 4096u /* everything durable starts and ends at a multiple of this */
#define LINE_BYTES 64u

#define SUPER_MAGIC 0x52455055534e454bUL   /* "KENSUPER" */
#define SEGMENT_MAGIC 0x4745534e454bUL     /* "KENSEG" */
#define RECORD_MAGIC 0x44524345524e454bUL /* "KENRECRD" */

#define STORE_CPU_WORDS 16u
#define STORE_BUILD_BYTES 20u

struct store_id {
    uint8_t bytes[16];
};

/* The superblock is valid if and only if the file has exactly this size, and magic and checksum hold.
 * Written once a run, by rename. */
struct super {
    uint64_t magic;
    uint64_t checksum;
    uint32_t version;
    uint32_t page_bytes;
    struct store_id id; /* random; new for each run */
    uint8_t build[STORE_BUILD_BYTES]; /* of libken */
    uint32_t cpu_words;
    uint32_t cpu[STORE_CPU_WORDS]; /* feature words, compared for equality of what is used */
    uint64_t window_base;
    uint64_t segment_bytes; /* the nominal size of a log segment */
    uint64_t created_ns;    /* CLOCK_REALTIME */
    uint64_t command_hash;
    char kernel[128];      /* release */
    char executable[1024]; /* path; terminated, as all of these */
    char command[2048];    /* printable */
    uint8_t reserved[736];
};

/* The first block of a segment. Valid if and only if magic and checksum hold, `id` is the superblock's
 * and `segment` is the number in the file's name. */
struct segment_head {
    uint64_t magic;
    uint64_t checksum;
    uint32_t version;
    uint32_t segment;
    struct store_id id;
    uint8_t reserved[4056];
};

enum record_flags {
    RECORD_PROCESS = 1, /* was not flushed: holds only while the machine that wrote it stays up */
    RECORD_NOTE = 2,    /* carries no runs, only `synced` */
};

/* A record is valid if and only if
 *   - magic, checksum and version hold, and the checksum covers the whole record,
 *   - `id` is the superblock's (records of an earlier run in this directory are stale, not damaged),
 *   - `segment` and `position` say where it was found (a copy elsewhere means nothing),
 *   - its runs end exactly where `payload` says, and their lines within `bytes`, which lie within the file.
 * A segment's records are the valid ones from its first on, each with the sequence of the one before
 * plus one; what follows is the torn tail, or left over from an earlier cycle (lower sequences).
 * The log is whole if and only if no valid record has a sequence above the last one's, and every
 * sequence above the highest `synced` is there, up to the last. */
struct record {
    uint64_t magic;
    uint64_t checksum;
    uint32_t version;
    uint32_t flags;
    struct store_id id;
    uint64_t sequence; /* 1, 2, 3, ... in one run of a store */
    uint64_t synced;   /* all records up to this one are in the image, and the image is on the disk */
    uint64_t bytes;    /* of the whole record: a multiple of BLOCK_BYTES; the padding is zero */
    uint64_t payload;  /* bytes of runs behind this header */
    uint64_t position; /* in the segment file */
    uint32_t segment;
    uint32_t runs;
    uint64_t boot;  /* which boot of the machine wrote it (RECORD_PROCESS) */
    uint64_t mount; /* which mount the image was on: the kernel's unique id, never used again in one boot; 0: unknown */
    uint64_t owed;  /* from this record on the image may lack runs that are marked so; 0: it lacks none */
    uint8_t reserved[16];
};

enum run_kind {
    RUN_LINES = 1, /* `lines` lines of new contents follow, all within one page */
    RUN_PUNCH = 2, /* `pages` whole pages become zero, and their sums 0; nothing follows */
};

enum run_flags {
    RUN_OWED = 2, /* a whole page that may not have come into the image with its record. Its lines do not follow, they lie behind the
                     runs: at the next multiple of BLOCK_BYTES, those of the next such run behind them. Its sum is made of them */
};

/* Changes the image file at `offset`. Runs are applied in order, a page's sum with its lines. */
struct run {
    uint64_t offset; /* a multiple of LINE_BYTES; of RUN_PUNCH, of BLOCK_BYTES */
    union {
        uint32_t sum; /* of the whole page: right behind the last run of the page in a record (heap/sums.h) */
        uint32_t pages;
    };
    uint16_t lines;
    uint8_t kind;
    uint8_t flags; /* enum run_flags; and log_flags of log.h, of no meaning in recovery */
};

#define RUN_PUNCH_MAX ((uint64_t)UINT32_MAX * BLOCK_BYTES)

_Static_assert(sizeof(struct super) == BLOCK_BYTES, "the superblock is one block");
_Static_assert(sizeof(struct segment_head) == BLOCK_BYTES, "a segment's head is one block");
_Static_assert(sizeof(struct record) == 128, "a record's header is two lines");
_Static_assert(sizeof(struct run) == 16, "a run's header is 16 bytes");
_Static_assert(offsetof(struct super, checksum) == 8 && offsetof(struct super, version) == 16, "");
_Static_assert(offsetof(struct record, checksum) == 8 && offsetof(struct record, version) == 16, "");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "little endian");

#endif
