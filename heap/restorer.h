/* The restorer: the few hundred bytes of code that replace a process's memory by another's.
 *
 * It runs from a copy in the window, on a stack in the window, when nothing else is mapped any more: no
 * libc, no TLS, no calls out of the blob, no static data. It follows a plan made beforehand.
 */
#ifndef KEN_HEAP_RESTORER_H
#define KEN_HEAP_RESTORER_H

#include "heap/layout_meta.h"

#include <stddef.h>
#include <stdint.h>

enum step_kind {
    STEP_MAP,  /* mmap(address, bytes, prot, flags, fd, offset) */
    STEP_READ, /* pread(fd, address, bytes, offset), all of it */
    STEP_COPY, /* from the window: `offset` is the address it comes from */
    STEP_PROTECT,
};

struct step {
    uint64_t address, bytes, offset;
    uint32_t kind, prot, flags;
    int32_t fd;
};

struct move {
    uint64_t from, staging, to, bytes;
};

/* Where a test makes it die (heap/fault.h). */
enum restorer_point {
    RESTORER_ENTERED = 1,
    RESTORER_UNMAPPED,
    RESTORER_MAPPING, /* half of the steps are done */
    RESTORER_MAPPED,
    RESTORER_DRESSED,
};

struct plan {
    uint64_t window_start, window_end;
    uint64_t old_rseq, rseq_bytes, rseq_signature;
    uint64_t fs_base, gs_base;
    uint64_t clear_child_tid, robust_list, robust_list_bytes;
    uint64_t new_rseq;
    struct move moves[8]; /* vvar and vdso */
    uint32_t move_count;
    uint32_t step_count;
    uint32_t die_at; /* enum restorer_point; 0: nowhere */
#ifdef KEN_FAULTS
    uint32_t fail_line, fail_first, fail_count, fail_calls;
    int64_t fail_error;
    struct {
        uint32_t line, nr, calls;
    } seen[32];
    uint32_t seen_count;
#endif
    struct step *steps;
    struct context context;
    uint64_t memory_map[16]; /* struct prctl_mm_map, 0s when unknown */
    char failure[64];        /* the message; the number of the step goes to failure_digits */
    uint32_t failure_digits, failure_bytes;
};

/* The blob's bounds: the linker's names for the section that holds it and nothing else. */
extern const char __start_ken_restorer[] __attribute__((visibility("hidden")));
extern const char __stop_ken_restorer[] __attribute__((visibility("hidden")));
_Noreturn void restorer_main(struct plan *plan);

#endif
