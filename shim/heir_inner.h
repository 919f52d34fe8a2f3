/* What the two halves of the heir share: heir.c is the protected process, heir_candidate.c a child that may become it. */
#ifndef KEN_SHIM_HEIR_INNER_H
#define KEN_SHIM_HEIR_INNER_H

#include "shim/heir.h"
#include "shim/heir_tie.h"

#define SIGNAL_AGAIN_MS 50
#define SOON_MS 2 /* each looks whether the other lives */

/* In the window; after a fork each side has its own, all but the page. */
struct heir {
    struct lineage *page;
    uint64_t above, below; /* tickets: as whose child, and which child; 0: none */
    uint64_t born;         /* as whose child it was forked */
    uint64_t last;         /* of the last child, whatever became of it */
    bool leads, taking, hurried, mourns;
    uint32_t outputs;
    int64_t busy_ns;  /* when a candidate's parent, which leads, was last seen to compute */
    int64_t since_ns; /* when it was forked; in a protected process, when its candidate was */
};

/* Image: the program has led, whichever incarnation of it. */
extern bool heir_led;

/* A candidate's own tie, through the exits of those between; NULL: others have been through the place since. */
struct tie *heir_above(struct heir *);

/* A process that must not outlive another: the restart of that one begins it again, and two must not be. */
_Noreturn void heir_die_with_parent(void);

bool heir_candidate_turn(struct heir *, enum turn_reason);
_Noreturn void heir_candidate_exit(struct heir *, int status);

/* The candidate is an ordinary child from now on. */
void heir_become_plain(struct heir *);

#endif
