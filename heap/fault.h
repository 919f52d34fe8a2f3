/* Faults that the tests ask for: a process that dies at a named point, and libken broken in a named way.
 *
 *   FAULT("turn.committed");                 a crash point: the process may be told to die here
 *   if (FAULT_DUE("restore.unmapped")) ...   the same, for a place that cannot call out: somebody else dies for it
 *   MUTANT("ack.early", broken, right)       an expression; broken only in the mutant of that name
 *   VARIANT("small.segments", other, usual)  the same for what is right both ways, and quicker to test the one way
 *
 * Without the build option `faults` all of them are the right thing and cost nothing. With it, the environment
 * chooses, for each process by itself (so that a second start may die at another point than the first):
 *
 *   KEN_FAULT=NAME[:OCCURRENCE]   die there by SIGKILL, the first or the given time that the point is reached
 *   KEN_FAULT_LOG=FILE            append the name of each point that is reached
 *   KEN_MUTANT=NAME[,NAME...]     be broken in these ways
 *   KEN_FAULT_CALL=CALL:N:ERROR[:COUNT]  libken's own Nth call of that name (and COUNT - 1 behind it) fails with ERROR, or
 *                                 is SHORT (takes a part only)
 *
 * The names in the source are the list: tests/fault/points.py reads them. Source of the idea: libfiu, SQLite's
 * test6.c.
 */
#ifndef KEN_HEAP_FAULT_H
#define KEN_HEAP_FAULT_H

#include <stdbool.h>
#include <stdint.h>

#ifdef KEN_FAULTS

/* What the environment chose, in the window: it belongs to the process, not to the image. */
struct fault {
    bool ready; /* the environment was read */
    bool armed; /* it chose something */
    uint32_t occurrence, seen;
    char point[64], mutant[128], log[256];
    long call; /* of KEN_FAULT_CALL; -1: none */
    long call_error;
    uint32_t call_first, call_count, calls;
};

/* To be called first of all, with the process's environment. */
void fault_boot(char **environment);

/* Goes on with the state in the window, which the process's next memory shares. */
void fault_move(struct fault *);

/* Reports that a point is reached; true when the process is to die of it. */
bool fault_due(const char *point);
void fault_reach(const char *point);
bool fault_mutant(const char *name);

/* A system call of libken's own, which may be told to fail. */
long fault_call(long nr, long a, long b, long c, long d, long e, long f);

#define FAULT(point) fault_reach(point)
#define FAULT_DUE(point) fault_due(point)
#define MUTANT(name, broken, right) (fault_mutant(name) ? (broken) : (right))
#define VARIANT MUTANT

#else

#define FAULT(point) ((void)0)
#define FAULT_DUE(point) false
#define MUTANT(name, broken, right) (right)
#define VARIANT(name, other, usual) (usual)
#define fault_boot(environment) ((void)0)
#define fault_move(to) ((void)0)

#endif
#endif
