/* The log in use: records, switching segments, giant records, and a disk that is full or fails. */
#define _GNU_SOURCE
#include "tests/unit/log_fixture.h"

static void begin(void) { start_fresh(SYNC_POWER); }
static void end(void) { disk_set_hook(NULL, NULL); close_all(); remove_root(); }
TestSuite(log, .init = begin, .fini = end);

Test(log, pending_and_sequence)
{
    uint8_t line[64] = {1};
    uint64_t sequence = 0;
    log_begin(&redo);
    cr_assert_eq(log_pending(&redo), 0);
    cr_assert_eq(log_lines(&redo, 128, line, 1, 1, LOG_NEW), 0);
    cr_assert_eq(log_pending(&redo), 128 + 16 + 64);
    log_begin(&redo); /* drops it */
    cr_assert_eq(log_pending(&redo), 0);
    for (uint64_t i = 1; i <= 5; i++) {
        cr_assert_eq(log_commit(&redo, &sequence), 0);
        cr_assert_eq(sequence, i);
        cr_assert_eq(log_commit(&redo, &sequence), -EINVAL, "rule 2: not applied yet");
        cr_assert_eq(log_apply(&redo), 0);
    }
    cr_assert_eq(reopen(SYNC_POWER), 5);
    cr_assert(image_is(model));
}

/* Nothing reaches the image before it is durable, and one commit is one write. */
struct watch {
    unsigned durable, image_writes, other;
    bool applied_early;
};
static long watch_writes(void *context, const struct disk_event *e)
{
    struct watch *w = context;
    if (e->op == DISK_WRITE_DURABLE)
        w->durable++;
    else if (e->fd == store.image_fd && e->op == DISK_WRITE)
        w->image_writes++;
    else
        w->other++;
    if (w->image_writes && !w->durable)
        w->applied_early = true;
    return 0;
}

Test(log, one_durable_write_before_anything_else)
{
    for (int i = 0; i < 20; i++) {
        struct watch w = {0};
        uint8_t line[64] = {(uint8_t)i};
        log_begin(&redo);
        log_lines(&redo, 4096 + 64 * (uint64_t)i, line, 1, 1, LOG_NEW);
        disk_set_hook(watch_writes, &w);
        cr_assert_eq(log_commit(&redo, NULL), 0);
        cr_assert(w.durable == 1 && w.image_writes == 0 && w.other == 0);
        cr_assert_eq(log_apply(&redo), 0);
        cr_assert(w.durable == 1 && w.image_writes == 2 && w.other == 0);
        disk_set_hook(NULL, NULL);
    }
}

Test(log, applies_to_the_twin)
{
    cr_assert_eq(ftruncate(store.image_fd, MAPPED_BYTES), 0);
    uint8_t *twin = mmap(NULL, MAPPED_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, store.image_fd, 0);
    cr_assert(twin != MAP_FAILED);
    log_use_twin(&redo, twin);
    for (int i = 0; i < 200; i++) {
        commit_and_apply(8, 40);
        cr_assert(!memcmp(twin, model, IMAGE_BYTES), "commit %d", i);
    }
    cr_assert_gt(redo.switches, 1);
    cr_assert(image_is(model));
}

Test(log, runs_that_overlap_keep_their_order)
{
    uint8_t a[128], b[64];
    uint32_t first;
    memset(a, 'a', sizeof a);
    memset(b, 'b', sizeof b);
    cr_assert_eq(ftruncate(store.image_fd, MAPPED_BYTES), 0);
    log_use_twin(&redo, mmap(NULL, MAPPED_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, store.image_fd, 0));
    log_begin(&redo);
    add_lines(0, a, 2, LOG_NEW);
    first = sums_page(model);
    add_lines(64, b, 1, 0);
    cr_assert_neq(first, sums_page(model), "the last run's sum is the page's");
    log_punch(&redo, 4096, 4096);
    add_lines(4096, b, 1, LOG_NEW);
    cr_assert_eq(log_commit(&redo, NULL), 0);
    cr_assert_eq(log_apply(&redo), 0);
    cr_assert(image_is(model));
    cr_assert_eq(ftruncate(store.image_fd, 0), 0);
    cr_assert_eq(reopen(SYNC_POWER), 1);
    cr_assert(image_is(model));
}

