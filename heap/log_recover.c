/* Recovery: what the segments hold is checked as a whole (log.h, layout.h tell when a log is whole), and
 * only then applied. A record that `synced` covers is in the image already and is passed over.
 */
#define _GNU_SOURCE
#include "heap/checksum.h"
#include "heap/disk.h"
#include "heap/fault.h"
#include "heap/log_inner.h"
#include "heap/say.h"
#include "heap/sums.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define IMAGE_LIMIT (1UL << 46) /* no image is longer; a run beyond is not believed */

/* Records are applied in groups; a group that takes longer a run than this waited for the disk. */
#define BURST_BYTES (256UL << 10)
#define SLOW_RUN_US 20

/* One segment's contents and the records at its beginning that follow each other. */
struct chain {
    unsigned segment;
    const uint8_t *data;
    uint64_t bytes, mapped;
    uint64_t first, last; /* sequences; 0, 0: none */
    uint64_t end;         /* where the first block lies that is none of them */
    uint64_t synced;      /* the highest `synced` in them */
    uint64_t power_synced; /* the same, of records that were flushed */
    uint64_t process_last; /* the last record that was not */
    uint64_t lost_last;    /* the same, of another boot */
    uint64_t image_end;
    const struct record *newest;
};

static int refuse(struct log *log, unsigned segment, uint64_t offset, int fault, const char *what)
{
    say_format(log->store->fault_path, sizeof log->store->fault_path, "log.%u", segment);
    say("%s/log.%u, offset %lu: %s; nothing was changed", log->store->path, segment, offset, what);
    return fault;
}

