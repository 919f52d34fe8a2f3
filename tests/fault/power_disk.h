/* A simulated disk under the store's I/O: it sees every operation through disk.h's hook, remembers what was flushed,
 * and makes the files of a store that a loss of power would have left.
 *
 * What survives of a file at a cut: its flushed bytes; of each 512-byte sector written since, any of its later versions
 * (so writes are dropped, torn and reordered), or garbage where the sector was on its way; any of its sizes since the
 * last flush. Of the directory: its flushed entries, and a prefix of the changes since, as journals keep them.
 * A write with RWF_DSYNC, or a sync, counts as flushed when the next operation begins.
 */
#ifndef KEN_TESTS_POWER_DISK_H
#define KEN_TESTS_POWER_DISK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SECTOR 512u
#define FILE_BYTES (256u << 10) /* no file of these tests is longer; of the image that counts what is kept (power_fold.h) */

enum { NAME_SUPER, NAME_SUPER_TMP, NAME_SUPER_OLD, NAME_IMAGE, NAME_LOG_0, NAME_LOG_1, NAMES };

/* How the survivors of one cut are chosen. */
enum cut_style {
    CUT_DROP,    /* nothing that was not flushed */
    CUT_KEEP,    /* all of it */
    CUT_PREFIX,  /* the first operations */
    CUT_WRITES,  /* each operation or not */
    CUT_SECTORS, /* each sector in any of its versions */
    CUT_FLIPS,   /* the same, with bits flipped in what was on its way */
    CUT_COUNTED, /* by a counter: all states in turn */
    CUT_STYLES,
};

/* A random generator of one's own, so that a run is its seed. */
uint64_t power_random(uint64_t *state);

/* Begins a trace: the store's directory is read as it stands, all of it flushed. */
void power_begin(const char *directory);

/* The log's own words about a sync of the image that runs in the background: what it will have synced (0: none runs),
 * and what is. What it covers is flushed when the log says so, and not before. */
void power_watch(const uint64_t *target, const uint64_t *synced);

/* Removes the files of a store. */
void power_clear(const char *directory);

/* Stops recording. */
void power_end(void);

/* How many operations the trace has. A commit is told about by power_acknowledge(): sequences up to `sequence` are
 * durable from the next operation on; power_attempt() that one is begun. */
size_t power_length(void);
void power_acknowledge(uint64_t sequence);
void power_attempt(uint64_t sequence);

/* Walks through the trace from its beginning: power_step() completes one operation. */
void power_rewind(void);
bool power_step(void);

/* At the present place of the walk. */
uint64_t power_acknowledged(void);
uint64_t power_attempted(void);

/* How many states CUT_COUNTED can choose from; UINT64_MAX: more than that. */
uint64_t power_states(void);

/* Writes the files that are left by a cut while the next operation is on its way. */
void power_cut(const char *directory, enum cut_style, uint64_t *random, uint64_t counter);

#endif