/* The store stays bounded, and its descriptors are out of the program's way. */
Test(log, segments_are_reused)
{
    for (int i = 0; i < 400; i++)
        commit_and_apply(6, 30);
    cr_assert_gt(redo.switches, 10);
    for (unsigned n = 0; n < 2; n++) {
        cr_assert_eq(disk_size(redo.segment[n].buffered_fd), SEGMENT_BYTES);
        cr_assert_geq(redo.segment[n].buffered_fd, 900);
    }
    cr_assert_geq(store.image_fd, 900);
    cr_assert(redo.ring.refused || redo.ring.fd >= 900);
}

Test(log, works_without_io_uring)
{
    for (int i = 0; i < 200; i++) {
        redo.ring.refused = true;
        commit_and_apply(6, 30);
    }
    cr_assert(!redo.ring.mapped);
    cr_assert_gt(redo.switches, 3);
    cr_assert_gt(redo.synced, 0);
    cr_assert_geq(reopen(SYNC_POWER), 0);
    cr_assert(image_is(model));
}

Test(log, ring_of_an_earlier_life_is_forgotten)
{
    while (redo.switches < 2)
        commit_and_apply(6, 30);
    if (redo.ring.refused)
        cr_skip_test("no io_uring here");
    cr_assert(redo.ring.mapped);
    log_attach_after_restore(&redo);
    cr_assert(!redo.ring.mapped);
    while (redo.switches < 6)
        commit_and_apply(6, 30);
    cr_assert(redo.ring.mapped);
    cr_assert_geq(reopen(SYNC_POWER), 0);
    cr_assert(image_is(model));
}

/* A record larger than a segment: the segment grows, and is cut back when it is idle. */
Test(log, giant_record, .timeout = 60)
{
    const uint32_t lines = 3 << 14; /* 3 MiB: twelve segments */
    uint8_t *big = malloc(lines * 64UL);
    for (size_t i = 0; i < lines * 64UL; i++)
        big[i] = (uint8_t)random_next();
    for (int round = 0; round < 3; round++) {
        commit_and_apply(3, 3);
        log_begin(&redo);
        cr_assert_eq(add_pages(1UL << 20, big + round * 64, (lines - 3) * 64UL), 0);
        cr_assert_eq(log_commit(&redo, NULL), 0);
        uint64_t grown = disk_size(redo.segment[redo.active].buffered_fd);
        cr_assert_gt(grown, lines * 64UL);
        if (round)
            log_apply(&redo);
        cr_assert_eq(ftruncate(store.image_fd, 0), 0);
        memset(model, 0, sizeof model);
        cr_assert_geq(reopen(SYNC_POWER), 1);
        uint8_t *found = malloc(lines * 64UL);
        disk_read(store.image_fd, found, (lines - 3) * 64UL, 1UL << 20);
        cr_assert(!memcmp(found, big + round * 64, (lines - 3) * 64UL));
        free(found);
        read_image(model);
        for (int i = 0; i < 100; i++)
            commit_and_apply(4, 16);
        log_sync(&redo);
        commit_and_apply(1, 1);
        commit_and_apply(1, 1);
        for (unsigned n = 0; n < 2; n++)
            cr_assert_eq(disk_size(redo.segment[n].buffered_fd), SEGMENT_BYTES);
        cr_assert_geq(reopen(SYNC_POWER), 0);
        cr_assert(image_is(model));
    }
    free(big);
}

Test(log, buffer_is_given_back)
{
    static uint8_t data[1 << 20];
    memset(data, 7, sizeof data);
    log_begin(&redo);
    for (uint64_t i = 1; i < 64; i++)
        cr_assert_eq(add_pages(i << 20, data, sizeof data), 0);
    unsigned char resident[(64 << 20) / 4096];
    cr_assert_eq(log_commit(&redo, NULL), 0);
    cr_assert_eq(log_apply(&redo), 0);
    cr_assert_eq(mincore(redo.buffer, 64 << 20, resident), 0);
    size_t pages = 0;
    for (size_t i = 0; i < sizeof resident; i++)
        pages += resident[i] & 1;
    cr_assert_leq(pages, 1024);
}

Test(log, record_beyond_the_buffer)
{
    uint8_t line[64] = {0};
    log_begin(&redo);
    uint64_t used = redo.used;
    redo.used = LOG_BUFFER_BYTES - BLOCK_BYTES - 79;
    cr_assert_eq(log_lines(&redo, 0, line, 1, 1, 0), -E2BIG);
    redo.used = used;
    cr_assert_eq(log_commit(&redo, NULL), -E2BIG);
    commit_and_apply(2, 2);
    cr_assert_eq(redo.sequence, 1);
}

