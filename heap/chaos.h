/* For kenrun --chaos: the library as it is built for use dies at a step of a turn's end that was asked for. The crash points
 * of fault.h are the tests' own, and are not in such a build; these few are for everybody's programs.
 *
 *   KEN_CHAOS=FILE    holds one order, `TURN:STEP` or `+N:STEP`: die by SIGKILL at STEP of the first turn from TURN on that
 *                     comes there, or from the Nth turn on after the one that this process starts from. Empty: live
 *   KEN_REPORT=FILE   is told of each resume, `TURN MICROSECONDS`, and of each such death, `died TURN STEP`
 *
 * A turn has the number that it has once it is durable. `recovered` and `resuming` are steps of a process that goes on from
 * a store, and their turn is the one that it goes on from: one that began, or that is not there yet, dies when the turn is
 * `applied`, so that the next one can.
 * Without an order a step costs the look at one byte. Called by the thread that ends the turn, with libken's lock.
 */
#ifndef KEN_HEAP_CHAOS_H
#define KEN_HEAP_CHAOS_H

#include <stddef.h>
#include <stdint.h>

enum chaos_step {
    CHAOS_NONE,
    CHAOS_RECOVERED, /* the image follows the log again; nothing is restored */
    CHAOS_RESUMING,  /* memory, threads and descriptors are there again; what was held has not left */
    CHAOS_ENDED,     /* the turn is over; nothing of it is kept */
    CHAOS_CAPTURED,  /* its record is made, and not written */
    CHAOS_DURABLE,   /* its record is on the disk; nothing has left */
    CHAOS_LEAVING,   /* one output has left, and nobody has noted it */
    CHAOS_RELEASED,  /* all of them have; the image is behind the log */
    CHAOS_APPLIED,   /* the image is up to date as well */
    CHAOS_STEPS,
};

/* In the session: an incarnation's own. */
struct chaos {
    uint64_t turn;
    int fd;       /* of the report, or -1 */
    uint8_t step; /* CHAOS_NONE: no order */
};

/* Reads the order and opens the report; a NULL or empty path stands for none. `turn` is the one that the process starts
 * from, 0 in one that begins. Ends the process with a line when the order is none or cannot be read. */
void chaos_open(struct chaos *, const char *order, const char *report, uint64_t turn);

/* Appends a line to the report, if there is one. */
void chaos_tell(const struct chaos *, const char *line, size_t bytes);

/* Dies here if that was the order. */
void chaos_reach(const struct chaos *, enum chaos_step, uint64_t turn);

static inline void chaos_at(const struct chaos *c, enum chaos_step step, uint64_t turn)
{
    if (__builtin_expect(c->step != CHAOS_NONE, 0))
        chaos_reach(c, step, turn);
}

#endif
