/* What the files of the log share. Nobody else includes this. */
#ifndef KEN_HEAP_LOG_INNER_H
#define KEN_HEAP_LOG_INNER_H

#include "heap/log.h"
#include "heap/sys.h"

/* Makes a record durable as the active segment's next: fills in its header, with which the first part begins, writes, accounts.
 * There must be room. Parts are multiples of BLOCK_BYTES; `payload` bytes of the first are runs. */
void log_write_record(struct log *, const struct iovec *parts, unsigned count, uint64_t payload, unsigned flags);

/* Switches segments unless the active one has room for `bytes` more and a note behind them. */
void log_make_room(struct log *, uint64_t bytes);

/* Says durably how far the image is synced. */
void log_write_note(struct log *);

/* Brings the runs of a record to `writer`. Waits for room, dies when the disk fails. */
void log_apply_runs(struct log *, const struct record *, const struct image_writer *);

/* What to do about a write that failed: waits a while when the disk is full, dies of all else. */
void log_trouble(struct log *, const char *action, int error);
/* Says so when there is room again. A full disk has room for moments, a few blocks at a time: called when all that belongs to a
 * record is where it belongs, so that one record says it once. */
void log_relief(struct log *);

/* Background sync: starts one, for the records up to that one, which are applied, unless one runs; notices its end;
 * waits until the image is synced up to a record. */
void log_sync_start(struct log *, uint64_t sequence);
void log_sync_poll(struct log *);
void log_sync_wait(struct log *, uint64_t sequence);

static inline const struct run *log_first_run(const struct record *r)
{
    return (const struct run *)(r + 1);
}

/* The bytes of lines that follow a run's header. */
static inline uint64_t log_run_data(const struct run *run)
{
    return run->kind == RUN_LINES && !(run->flags & RUN_OWED) ? (uint64_t)run->lines * LINE_BYTES : 0;
}

/* Where the lines of its runs that are owed begin, from the record's beginning on. */
static inline uint64_t log_owed_at(const struct record *r)
{
    return PAGE_UP(sizeof *r + r->payload);
}

/* How much of the image it changes. */
static inline uint64_t log_run_reach(const struct run *run)
{
    return run->kind == RUN_LINES ? (uint64_t)run->lines * LINE_BYTES : (uint64_t)run->pages * BLOCK_BYTES;
}

static inline const struct run *log_next_run(const struct run *run)
{
    return (const struct run *)((const uint8_t *)(run + 1) + log_run_data(run));
}

#endif
