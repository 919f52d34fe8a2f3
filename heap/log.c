#define _GNU_SOURCE
#include "heap/log.h"
#include "heap/checksum.h"
#include "heap/disk.h"
#include "heap/fault.h"
#include "heap/log_inner.h"
#include "heap/loose.h"
#include "heap/say.h"
#include "heap/sums.h"
#include "heap/window.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>

#define KEEP_BYTES (1UL << 20) /* of the buffer, after a record that was much longer */
#define TRIM_BYTES (4UL << 20)
#define FULL_PAUSE_MS 200
#define PARTS_MAX 1024u /* IOV_MAX */

/* The last block of the buffer is where notes are made: one may be due while a record is in the making. */
#define RECORD_MAX (LOG_BUFFER_BYTES - BLOCK_BYTES)

/* 0: it cannot be told. That it cannot be for a moment is no reason to take all that was not flushed for lost: -errno. */
static int find_boot(uint64_t *boot)
{
    char id[64];
    long opened = disk_open(AT_FDCWD, "/proc/sys/kernel/random/boot_id", O_RDONLY, 0);
    int fd = (int)opened;
    long n = fd < 0 ? opened : disk_read(fd, id, sizeof id, 0);
    disk_close(&fd);
    *boot = n > 0 ? checksum_of(id, (size_t)n) : 0;
    return sys_in_trouble(n) ? (int)n : 0;
}

static int open_segment(struct log *log, unsigned number)
{
    struct log_segment *segment = &log->segment[number];
    char name[8];
    say_format(name, sizeof name, "log.%u", number);
    int mode = log->read_only ? O_RDONLY : O_RDWR;
    long fd = disk_open(log->store->directory_fd, name, mode, 0);
    if (fd == -ENOENT) {
        memcpy(log->store->fault_path, name, sizeof name);
        say("%s/%s is missing", log->store->path, name);
        return STORE_INCOMPLETE;
    }
    if (fd < 0)
        return (int)fd;
    segment->buffered_fd = (int)fd;
    if (log->read_only || log->sync == SYNC_PROCESS)
        return 0;
    fd = disk_open(log->store->directory_fd, name, mode | O_DIRECT, 0);
    if (fd < 0 && fd != -EINVAL)
        return (int)fd;
    segment->direct_fd = fd < 0 ? -1 : (int)fd;
    return 0;
}

int log_open(struct log *log, struct store *store, enum sync sync, int image_fd)
{
    uint8_t *buffer = log->buffer ? log->buffer : window_alloc(LOG_BUFFER_BYTES);
    struct iovec *parts = log->parts ? log->parts : window_alloc(PARTS_MAX * sizeof *parts);
    memset(log, 0, sizeof *log);
    if (!buffer || !parts)
        return -ENOMEM;
    log->buffer = buffer;
    log->parts = parts;
    log->store = store;
    log->image_fd = image_fd;
    log->sync = sync;
    log->read_only = store->read_only;
    log->nominal = store->super.segment_bytes;
    log->mount = disk_mount(image_fd);
    for (unsigned n = 0; n < 2; n++)
        log->segment[n].direct_fd = log->segment[n].buffered_fd = -1;
    int r = find_boot(&log->boot);
    if (!r)
        r = open_segment(log, 0);
    if (!r)
        r = open_segment(log, 1);
    if (r)
        log_close(log);
    else
        log_begin(log);
    return r;
}

void log_inherit(struct log *log)
{
    log_attach_after_restore(log);
    log->twin = NULL;
    log->trust_cache = log->marked = log->full = log->ready = false;
    log->owed = log->owed_next = 0;
    if (log->loose)
        loose_inherit(log->loose);
    log_begin(log);
}

void log_use_twin(struct log *log, void *twin)
{
    log->twin = twin;
}

void log_trouble(struct log *log, const char *action, int error)
{
    if (error != -ENOSPC && error != -EDQUOT)
        disk_die(action, log->store->path, error);
    if (!log->full)
        say("the disk of %s is full; waiting for room", log->store->path);
    log->full = true;
    disk_pause(FULL_PAUSE_MS);
}

void log_relief(struct log *log)
{
    if (log->full)
        say("the disk of %s has room again; going on", log->store->path);
    log->full = false;
}

static void trim(struct log *log)
{
    if (log->used > TRIM_BYTES)
        sys(SYS_madvise, log->buffer + KEEP_BYTES, PAGE_UP(log->used) - KEEP_BYTES, MADV_DONTNEED);
}

void log_begin(struct log *log)
{
    trim(log);
    log->used = sizeof(struct record);
    log->runs = 0;
    log->owes = false;
    log->part_count = 1;
    log->fault = 0;
}

