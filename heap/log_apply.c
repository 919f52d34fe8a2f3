/* Bringing a record's runs into the image: at a commit, in recovery, and in an inspector's memory. */
#define _GNU_SOURCE
#include "heap/disk.h"
#include "heap/fault.h"
#include "heap/log_inner.h"

#include <string.h>
#include <sys/mman.h>

#define BATCH 64
#define REMAP_BYTES (1UL << 20) /* from here on zeros are cheaper mapped than written */

/* Runs that adjoin in the file, to be written in one call. */
struct batch {
    struct log *log;
    int fd, count;
    uint64_t offset, bytes;
    const struct run *run[BATCH];
};

static void batch_flush(struct batch *b)
{
    while (b->count) {
        struct iovec v[BATCH];
        for (int i = 0; i < b->count; i++)
            v[i] = (struct iovec){(void *)(b->run[i] + 1), log_run_data(b->run[i])};
        int error = disk_write_vector(b->fd, v, b->count, b->offset);
        if (!error)
            break;
        log_trouble(b->log, "writing the image of", error);
    }
    FAULT("apply.batch");
    if (b->count)
        log_relief(b->log);
    b->count = 0;
}

static void batch_add(struct batch *b, const struct run *run)
{
    if (b->count == BATCH || (b->count && b->offset + b->bytes != run->offset))
        batch_flush(b);
    if (!b->count) {
        b->offset = run->offset;
        b->bytes = 0;
    }
    b->run[b->count++] = run;
    b->bytes += log_run_data(run);
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

static void punch(struct log *log, const struct run *run, const struct image_writer *writer)
{
    uint64_t bytes = (uint64_t)run->lines * LINE_BYTES;
    if (writer->fd < 0) {
        zero_memory(writer->memory + run->offset, bytes);
        return;
    }
    for (int error; (error = disk_punch(writer->fd, run->offset, bytes));)
        log_trouble(log, "punching the image of", error);
    FAULT("apply.punched");
    log_relief(log);
}

/* Where a run may be copied to; NULL: it has to be written, because the file may have no block there. */
static uint8_t *memory_for(const struct run *run, const struct image_writer *writer)
{
    if (writer->fd < 0)
        return writer->memory;
    bool there = !(run->flags & LOG_NEW) && run->offset + log_run_data(run) <= writer->twin_bytes;
    return there ? writer->twin : NULL;
}

void log_apply_runs(struct log *log, const struct record *r, const struct image_writer *writer)
{
    struct batch batch = {.log = log, .fd = writer->fd};
    const struct run *run = log_first_run(r);
    if (writer->fd < 0 && !writer->memory)
        return;
    for (uint32_t i = 0; i < r->runs; i++, run = log_next_run(run)) {
        uint8_t *memory = memory_for(run, writer);
        if (run->kind == RUN_LINES && !memory) {
            batch_add(&batch, run);
            continue;
        }
        /* Later runs may lie on earlier ones: the order holds between all ways of writing. */
        batch_flush(&batch);
        if (run->kind == RUN_PUNCH)
            MUTANT("apply.no_punch", (void)0, punch(log, run, writer));
        else
            memcpy(memory + run->offset, run + 1, MUTANT("apply.stale_twin", LINE_BYTES, log_run_data(run)));
        FAULT("apply.run");
    }
    batch_flush(&batch);
}