Test(log, what_is_no_run)
{
    static uint8_t page[4096];
    const struct { uint64_t offset; unsigned lines; } bad[] = {{0, 0}, {32, 1}, {64, 64}, {4096 - 64, 2}, {0, 65}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        log_begin(&redo);
        cr_assert_eq(log_lines(&redo, bad[i].offset, page, bad[i].lines, 1, 0), -EINVAL);
        cr_assert_eq(log_commit(&redo, NULL), -EINVAL);
    }
    log_begin(&redo);
    cr_assert_eq(log_punch(&redo, 64, 4096), -EINVAL);
    log_begin(&redo);
    cr_assert_eq(log_punch(&redo, 4096, 64), -EINVAL);
    commit_and_apply(2, 2);
    cr_assert(image_is(model));
}

/* Sums of many pages in a row, of single ones, of those that became holes: each its own, whichever way it is written. */
Test(log, sums_of_all_pages)
{
    static uint8_t data[600 * 4096], sums[600 * 4];
    cr_assert_eq(ftruncate(store.image_fd, 4 << 20), 0);
    uint8_t *twin = mmap(NULL, 4 << 20, PROT_READ | PROT_WRITE, MAP_SHARED, store.image_fd, 0);
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)random_next();
    log_begin(&redo);
    cr_assert_eq(add_pages(1 << 20, data, sizeof data), 0);
    cr_assert(!log_commit(&redo, NULL) && !log_apply(&redo));
    for (int way = 0; way < 2; way++) {
        if (way)
            log_use_twin(&redo, twin);
        uint64_t at = (300 + (uint64_t)way) * 4096;
        log_begin(&redo);
        cr_assert_eq(log_punch(&redo, (1 << 20) + at, 3 * 4096), 0);
        memset(data + at, 0, 3 * 4096);
        memset(data + 4096 * way, 7, 64);
        cr_assert_eq(log_lines(&redo, (1 << 20) + 4096 * (uint64_t)way, data + 4096 * way, 1, sums_page(data + 4096 * way), 0), 0);
        cr_assert(!log_commit(&redo, NULL) && !log_apply(&redo));
        cr_assert_eq(disk_read(store.image_fd, sums, sizeof sums, sums_at(1 << 20)), (long)sizeof sums);
        for (int page = 0; page < 600; page++) {
            uint32_t sum;
            memcpy(&sum, sums + page * 4, 4);
            bool punched = page >= 300 && page < 303 + way;
            cr_assert_eq(sum, punched ? 0 : sums_page(data + page * 4096), "page %d, way %d", page, way);
        }
    }
}

/* A disk that is full for a while: said once, waited for, said again. */
struct fault {
    enum disk_op op;
    bool image_only;
    int error, after, times;
    unsigned pauses;
};
static long inject(void *context, const struct disk_event *e)
{
    struct fault *f = context;
    if (e->op == DISK_PAUSE) {
        f->pauses++;
        return 1;
    }
    if (e->op != f->op || (f->image_only && e->fd != store.image_fd) || f->after-- > 0)
        return 0;
    if (f->times-- <= 0)
        return 0;
    return f->error ? f->error : 512; /* a part is written */
}

static void full_disk(struct fault fault)
{
    listen_to_messages();
    int times = fault.times;
    disk_set_hook(inject, &fault);
    for (int i = 0; i < 40; i++)
        commit_and_apply(6, 40);
    disk_set_hook(NULL, NULL);
    const char *said = messages();
    cr_assert_eq(fault.pauses, (unsigned)times);
    cr_assert_eq(count_of(said, "is full; waiting for room"), 1, "%s", said);
    cr_assert_eq(count_of(said, "has room again"), 1, "%s", said);
    cr_assert_geq(reopen(SYNC_POWER), 0);
    cr_assert(image_is(model));
}

Test(log, full_disk_at_commit) { full_disk((struct fault){DISK_WRITE_DURABLE, false, -ENOSPC, 3, 5, 0}); }
Test(log, full_disk_in_the_midst_of_a_commit) { full_disk((struct fault){DISK_WRITE_DURABLE, false, 0, 3, 5, 0}); }
Test(log, full_disk_at_apply) { full_disk((struct fault){DISK_WRITE, true, -ENOSPC, 3, 5, 0}); }
Test(log, quota_at_apply) { full_disk((struct fault){DISK_WRITE, true, -EDQUOT, 3, 1, 0}); }
Test(log, full_disk_at_punch) { full_disk((struct fault){DISK_PUNCH, true, -ENOSPC, 1, 2, 0}); }

