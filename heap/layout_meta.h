/* The image file: one flat, sparse file.
 *
 *   0            meta header (one page)
 *   SUMS_AT      the sums of the pages below META_BYTES, 4 bytes each
 *   CHUNK_AT     chunk table: which 2 MiB of address space lies in which slot, which pages are there
 *   AREA_AT      area table: the mappings to make again
 *   FILE_AT      file table: the files behind them
 *   VDSO_AT      a copy of the vdso the image was made with
 *   META_BYTES   group 0, group 1, ...: the sums of a group's pages, then GROUP_SLOTS slots of CHUNK_BYTES each
 *
 * Everything is little endian, as the machine is. The metadata are changed through the log only, like
 * all the rest of the file. They are valid if and only if the log was recovered without an error, `pages` and
 * `layout_sum` hold, and the file reaches to the last present page. A file shorter than `durable_bytes` was cut.
 * A page that is neither a table of sums nor beyond what is in use agrees with its sum (heap/sums.h): both come from the
 * same record of the log, and whatever is lost of either is in the log still.
 * A page whose presence bit is clear is absent: zero in anonymous memory, the file's page in a private
 * file mapping; its bytes in the slot are zero.
 */
#ifndef KEN_HEAP_LAYOUT_META_H
#define KEN_HEAP_LAYOUT_META_H

#include <stdbool.h>
#include <stdint.h>

#define META_MAGIC 0x4154454d4e454bUL /* "KENMETA" */

#define CHUNK_SHIFT 21
#define CHUNK_BYTES (1UL << CHUNK_SHIFT)
#define CHUNK_PAGES 512u

#define SUMS_AT (64UL << 10)
#define SUMS_BYTES (META_BYTES / 4096 * sizeof(uint32_t))
#define CHUNK_AT (1UL << 20)
#define AREA_AT (24UL << 20)
#define FILE_AT (40UL << 20)
#define VDSO_AT (60UL << 20)
#define META_BYTES (64UL << 20)

/* Which 2 MiB of the address space slot i of the file holds is told by entry i of the table. */
struct chunk {
    uint64_t number; /* address >> CHUNK_SHIFT, or CHUNK_FREE */
    uint64_t pages;  /* how many presence bits are set */
    uint64_t present[CHUNK_PAGES / 64];
};
#define CHUNK_FREE 0UL
#define CHUNK_MAX ((AREA_AT - CHUNK_AT) / sizeof(struct chunk))

/* The sums stand among the slots, so that a small image is a short file; a group is long, so that slots adjoin. */
#define GROUP_SLOTS 512u
#define GROUP_SUM_BYTES CHUNK_BYTES /* half of it is used */
#define GROUP_BYTES (GROUP_SUM_BYTES + GROUP_SLOTS * CHUNK_BYTES)

static inline uint64_t layout_slot(uint32_t slot)
{
    return META_BYTES + slot / GROUP_SLOTS * GROUP_BYTES + GROUP_SUM_BYTES + slot % GROUP_SLOTS * CHUNK_BYTES;
}

enum area_kind {
    AREA_ANONYMOUS = 1,
    AREA_STACK,        /* the main stack: grows down */
    AREA_FILE_PRIVATE, /* text and data of objects; pages that were written are in the image */
    AREA_FILE_SHARED,  /* mapped again from the file as it is */
    AREA_SHARED_ANONYMOUS,
};

/* vvar, vvar_vclock and vdso, in ascending order; the last one is the vdso. */
#define VDSO_PIECES 6
struct vdso_piece {
    uint64_t start, end;
};

struct area {
    uint64_t start, end;
    uint64_t offset; /* in the file */
    uint32_t prot;
    uint16_t kind;
    uint16_t flags;
    uint32_t file; /* index into the file table */
    uint32_t reserved;
};
#define AREA_MAX ((FILE_AT - AREA_AT) / sizeof(struct area))

struct file {
    uint64_t device, inode;
    char pin[32];    /* its name in the store's pin directory; empty: opened by its path */
    char path[1039]; /* terminated; where it was when the image was made */
    uint8_t unpinned; /* is mapped privately, and could not be pinned */
};
#define FILE_MAX ((VDSO_AT - FILE_AT) / sizeof(struct file))

/* What a C call keeps: the callee-saved registers and the two control words. System V ABI AMD64, 3.2.1.
 * context.S knows this layout. */
struct context {
    uint64_t rbx, rbp, r12, r13, r14, r15, rsp, rip;
    uint32_t mxcsr;
    uint16_t x87_control, reserved;
};

enum run_state { RUN_NONE, RUN_RUNNING, RUN_EXITING, RUN_FINISHED };

struct meta {
    uint64_t magic;
    uint64_t turn;         /* of the last commit; 0 before the first */
    uint64_t committed_ns; /* CLOCK_REALTIME of that commit */
    uint32_t state;        /* enum run_state */
    int32_t exit_status;   /* of RUN_FINISHED, RUN_EXITING */
    uint32_t chunks, areas, files, vdso_bytes;
    uint64_t durable_bytes; /* the file was at least that long at its last sync before this commit */
    uint64_t pages;      /* sum of the chunks' */
    uint64_t layout_sum; /* XXH3-64 of the areas in use, the files in use and the vdso, in that order */
    struct context context;
    uint64_t fs_base, gs_base;
    uint64_t clear_child_tid, robust_list, robust_list_bytes;
    uint64_t rseq, rseq_bytes, rseq_signature;
    uint64_t sigsys_low, sigsys_bytes; /* libken's text: what Syscall User Dispatch lets pass */
    /* For prctl(PR_SET_MM_MAP): cosmetic (what /proc shows), but brk has to be known. */
    uint64_t start_code, end_code, start_data, end_data, start_brk, brk, start_stack;
    uint64_t arg_start, arg_end, env_start, env_end;
    struct vdso_piece vdso[VDSO_PIECES];
    uint32_t vdso_pieces;
    uint32_t highest_fd; /* the highest descriptor that the program has: libken's own stay above it */
    char program[64];
    int64_t program_ns; /* the program's CLOCK_MONOTONIC at that commit */
    uint64_t stack_whole; /* 1: the main stack is alive below `context`, too, as that stands on an alternate stack within it */
};

#define RED_ZONE 128 /* System V ABI AMD64, 3.2.2 */

/* Where what is alive of the main stack, start to end, begins: at a page. What lies below the red zone is dead. */
static inline uint64_t layout_live_stack(const struct meta *m, uint64_t start, uint64_t end)
{
    uint64_t live = (m->context.rsp - RED_ZONE) & ~4095UL;
    return !m->stack_whole && live >= start && live < end ? live : start;
}

_Static_assert(SUMS_AT + SUMS_BYTES <= CHUNK_AT, "the sums of the metadata have room");
_Static_assert(GROUP_SLOTS * CHUNK_PAGES * sizeof(uint32_t) <= GROUP_SUM_BYTES, "the sums of a group have room");
_Static_assert(sizeof(struct chunk) == 80, "chunk entries are 80 bytes");
_Static_assert(sizeof(struct area) == 40, "area entries are 40 bytes");
_Static_assert(sizeof(struct file) == 1088, "file entries are 1088 bytes");
_Static_assert(sizeof(struct meta) <= 4096, "the meta header is one page");

#endif
