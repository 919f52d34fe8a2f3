/* Faults that the tests ask for: a process that dies at a named point, and libken broken in a named way.
 *
 *   FAULT("turn.committed");                 a crash point: the process may be told to die here
 *   if (FAULT_DUE("restore.unmapped")) ...   the same, for a place that cannot call out: somebody else dies for it
 *   MUTANT("ack.early", broken, right)       an expression; broken only in the mutant of that name
 *   VARIANT("small.segments", other, usual)  the same for what is right both ways, and quicker to test the one way
 *   FAULT_STEP("tie.look")                   no place to die at, but one where time may pass, as at all crash points
 *   FAULT_CALL(SYS_fsync, cqe->res)          the result of a system call that somebody else makes for libken: it may be told
 *                                            to fail, as all those of heap/sys.h may
 *
 * Without the build option `faults` all of them are the right thing and cost nothing. With it, the environment
 * chooses, for each process by itself (so that a second start may die at another point than the first):
 *
 *   KEN_FAULT=NAME[:OCCURRENCE]   die there by SIGKILL, the first or the given time that the point is reached
 *   KEN_FAULT_LOG=FILE            append the name of each point that is reached
 *   KEN_FAULT_JITTER=SEED         time passes there, now and then (one time in 4, 16 or 64): mostly some milliseconds, rarely up to 2.5 s; each child of fork has
 *                                 another sequence of pauses, and a process that resumes begins it anew
 *   KEN_FAULT_TRACE=FILE          append `MICROSECONDS PID POINT` for each point and step, of children of fork as well
 *   KEN_MUTANT=NAME[,NAME...]     be broken in these ways
 *   KEN_FAULT_CALL=WHICH:N:ERROR[:COUNT]  libken's own Nth call of those (and COUNT - 1 behind it) fails with ERROR, or is
 *                                 SHORT (takes a part only). WHICH: a call's name, or FILE#LINE[@WAY], as KEN_FAULT_CALLS tells it
 *   KEN_FAULT_CALLS=FILE          append each call of libken's own, `FILE#LINE@WAY NUMBER COMMAND`; with KEN_FAULT_CALL only those
 *                                 that failed. What libken passes on for the program is none of its own
 *
 * The names in the source are the list: tests/fault/points.py reads them. Source of the idea: libfiu, SQLite's
 * test6.c.
 */
#ifndef KEN_HEAP_FAULT_H
#define KEN_HEAP_FAULT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef KEN_FAULTS

/* What the environment chose, in the window: it belongs to the process, not to the image. */
struct fault {
    bool ready; /* the environment was read */
    bool armed; /* it chose something */
    uintptr_t only; /* the thread, by its pointer, whose calls count; 0: all of them */
    bool apart; /* a child of fork: what it dies of is not the program's death, but for the points of heir.c */
    uint32_t occurrence, seen;
    char point[64], mutant[128], log[256], trace[256];
    uint64_t jitter; /* the state of its random numbers; 0: none */
    uint32_t jitter_every;
    char call_site[48], call_name[16], calls_log[256];
    uint32_t call_way; /* ~0: any */
    long call;         /* -1: known by its site */
    long call_error;
    struct plan *plan;
    uint32_t call_first, call_count, calls;
};

/* To be called first of all, with the process's environment. */
void fault_boot(char **environment);

/* A child of fork that may become the program stands apart until it does. */
void fault_apart(bool);

/* From here on only this thread's calls are listed, or fail: a list is a file that is opened for each line, at a number which the
 * process that resumes may be about to give back to the program. */
void fault_only_mine(bool);

/* Goes on with the state in the window, which the process's next memory shares. */
void fault_move(struct fault *);

/* Reports that a point is reached; true when the process is to die of it. */
bool fault_due(const char *point);
void fault_reach(const char *point);
void fault_step(const char *name);
bool fault_mutant(const char *name);

/* A system call of libken's own, which may be told to fail (heap/sys.h). */
long fault_call(const char *site, long nr, long a, long b, long c, long d, long e, long f);

/* The error that a call is to answer that somebody else makes for libken; 0: it is to be made. */
long fault_instead(const char *site, long nr);

/* Tells the restorer which of its calls fails, and learns from it which there were. */
struct plan;
void fault_plan(struct plan *);
void fault_plan_done(void);

/* For the files of this module. */
struct fault *fault_state(void);
void fault_read_call(struct fault *, const char *text);
uint32_t fault_number_at(const char **text);
/* Copies up to the colon or the end; returns what follows the colon, or the end. */
const char *fault_word(char *to, size_t room, const char *from);

#define FAULT(point) fault_reach(point)
#define FAULT_DUE(point) fault_due(point)
#define FAULT_STEP(name) fault_step(name)
#define MUTANT(name, broken, right) (fault_mutant(name) ? (broken) : (right))
#define VARIANT MUTANT
#define FAULT_CALL(nr, real) ({ long instead_ = fault_instead(SYS_SITE, nr); instead_ ? instead_ : (long)(real); })

#else

#define FAULT(point) ((void)0)
#define FAULT_DUE(point) false
#define FAULT_STEP(name) ((void)0)
#define MUTANT(name, broken, right) (right)
#define VARIANT(name, other, usual) (usual)
#define FAULT_CALL(nr, real) (real)
#define fault_boot(environment) ((void)0)
#define fault_move(to) ((void)0)
#define fault_apart(on) ((void)0)
#define fault_only_mine(on) ((void)0)
#define fault_plan(plan) ((void)0)
#define fault_plan_done() ((void)0)

#endif
#endif
