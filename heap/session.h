/* The session: all handles to the kernel that one incarnation of the process holds for libken.
 *
 * It is the first allocation of the window, hence at the same address in every incarnation, and it is
 * filled anew by each: first by the boot code of the new process, then, behind the restorer, used by the
 * code that came back with the image. Both are the same build (boot refuses otherwise), but they lie at
 * different addresses: no pointers to code or to static data in here.
 */
#ifndef KEN_HEAP_SESSION_H
#define KEN_HEAP_SESSION_H

#include "heap/areas.h"
#include "heap/chaos.h"
#include "heap/fault.h"
#include "heap/image.h"
#include "heap/log.h"
#include "heap/loose.h"
#include "heap/store.h"
#include "heap/tracker.h"

#define SESSION_RANGES 1024
#define SESSION_STOPS 256

struct session {
    struct store store;
    struct log log;
    struct tracker tracker;
    struct image image;
    struct areas areas;
    struct loose loose;
    struct progress *progress; /* one page of the store's file `progress`, mapped shared: survives a SIGKILL */
    struct remote *remote;     /* net's: peers on other hosts, and the key; NULL: none are listed */
    struct heir *heir;         /* shim's: what it and its children of fork tell each other; NULL: nothing */
    int life[2];               /* a pipe whose second end only the protected process has: children see its end; or -1 */
    int error_fd;              /* stderr as the process was started with it, while it resumes; else -1 */
    int maps_fd;
    int proc_fd;   /* /proc (heap/proc.h) */
    int memory_fd; /* /proc/self/mem: for pages that the program has closed */
    int *mapped_fds; /* files that restore() opened to map them; closed behind the restorer */
    uint32_t mapped_count;
    bool sigsys;            /* the net is spread */
    bool patch_vdso;        /* never move the vdso: for tests */
    bool resumed;       /* this process continues an earlier one */
    bool succeeds;      /* so it does, or one that was killed before it had a state to go on from */
    bool unshared;      /* and no page of it is the image file's any more */
    bool apart;         /* a child of fork that may become the program (shim/heir.h), or has not: the store is another's */
#ifdef KEN_FAULTS
    struct fault fault;
#endif
    uint64_t started_ns; /* CLOCK_MONOTONIC, when libken was entered */
    uint64_t files_limit; /* of descriptors, soft: as this process was started with; 0: it was not raised */
    struct chaos chaos;
    uint64_t stops;      /* how often other threads were stopped for a commit, and how long it took: the last ones, in */
    uint64_t stop_ticks[SESSION_STOPS]; /* ticks of the processor's counter. For tests/bench */
    char kenctl[256]; /* the helper program, "" when there is none */
    uint8_t closed_page[4096] __attribute__((aligned(64)));
    /* commit()'s: on the stack it would lie in pages that each turn dirties once more. */
    struct page_range ranges[SESSION_RANGES];
    struct pages taken; /* in the record already, by areas_refresh() */
};

/* NULL when the program is not protected. The pointer itself is part of the image. */
extern struct session *session;

#endif
