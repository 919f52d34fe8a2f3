/* Bringing a record's runs into the image: at a commit, in recovery, and in an inspector's memory. */
#define _GNU_SOURCE
#include "heap/disk.h"
#include "heap/fault.h"
#include "heap/log_inner.h"
#include "heap/sums.h"

#include <string.h>
#include <sys/mman.h>
#include <sys/vfs.h>

#define BATCH 64
#define SUMS 256
#define ROOM_BYTES (256UL << 20) /* with less, nothing is stored through the mapping */
#define REMAP_BYTES (1UL << 20) /* from here on zeros are cheaper mapped than written */

/* Runs that adjoin in the file, to be written in one call, and sums that do. */
struct batch {
    struct log *log;
    int fd, count;
    bool roomy; /* the mapping may be stored to */
    uint64_t offset, bytes;
    struct iovec run[BATCH];
    unsigned sum_count;
    uint64_t sum_at;
    uint32_t sum[SUMS];
};

static void sums_flush(struct batch *b)
{
    while (b->sum_count) {
        int error = disk_write(b->fd, b->sum, b->sum_count * sizeof *b->sum, b->sum_at);
        if (!error)
            b->sum_count = 0;
        else
            log_trouble(b->log, "writing the image of", error);
    }
    FAULT("apply.sums");
}

/* The runs of a page follow each other, and the last one's sum is the page's. */
static void sums_add(struct batch *b, uint64_t at, uint32_t sum)
{
    uint64_t end = b->sum_at + b->sum_count * sizeof sum;
    if (b->sum_count && at + sizeof sum == end) {
        b->sum[b->sum_count - 1] = sum;
        return;
    }
    if (b->sum_count == SUMS || (b->sum_count && at != end))
        sums_flush(b);
    if (!b->sum_count)
        b->sum_at = at;
    b->sum[b->sum_count++] = sum;
}

static void batch_flush(struct batch *b)
{
    while (b->count) {
        struct iovec v[BATCH];
        for (int i = 0; i < b->count; i++)
            v[i] = b->run[i];
        int error = disk_write_vector(b->fd, v, b->count, b->offset);
        if (!error)
            break;
        log_trouble(b->log, "writing the image of", error);
    }
    FAULT("apply.batch");
    b->count = 0;
}

static void batch_add(struct batch *b, const struct run *run, const void *data)
{
    if (b->count == BATCH || (b->count && b->offset + b->bytes != run->offset))
        batch_flush(b);
    if (!b->count) {
        b->offset = run->offset;
        b->bytes = 0;
    }
    b->run[b->count++] = (struct iovec){(void *)data, log_run_reach(run)};
    b->bytes += log_run_reach(run);
}

/* Later runs may lie on earlier ones: the order holds between all ways of writing. */
static void flush_all(struct batch *b)
{
    batch_flush(b);
    if (b->sum_count)
        sums_flush(b);
}

static void zero_memory(uint8_t *at, uint64_t bytes)
{
    bool whole = !((uintptr_t)at % PAGE_BYTES) && !(bytes % PAGE_BYTES);
    if (whole && bytes >= REMAP_BYTES &&
        !sys_failed(sys(SYS_mmap, at, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0)))
        return;
    memset(at, 0, bytes);
}

/* Pages of zeros that were never written. A sum that is 0 may be a hole of the file: only read. */
static void forget_sums(struct batch *b, const struct run *run, uint8_t *memory)
{
    uint64_t at = sums_at(run->offset);
    for (uint32_t page = 0; page < run->pages; page++, at += sizeof run->sum) {
        uint32_t *sum = memory ? (uint32_t *)(memory + at) : NULL;
        if (!sum)
            sums_add(b, at, 0);
        else if (*sum)
            *sum = 0;
    }
}

static void punch(struct log *log, const struct run *run, const struct image_writer *writer)
{
    uint64_t bytes = log_run_reach(run);
    if (writer->fd < 0) {
        zero_memory(writer->memory + run->offset, bytes);
        return;
    }
    for (int error; (error = disk_punch(writer->fd, run->offset, bytes));)
        log_trouble(log, "punching the image of", error);
    FAULT("apply.punched");
}

/* A store into the mapped file is a SIGBUS when the file system finds no room, and it may look for some even where the page has
 * its block: ext4 and XFS make all of a large folio writable at once, holes included. A write says ENOSPC. */
static bool is_roomy(const struct image_writer *writer)
{
    struct statfs s;
    if (writer->fd < 0 || !writer->twin)
        return true;
    return !sys(SYS_fstatfs, writer->fd, &s) && (uint64_t)s.f_bavail * (uint64_t)s.f_bsize >= ROOM_BYTES;
}

/* Where a run may be copied to; NULL: it has to be written, because the file may have no block there. A whole page is written in any case:
 * one that was stored to costs an interruption of the other processors when it is synced. */
static uint8_t *memory_for(const struct run *run, const struct image_writer *writer, bool roomy)
{
    if (writer->fd < 0)
        return writer->memory;
    uint64_t end = run->offset + log_run_reach(run), sums_end = sums_at(PAGE_DOWN(end - 1)) + sizeof run->sum;
    bool there = roomy && !(run->flags & LOG_NEW) && end <= writer->twin_bytes && sums_end <= writer->twin_bytes;
    return there && log_run_reach(run) < BLOCK_BYTES ? writer->twin : NULL;
}

static uint32_t sum_of(const struct run *run, const void *data)
{
    return run->flags & RUN_OWED ? sums_page(data) : run->sum;
}

static void apply_run(struct batch *b, const struct run *run, const void *data, const struct image_writer *writer)
{
    uint8_t *memory = memory_for(run, writer, b->roomy);
    if (run->kind == RUN_LINES && !memory) {
        batch_add(b, run, data);
        MUTANT("apply.no_sum", (void)0, sums_add(b, sums_at(run->offset), sum_of(run, data)));
        return;
    }
    flush_all(b);
    if (run->kind == RUN_PUNCH) {
        MUTANT("apply.no_punch", (void)0, punch(b->log, run, writer));
        forget_sums(b, run, memory);
    } else {
        memcpy(memory + run->offset, data, MUTANT("apply.stale_twin", LINE_BYTES, log_run_reach(run)));
        MUTANT("apply.no_sum", (void)0, (void)(*(uint32_t *)(memory + sums_at(run->offset)) = sum_of(run, data)));
    }
    FAULT("apply.run");
}

void log_apply_runs(struct log *log, const struct record *r, const struct image_writer *writer)
{
    struct batch batch;
    batch.log = log;
    batch.fd = writer->fd;
    batch.count = 0;
    batch.sum_count = 0; /* the rest, a page of it, need not be cleared */
    const struct run *run = log_first_run(r);
    batch.roomy = is_roomy(writer);
    if (writer->fd < 0 && !writer->memory)
        return;
    const uint8_t *owed = (const uint8_t *)r + log_owed_at(r);
    for (uint32_t i = 0; i < r->runs; i++, run = log_next_run(run)) {
        if (!(run->flags & RUN_OWED)) {
            apply_run(&batch, run, run + 1, writer);
        } else if (!writer->owing) {
            apply_run(&batch, run, owed, writer);
            owed += BLOCK_BYTES;
        }
    }
    flush_all(&batch);
}