Test(log, full_disk_at_growth)
{
    struct fault fault = {DISK_ALLOCATE, false, -ENOSPC, 0, 4, 0};
    static uint8_t data[1 << 20];
    listen_to_messages();
    disk_set_hook(inject, &fault);
    log_begin(&redo);
    cr_assert_eq(add_pages(1 << 20, data, sizeof data), 0);
    cr_assert_eq(log_commit(&redo, NULL), 0);
    cr_assert_eq(fault.pauses, 4);
    cr_assert_eq(count_of(messages(), "is full"), 1);
}

/* Room for moments, which grow longer. */
static long dribble(void *context, const struct disk_event *e)
{
    static unsigned calls;
    unsigned *pauses = context;
    if (e->op == DISK_PAUSE) {
        ++*pauses;
        return 1;
    }
    if (e->op != DISK_WRITE && e->op != DISK_WRITE_DURABLE && e->op != DISK_ALLOCATE)
        return 0;
    calls++;
    return calls & (calls - 1) ? 0 : -ENOSPC;
}

Test(log, full_disk_with_room_for_moments)
{
    static uint8_t data[1 << 20];
    unsigned pauses = 0;
    listen_to_messages();
    disk_set_hook(dribble, &pauses);
    log_begin(&redo);
    cr_assert_eq(add_pages(1 << 20, data, sizeof data), 0);
    cr_assert(!log_commit(&redo, NULL) && !log_apply(&redo));
    disk_set_hook(NULL, NULL);
    cr_assert_geq(pauses, 3, "%u pauses", pauses);
    const char *said = messages();
    cr_assert_eq(count_of(said, "is full"), 1, "%s", said);
    cr_assert_eq(count_of(said, "has room again"), 1, "%s", said);
}

/* A disk that fails: the process ends, and the next one finds all that was committed. */
static void die_in_child(const char *line)
{
    _exit(strstr(line, "EIO") ? 70 : 71);
}

static void failing_disk(struct fault fault)
{
    static uint8_t *shared;
    shared = mmap(NULL, IMAGE_BYTES + 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    close_all();
    pid_t child = fork();
    if (!child) {
        disk_set_death(die_in_child);
        store_open(&store, directory, 0);
        recover_log(SYNC_POWER);
        disk_set_hook(inject, &fault);
        for (int i = 0; i < 300; i++) {
            log_begin(&redo);
            add_random_runs(6, 30);
            if (log_commit(&redo, NULL))
                _exit(72);
            memcpy(shared, model, sizeof model); /* from here on it must not be lost */
            log_apply(&redo);
        }
        _exit(0);
    }
    int status;
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 70, "status %x", status);
    cr_assert_eq(store_open(&store, directory, 0), STORE_EXISTS);
    cr_assert_geq(recover_log(SYNC_POWER), 0);
    cr_assert(image_is(shared));
}

Test(log, failing_commit) { failing_disk((struct fault){DISK_WRITE_DURABLE, false, -EIO, 20, 1, 0}); }
Test(log, failing_apply) { failing_disk((struct fault){DISK_WRITE, true, -EIO, 20, 1, 0}); }
Test(log, failing_sync) { failing_disk((struct fault){DISK_SYNC, true, -EIO, 1, 1, 0}); }

/* SYNC_PROCESS: killed at any moment, nothing that was committed is lost; and no flush but the first. */
Test(log, process_mode_survives_kill, .timeout = 60)
{
    uint8_t *shared = mmap(NULL, IMAGE_BYTES + 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    volatile uint64_t *done = (uint64_t *)(shared + IMAGE_BYTES);
    for (int round = 0; round < 20; round++) {
        close_all();
        *done = 0;
        pid_t child = fork();
        if (!child) {
            seed += (uint64_t)round;
            store_open(&store, directory, 0);
            recover_log(SYNC_PROCESS);
            for (;;) {
                commit_and_apply(6, 30);
                *done = redo.sequence;
            }
        }
        usleep(1000 + random_next() % 20000);
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        cr_assert_eq(store_open(&store, directory, 0), STORE_EXISTS);
        cr_assert_geq(recover_log(SYNC_PROCESS), 0, "round %d", round);
        cr_assert_geq(redo.sequence, *done, "%lu, not %lu", redo.sequence, *done);
    }
    struct watch w = {0};
    disk_set_hook(watch_writes, &w);
    for (int i = 0; i < 300; i++)
        commit_and_apply(6, 30);
    disk_set_hook(NULL, NULL);
    cr_assert_eq(w.durable, 1);
    cr_assert_gt(redo.switches, 3);
}