static struct run *add_run(struct log *log, uint64_t data)
{
    if (log->fault)
        return NULL;
    if (data > RECORD_MAX || log->used + sizeof(struct run) + data > RECORD_MAX) {
        log->fault = -E2BIG;
        return NULL;
    }
    struct run *run = (struct run *)(log->buffer + log->used);
    log->used += sizeof *run + data;
    log->runs++;
    return run;
}

int log_lines(struct log *log, uint64_t offset, const void *data, unsigned lines, uint32_t sum, unsigned flags)
{
    uint64_t bytes = (uint64_t)lines * LINE_BYTES;
    if (!lines || offset % LINE_BYTES || offset % BLOCK_BYTES + bytes > BLOCK_BYTES)
        log->fault = -EINVAL;
    struct run *run = add_run(log, bytes);
    if (!run)
        return log->fault;
    *run = (struct run){offset, {sum}, (uint16_t)lines, RUN_LINES, (uint8_t)flags};
    memcpy(run + 1, data, bytes);
    return 0;
}

/* The page becomes a part of what is written. */
static bool lend(struct log *log, const void *page)
{
    struct iovec *last = &log->parts[log->part_count - 1];
    if (log->part_count > 1 && (const char *)last->iov_base + last->iov_len == page) {
        last->iov_len += BLOCK_BYTES;
        return true;
    }
    if (log->part_count == PARTS_MAX)
        return false;
    log->parts[log->part_count++] = (struct iovec){(void *)page, BLOCK_BYTES};
    return true;
}

int log_page(struct log *log, uint64_t offset, const void *page, unsigned flags)
{
    bool owed = flags & RUN_OWED && lend(log, page);
    struct run *run = add_run(log, owed ? 0 : BLOCK_BYTES);
    if (!run)
        return log->fault;
    *run = (struct run){offset, {0}, BLOCK_BYTES / LINE_BYTES, RUN_LINES, (uint8_t)(owed ? flags : flags & ~(unsigned)RUN_OWED)};
    log->owes |= owed;
    if (owed)
        return 0;
    memcpy(run + 1, page, BLOCK_BYTES);
    run->sum = sums_page(run + 1);
    return 0;
}

int log_punch(struct log *log, uint64_t offset, uint64_t bytes)
{
    if (offset % BLOCK_BYTES || bytes % BLOCK_BYTES)
        return log->fault = -EINVAL;
    while (bytes) {
        uint64_t part = bytes < RUN_PUNCH_MAX ? bytes : RUN_PUNCH_MAX;
        struct run *run = add_run(log, 0);
        if (!run)
            return log->fault;
        *run = (struct run){offset, {.pages = (uint32_t)(part / BLOCK_BYTES)}, 0, RUN_PUNCH, 0};
        offset += part;
        bytes -= part;
    }
    return 0;
}

size_t log_pending(const struct log *log)
{
    return log->runs ? log->used : 0;
}

static int write_plain(int fd, const struct iovec *parts, unsigned count, uint64_t offset)
{
    int r = 0;
    for (unsigned i = 0; !r && i < count; offset += parts[i++].iov_len)
        r = disk_write(fd, parts[i].iov_base, parts[i].iov_len, offset);
    return r;
}

/* One write. A file system that refuses O_DIRECT only when written to is served through the page cache. */
static int write_segment(struct log *log, struct log_segment *s, const struct iovec *parts, unsigned count)
{
    if (log->sync == SYNC_PROCESS && log->marked)
        return write_plain(s->buffered_fd, parts, count, s->tail);
    if (MUTANT("log.not_flushed", true, false))
        return write_plain(s->buffered_fd, parts, count, s->tail);
    if (s->direct_fd >= 0) {
        int r = disk_write_durable_vector(s->direct_fd, parts, (int)count, s->tail);
        if (r != -EINVAL)
            return r;
        disk_close(&s->direct_fd);
    }
    return disk_write_durable_vector(s->buffered_fd, parts, (int)count, s->tail);
}

static uint64_t bytes_of(const struct iovec *parts, unsigned count)
{
    uint64_t bytes = 0;
    for (unsigned i = 0; i < count; i++)
        bytes += parts[i].iov_len;
    return bytes;
}

void log_write_record(struct log *log, const struct iovec *parts, unsigned count, uint64_t payload, unsigned flags)
{
    struct log_segment *s = &log->segment[log->active];
    struct record *r = parts->iov_base;
    uint64_t bytes = bytes_of(parts, count);
    if (!log->owed_next && log->owes && !(flags & RECORD_NOTE))
        log->owed_next = log->sequence + 1;
    *r = (struct record){
        .magic = RECORD_MAGIC,
        .version = STORE_VERSION,
        .flags = flags | (log->sync == SYNC_PROCESS ? RECORD_PROCESS : 0),
        .id = log->store->super.id,
        .sequence = log->sequence + 1,
        .synced = MUTANT("log.claims_unsynced", log->applied, log->synced),
        .bytes = bytes,
        .payload = payload,
        .position = s->tail,
        .segment = log->active,
        .runs = flags & RECORD_NOTE ? 0 : log->runs,
        .boot = log->boot,
        .mount = log->mount,
        .owed = log->owed ? log->owed : log->owed_next,
    };
    r->checksum = checksum_of_parts(parts, count, 16);
    FAULT("log.write");
    for (int error; (error = write_segment(log, s, parts, count));)
        log_trouble(log, "writing the log of", error);
    FAULT("log.written");
    log->marked = true;
    s->tail += bytes;
    s->last = ++log->sequence;
    log->proven = r->synced;
    log->written_bytes += bytes;
}