static int load(struct log *log, unsigned number, struct chain *c)
{
    struct log_segment *s = &log->segment[number];
    int64_t size = disk_size(s->buffered_fd);
    *c = (struct chain){.segment = number};
    if (size < 0)
        return (int)size;
    if ((uint64_t)size < log->nominal)
        return refuse(log, number, (uint64_t)size, STORE_DAMAGED, "the segment is cut short");
    long at = sys(SYS_mmap, 0, PAGE_UP((uint64_t)size), PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (sys_failed(at))
        return (int)at;
    sys(SYS_madvise, at, PAGE_UP((uint64_t)size), MADV_HUGEPAGE); /* a third of the time to read it */
    c->data = (const uint8_t *)at;
    c->mapped = PAGE_UP((uint64_t)size);
    c->bytes = PAGE_DOWN((uint64_t)size);
    s->bytes = c->bytes;
    long n = disk_read(s->direct_fd >= 0 ? s->direct_fd : s->buffered_fd, (void *)at, c->bytes, 0);
    if (n == -EINVAL)
        n = disk_read(s->buffered_fd, (void *)at, c->bytes, 0);
    if (n == (long)c->bytes)
        return 0;
    if (n >= 0)
        n = -EIO;
    say("cannot read %s/log.%u: %s", log->store->path, number, say_error(n));
    return (int)n;
}

static int check_head(struct log *log, const struct chain *c)
{
    const struct segment_head *head = (const struct segment_head *)c->data;
    bool sound = head->checksum == checksum_of(c->data + 16, BLOCK_BYTES - 16);
    if (head->magic != SEGMENT_MAGIC)
        return refuse(log, c->segment, 0, STORE_DAMAGED, "this is no log segment");
    if (head->version > STORE_VERSION) {
        log->store->found_version = head->version;
        return refuse(log, c->segment, 0, STORE_NEWER, "the segment was written by a newer libken");
    }
    if (!sound || head->version != STORE_VERSION)
        return refuse(log, c->segment, 0, STORE_DAMAGED, "the segment's head is damaged");
    if (memcmp(&head->id, &log->store->super.id, sizeof head->id) != 0 || head->segment != c->segment)
        return refuse(log, c->segment, 0, STORE_FOREIGN, "the segment belongs to another store or run");
    return 0;
}

/* The cheap part of validity: it has the looks of a record, whatever its checksum says. */
static const struct record *look(const struct log *log, const struct chain *c, uint64_t at)
{
    const struct record *r = (const struct record *)(c->data + at);
    if (at >= c->bytes || r->magic != RECORD_MAGIC || r->version > STORE_VERSION || r->segment != c->segment ||
        r->position != at || MUTANT("recover.any_run", false, memcmp(&r->id, &log->store->super.id, sizeof r->id) != 0))
        return NULL;
    if (!r->bytes || r->bytes % BLOCK_BYTES || r->bytes > c->bytes - at ||
        r->payload > r->bytes - sizeof *r || !r->sequence || r->synced >= r->sequence || r->owed > r->sequence)
        return NULL;
    return r;
}

static uint64_t max(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static bool is_sound(const struct run *run)
{
    uint64_t reach = log_run_reach(run), within = run->offset % BLOCK_BYTES;
    bool shaped = run->kind == RUN_LINES ? !(within % LINE_BYTES) && within + reach <= BLOCK_BYTES
                                         : run->kind == RUN_PUNCH && !within;
    if (run->flags & RUN_OWED && (run->kind != RUN_LINES || reach != BLOCK_BYTES))
        return false;
    return shaped && reach && run->offset <= IMAGE_LIMIT && reach <= IMAGE_LIMIT && sums_cover(run->offset, reach);
}

static bool runs_are_sound(const struct record *r, uint64_t *image_end)
{
    uint64_t left = r->payload, owed = log_owed_at(r);
    const struct run *run = log_first_run(r);
    for (uint32_t i = 0; i < r->runs; i++, run = log_next_run(run)) {
        if (left < sizeof *run || !is_sound(run) || log_run_data(run) > left - sizeof *run)
            return false;
        left -= sizeof *run + log_run_data(run);
        owed += run->flags & RUN_OWED ? BLOCK_BYTES : 0;
        uint64_t end = run->offset + log_run_reach(run), last = PAGE_DOWN(end - 1);
        *image_end = max(*image_end, max(end, sums_at(last) + sizeof run->sum));
    }
    return left == 0 && owed <= r->bytes;
}

static const struct record *valid(const struct log *log, const struct chain *c, uint64_t at, uint64_t *image_end)
{
    const struct record *r = look(log, c, at);
    uint64_t end = 0;
    if (!r || r->version != STORE_VERSION ||
        MUTANT("recover.no_checksum", false, r->checksum != checksum_of((const uint8_t *)r + 16, r->bytes - 16)) ||
        !runs_are_sound(r, &end))
        return NULL;
    if (image_end && *image_end < end)
        *image_end = end;
    return r;
}

static void follow(const struct log *log, struct chain *c)
{
    const struct record *r;
    for (c->end = BLOCK_BYTES; (r = valid(log, c, c->end, NULL)); c->end += r->bytes) {
        if (MUTANT("recover.any_sequence", false, c->first && r->sequence != c->last + 1))
            break;
        runs_are_sound(r, &c->image_end);
        c->first = c->first ? c->first : r->sequence;
        c->last = r->sequence;
        c->newest = r;
        c->synced = max(c->synced, r->synced);
        if (!(r->flags & RECORD_PROCESS)) {
            c->power_synced = max(c->power_synced, r->synced);
            continue;
        }
        c->process_last = r->sequence;
        if (r->boot != log->boot)
            c->lost_last = r->sequence;
    }
}

/* A valid record above the last one: what lies before it was durable once. */
static int find_later(struct log *log, const struct chain *c, uint64_t last)
{
    for (uint64_t at = c->end; at < c->bytes; at += BLOCK_BYTES) {
        const struct record *r = look(log, c, at);
        if (MUTANT("recover.no_look_behind", false, r && r->sequence > last && valid(log, c, at, NULL)))
            return refuse(log, c->segment, c->end, STORE_DAMAGED,
                          "this record is damaged, though later ones are whole");
    }
    return 0;
}

/* Decides which segment is the newer, and whether the two together are whole. */
static int judge(struct log *log, const struct chain chains[2], const struct chain **older,
                 const struct chain **newer, uint64_t *synced)
{
    bool swap = chains[1].first > chains[0].first;
    const struct chain *x = &chains[swap], *y = &chains[!swap];
    *newer = x;
    *older = y;
    *synced = max(x->synced, y->synced);
    uint64_t power_synced = max(x->power_synced, y->power_synced);
    int r = find_later(log, x, x->last);
    if (!r)
        r = find_later(log, y, x->last);
    if (r)
        return r;
    if (y->first && y->last >= x->first)
        return refuse(log, y->segment, y->end, STORE_DAMAGED, "both segments hold the same records");
    bool joined = y->first && y->last + 1 == x->first && y->first <= *synced + 1;
    if (x->first > *synced + 1 && !joined)
        return refuse(log, y->segment, y->end, STORE_DAMAGED,
                      "a record is damaged or missing, though later ones are whole");
    uint64_t lost = max(x->lost_last, y->lost_last);
    if (MUTANT("recover.any_boot", false, lost > power_synced))
        return refuse(log, x->segment, x->end, STORE_REBOOTED,
                      "kept with KEN_SYNC=process, and the machine went down since");
    return 0;
}

static uint64_t clock_us(void)
{
    return (uint64_t)sys_clock_ns(CLOCK_MONOTONIC) / 1000;
}

/* Lines are written into pages that must be read first: all of a group at once, else one after the other. */
static void read_ahead(int fd, const struct record *r)
{
    const struct run *run = log_first_run(r);
    for (uint32_t i = 0; i < r->runs; i++, run = log_next_run(run))
        if (run->kind == RUN_LINES)
            sys(SYS_fadvise64, fd, PAGE_DOWN(run->offset), PAGE_UP(log_run_reach(run)), POSIX_FADV_WILLNEED);
}

/* Applies the records above `synced` in order. After a reboot the image is not in memory: once a group was
 * slow (asking for pages that are there would cost as much as the writing), the pages of the next ones are
 * asked for beforehand. */
static long apply_chain(struct log *log, const struct chain *c, uint64_t synced, const struct image_writer *writer)
{
    struct image_writer plain = *writer;
    long count = 0;
    bool cold = false;
    plain.twin_bytes = 0;
    for (uint64_t at = BLOCK_BYTES, end; at < c->end; at = end) {
        uint64_t runs = 0, start = clock_us();
        for (end = at; end < c->end && end - at < BURST_BYTES;) {
            const struct record *r = (const struct record *)(c->data + end);
            if (cold && r->sequence > synced)
                read_ahead(writer->fd, r);
            end += r->bytes;
        }
        while (at < end) {
            const struct record *r = (const struct record *)(c->data + at);
            at += r->bytes;
            if (r->sequence <= MUTANT("recover.last_forgotten", c->last, synced))
                continue;
            /* In the boot that wrote it the page cache has every block that was there then. */
            log_apply_runs(log, r, r->boot == log->boot ? writer : &plain);
            FAULT("recover.record");
            runs += r->runs;
            count++;
        }
        cold |= writer->fd >= 0 && clock_us() - start > runs * SLOW_RUN_US;
    }
    return count;
}

static void sync_segment(struct log *log, unsigned number)
{
    int r = disk_sync(log->segment[number].buffered_fd);
    if (r)
        disk_die("syncing the log of", log->store->path, r);
}

/* Makes what was recovered as durable as what will be committed. The process before may have died between a
 * write and its flush, yet the outputs of that turn leave now. */
static void settle(struct log *log, bool unflushed)
{
    if (log->sync != SYNC_POWER || !log->sequence)
        return;
    sync_segment(log, log->active);
    FAULT("recover.segment_synced");
    if (!unflushed)
        return;
    sync_segment(log, !log->active);
    log->synced = 0;
    log_sync(log);
    FAULT("recover.image_synced");
    log_make_room(log, BLOCK_BYTES);
    log_write_note(log);
}

/* A process that was killed leaves the page cache as it was, and each record was applied before the next one was written.
 * So in the same boot, and with the image on the same mount ever since (an unmount may have lost what was not synced),
 * only the last ones can be missing: the very last, or the one before it when that was a note; and what is owed, for which all from
 * there on are applied again. */
static uint64_t already_applied(const struct log *log, const struct chain *newer, uint64_t synced)
{
    enum { RECENT = 4 };
    const struct record *r = newer->newest;
    if (!log->trust_cache || !r || !log->mount || r->mount != log->mount || r->boot != log->boot ||
        newer->last <= RECENT)
        return synced;
    uint64_t missing = newer->last - RECENT;
    if (MUTANT("recover.nothing_owed", false, r->owed && r->owed <= missing))
        missing = r->owed - 1;
    return max(synced, missing);
}

static long recover(struct log *log, struct chain chains[2], const struct image_writer *writer)
{
    const struct chain *older, *newer;
    uint64_t synced;
    for (unsigned n = 0; n < 2; n++) {
        int r = load(log, n, &chains[n]);
        if (!r)
            r = check_head(log, &chains[n]);
        if (r)
            return r;
        follow(log, &chains[n]);
    }
    int r = judge(log, chains, &older, &newer, &synced);
    if (r)
        return r;
    FAULT("recover.judged");
    log->image_end = max(older->image_end, newer->image_end);
    if (writer->fd < 0 && writer->memory && log->image_end > writer->memory_bytes)
        return -EAGAIN; /* its process goes on meanwhile */
    uint64_t done = already_applied(log, newer, synced);
    long count = newer->first > done + 1 ? apply_chain(log, older, done, writer) : 0;
    count += apply_chain(log, newer, done, writer);
    FAULT("recover.applied");
    log->active = newer->segment;
    log->sequence = log->applied = newer->last;
    log->synced = log->proven = synced;
    log->owed = log->owed_next = 0;
    log->segment[newer->segment].tail = newer->end;
    log->segment[newer->segment].last = newer->last;
    log->segment[older->segment].tail = BLOCK_BYTES;
    log->segment[older->segment].last = newer->first ? newer->first - 1 : 0;
    log->ready = !log->read_only && writer->fd >= 0;
    bool unflushed = max(older->process_last, newer->process_last) > max(older->power_synced, newer->power_synced);
    if (log->ready)
        FAULT("recover.settle"),         settle(log, unflushed);
    return count;
}

long log_recover(struct log *log, const struct image_writer *writer)
{
    struct chain chains[2] = {{0}, {0}};
    log->ready = false;
    log->sync_target = 0;
    log_begin(log);
    if (log->read_only && writer->fd >= 0)
        return -EINVAL;
    long result = recover(log, chains, writer);
    log_relief(log);
    for (unsigned n = 0; n < 2; n++)
        if (chains[n].data)
            sys(SYS_munmap, chains[n].data, chains[n].mapped);
    return result;
}

long log_overlay(struct log *log, uint8_t **memory, uint64_t *bytes)
{
    struct image_writer writer = {.fd = -1};
    long r = log_recover(log, &writer);
    if (r < 0)
        return r;
    int64_t size = disk_size(log->image_fd);
    if (size < 0)
        return size;
    *bytes = PAGE_UP(max((uint64_t)size, log->image_end));
    if (!*bytes)
        *bytes = PAGE_BYTES;
    long at = sys(SYS_mmap, 0, *bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (sys_failed(at))
        return at;
    long over = size ? sys(SYS_mmap, at, PAGE_UP((uint64_t)size), PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED, log->image_fd, 0)
                     : 0;
    if (sys_failed(over)) {
        sys(SYS_munmap, at, *bytes);
        return over;
    }
    *memory = writer.memory = (uint8_t *)at;
    writer.memory_bytes = *bytes;
    return log_recover(log, &writer);
}