void log_write_note(struct log *log)
{
    struct iovec note = {log->buffer + RECORD_MAX, BLOCK_BYTES};
    FAULT("log.note");
    log_write_record(log, &note, 1, 0, RECORD_NOTE);
    FAULT("log.noted");
    log->applied = log->sequence;
}

static void resize(struct log *log, struct log_segment *s, uint64_t bytes)
{
    int error = 0;
    if (bytes > s->bytes)
        while ((error = disk_allocate(s->buffered_fd, s->bytes, bytes - s->bytes)))
            log_trouble(log, "growing the log of", error);
    if (bytes != s->bytes)
        while ((error = disk_truncate(s->buffered_fd, bytes)))
            log_trouble(log, "resizing the log of", error);
    s->bytes = bytes;
}

/* What is owed to the image may be given up in a moment, and need not be written then: half a segment later. */
static bool is_worth_waiting(const struct log *log)
{
    const struct log_segment *active = &log->segment[log->active];
    return log->loose && log->loose->older.count && active->tail < active->bytes / 2;
}

/* A segment that grew for a giant record is cut back once nothing in it is needed any more. */
static void tend_idle_segment(struct log *log)
{
    struct log_segment *idle = &log->segment[!log->active];
    if (idle->last > log->synced) {
        if (!is_worth_waiting(log))
            log_sync_start(log, idle->last);
    } else if (idle->bytes > log->nominal && idle->last <= log->proven) {
        FAULT("log.cut_back");
        resize(log, idle, log->nominal);
    }
}

/* Rule 3. The note goes into the block that log_make_room() keeps free at each segment's end. */
static void switch_segment(struct log *log, uint64_t bytes)
{
    struct log_segment *next = &log->segment[!log->active];
    if (MUTANT("log.recycled_before_sync", false, next->last > log->synced)) {
        log->foreground_waits++;
        FAULT("log.wait_for_sync");
        log_sync_wait(log, next->last);
    }
    if (MUTANT("log.recycled_without_note", false, next->last > log->proven))
        log_write_note(log);
    FAULT("log.switch");
    uint64_t needed = BLOCK_BYTES + bytes + BLOCK_BYTES;
    resize(log, next, needed > log->nominal ? needed : log->nominal);
    FAULT("log.resized");
    log->active = !log->active;
    next->tail = BLOCK_BYTES;
    next->last = 0;
    log->switches++;
    FAULT("log.switched");
    if (!log->owed)
        log->owed = log->owed_next;
    log->owed_next = 0;
    if (log->loose)
        loose_age(log->loose, log);
    tend_idle_segment(log);
}

void log_make_room(struct log *log, uint64_t bytes)
{
    const struct log_segment *s = &log->segment[log->active];
    if (s->tail + bytes + BLOCK_BYTES > s->bytes)
        switch_segment(log, bytes);
}

int log_commit(struct log *log, uint64_t *sequence)
{
    if (log->fault)
        return log->fault;
    if (log->read_only || !log->ready || log->applied != log->sequence)
        return -EINVAL;
    log_sync_poll(log);
    log->parts[0] = (struct iovec){log->buffer, PAGE_UP(log->used)};
    memset(log->buffer + log->used, 0, log->parts[0].iov_len - log->used);
    log_make_room(log, bytes_of(log->parts, log->part_count));
    log_write_record(log, log->parts, log->part_count, log->used - sizeof(struct record), 0);
    log->commits++;
    if (sequence)
        *sequence = log->sequence;
    return 0;
}

int log_apply(struct log *log)
{
    if (log->applied == log->sequence)
        return 0;
    struct image_writer writer = {.fd = log->image_fd, .twin = log->twin, .twin_bytes = log->twin ? UINT64_MAX : 0, .owing = true};
    if (log->loose)
        loose_applied(log->loose, log);
    if (MUTANT("apply.left_out", false, true))
        log_apply_runs(log, (const struct record *)log->buffer, &writer);
    FAULT("log.applied");
    log_relief(log);
    log->applied = log->sequence;
    log_begin(log);
    tend_idle_segment(log);
    return 0;
}
