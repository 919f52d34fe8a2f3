/* Recovery: every way a log may be found after a crash, and every way it may be damaged. */
#define _GNU_SOURCE
#include "tests/unit/log_fixture.h"

#define RECORDS 24

/* Thousands of recoveries: in memory where that is possible, since each flushes. */
static void begin(void)
{
    if (!access("/dev/shm", W_OK))
        make_root_in("/dev/shm");
    start_fresh(SYNC_POWER);
}

static void end(void) { close_all(); remove_root(); }
TestSuite(recover, .init = begin, .fini = end);

Test(recover, empty_log)
{
    cr_assert_eq(reopen(SYNC_POWER), 0);
    cr_assert_eq(redo.sequence, 0);
    commit_and_apply(3, 4);
    cr_assert_eq(redo.sequence, 1);
}

Test(recover, replays_what_the_image_lost)
{
    for (int i = 0; i < RECORDS; i++)
        commit_and_apply(5, 8);
    cr_assert(image_is(model));
    cr_assert_eq(ftruncate(store.image_fd, 0), 0);
    cr_assert_eq(reopen(SYNC_POWER), RECORDS);
    cr_assert(image_is(model));
}

Test(recover, committed_but_not_applied)
{
    commit_and_apply(5, 8);
    commit_random(5, 8);
    cr_assert_eq(reopen(SYNC_POWER), 2);
    cr_assert(image_is(model));
}

static long reopen_trusting(void)
{
    close_all();
    cr_assert_eq(store_open(&store, directory, 0), STORE_EXISTS);
    struct image_writer writer = {.fd = store.image_fd};
    cr_assert_eq(log_open(&redo, &store, SYNC_POWER, store.image_fd), 0);
    redo.trust_cache = !store_distrusts_cache(&store);
    return log_recover(&redo, &writer);
}

Test(recover, the_page_cache_has_all_but_the_last)
{
    for (int i = 0; i < RECORDS; i++)
        commit_and_apply(5, 8);
    commit_random(5, 8);
    if (!redo.mount)
        cr_skip_test("this kernel has no unique mount ids");
    long applied = reopen_trusting();
    cr_assert(applied >= 1 && applied <= 4, "%ld records were applied", applied);
    cr_assert(image_is(model));
}

/* Another mount, or a sync that failed: what was not synced may be gone. */
Test(recover, nothing_is_trusted_after_a_failed_sync_or_on_another_mount)
{
    for (int i = 0; i < RECORDS; i++)
        commit_and_apply(5, 8);
    cr_assert_eq(ftruncate(store.image_fd, 0), 0);
    store_distrust_cache(&store);
    cr_assert_eq(reopen_trusting(), RECORDS);
    cr_assert(image_is(model));
    cr_assert_eq(unlink(store_file(STORE_DISTRUST)), 0);

    redo.mount ^= 1; /* as if the records were written before it was mounted anew */
    commit_and_apply(5, 8);
    cr_assert_eq(ftruncate(store.image_fd, 0), 0);
    cr_assert_eq(reopen_trusting(), RECORDS + 1);
    cr_assert(image_is(model));
}

Test(recover, twice_is_once)
{
    for (int i = 0; i < RECORDS; i++)
        commit_and_apply(5, 8);
    struct snapshot before = {0}, after = {0};
    snapshot_take(&before);
    cr_assert_eq(reopen(SYNC_POWER), RECORDS);
    cr_assert_eq(reopen(SYNC_POWER), RECORDS);
    cr_assert(image_is(model));
    snapshot_take(&after);
    for (int i = 0; i < 2; i++)
        cr_assert(before.size[i] == after.size[i] && !memcmp(before.data[i], after.data[i], (size_t)before.size[i]));
}

/* The last write reached the disk only up to each of its sectors, or with any one sector missing. */
Test(recover, torn_tail, .timeout = 120)
{
    static uint8_t before[IMAGE_BYTES];
    struct snapshot old = {0}, whole = {0};
    for (int i = 0; i < 6; i++)
        commit_and_apply(5, 8);
    memcpy(before, model, sizeof model);
    uint64_t from = redo.segment[redo.active].tail, sequence = redo.sequence;
    const char *name = snapshot_files[redo.active];
    snapshot_take(&old);
    commit_random(12, 60);
    uint64_t to = redo.segment[redo.active].tail;
    cr_assert_geq(to - from, 3 * 4096);
    unsigned which = redo.active;
    snapshot_take(&whole);
    for (uint64_t cut = from; cut < to; cut += 512) {
        bool same = !memcmp(whole.data[which] + cut, old.data[which] + cut, 512);
        snapshot_put(&old);
        smash(name, from, whole.data[which] + from, cut - from);
        bool complete = !memcmp(whole.data[which] + cut, old.data[which] + cut, to - cut);
        cr_assert_geq(reopen(SYNC_POWER), 0);
        cr_assert(image_is(complete ? model : before), "cut at %lu", cut - from);
        cr_assert_eq(redo.sequence, sequence + complete);
        if (same)
            continue;
        snapshot_put(&whole);
        smash(name, cut, old.data[which] + cut, 512);
        cr_assert_geq(reopen(SYNC_POWER), 0);
        cr_assert(image_is(before), "hole at %lu", cut - from);
        cr_assert_eq(redo.sequence, sequence);
    }
}

/* A write may also end at any byte, when the process dies in SYNC_PROCESS. */
Test(recover, torn_at_any_byte, .timeout = 120)
{
    static uint8_t before[IMAGE_BYTES];
    struct snapshot old = {0}, whole = {0};
    commit_and_apply(3, 4);
    memcpy(before, model, sizeof model);
    uint64_t from = redo.segment[0].tail;
    snapshot_take(&old);
    commit_random(1, 2);
    uint64_t used = redo.used, cut;
    snapshot_take(&whole);
    for (cut = 0; cut < used; cut++) {
        snapshot_put(&old);
        smash("log.0", from, whole.data[0] + from, cut);
        bool complete = !memcmp(whole.data[0] + from + cut, old.data[0] + from + cut, 4096 - cut);
        cr_assert_eq(reopen(SYNC_PROCESS), 1 + complete, "cut at %lu", cut);
        cr_assert(image_is(complete ? model : before));
    }
}

/* After a dropped tail the next record takes its place, and what is left of the tail behind it is not
 * taken for a record. */
Test(recover, goes_on_after_a_torn_tail)
{
    for (int round = 0; round < 12; round++) {
        static uint8_t before[IMAGE_BYTES];
        commit_and_apply(3, 8);
        memcpy(before, model, sizeof model);
        uint64_t at = redo.segment[redo.active].tail;
        unsigned was = redo.active;
        commit_random(20, 8);
        if (redo.active != was)
            at = BLOCK_BYTES;
        smash(snapshot_files[redo.active], at + random_next() % 4096, "torn!", 5);
        cr_assert_geq(reopen(SYNC_POWER), 0);
        cr_assert(image_is(before), "round %d", round);
        memcpy(model, before, sizeof model);
    }
}

/* A flipped bit in any record but the last is damage; it is named, and nothing is written. */
Test(recover, flipped_bits, .timeout = 120)
{
    uint64_t at[12];
    struct snapshot whole = {0}, after = {0};
    listen_to_messages();
    for (int i = 0; i < 12; i++) {
        at[i] = redo.segment[0].tail;
        commit_and_apply(4, 6);
    }
    snapshot_take(&whole);
    for (int i = 0; i < 11; i++) {
        for (int n = 0; n < 12; n++) {
            uint64_t offset = at[i] + (n < 4 ? random_next() % 128 : random_next() % (at[i + 1] - at[i]));
            char place[40];
            snapshot_put(&whole);
            flip_bit("log.0", offset, random_next() % 8);
            cr_assert_eq(reopen(SYNC_POWER), STORE_DAMAGED, "record %d byte %lu", i, offset - at[i]);
            snprintf(place, sizeof place, "log.0, offset %lu", at[i]);
            cr_assert_eq(count_of(messages(), place), 1);
            flip_bit("log.0", offset, 0);
            flip_bit("log.0", offset, 0);
            snapshot_take(&after);
            cr_assert(!memcmp(after.data[2], whole.data[2], (size_t)whole.size[2]), "the image was written");
        }
    }
}

Test(recover, damaged_segment_head)
{
    struct snapshot whole = {0};
    commit_and_apply(3, 3);
    snapshot_take(&whole);
    for (int n = 0; n < 40; n++) {
        snapshot_put(&whole);
        uint64_t offset = n < 24 ? (uint64_t)n : random_next() % 4096;
        flip_bit("log.1", offset, random_next() % 8);
        long r = reopen(SYNC_POWER);
        cr_assert(r == STORE_DAMAGED || r == STORE_NEWER, "byte %lu: %ld", offset, r);
    }
}

Test(recover, swapped_segments)
{
    struct snapshot s = {0};
    commit_and_apply(3, 3);
    snapshot_take(&s);
    put_file("log.1", s.data[0], s.size[0]);
    cr_assert_eq(reopen(SYNC_POWER), STORE_FOREIGN);
    put_file("log.0", s.data[1], s.size[1]);
    cr_assert_eq(reopen(SYNC_POWER), STORE_FOREIGN);
}

Test(recover, missing_and_short_segments)
{
    commit_and_apply(3, 3);
    cr_assert_eq(truncate(store_file("log.1"), 8192), 0);
    cr_assert_eq(reopen(SYNC_POWER), STORE_DAMAGED);
    cr_assert_eq(unlink(store_file("log.1")), 0);
    cr_assert_eq(reopen(SYNC_POWER), STORE_INCOMPLETE);
}

Test(recover, newer_segment)
{
    listen_to_messages();
    uint32_t version = STORE_VERSION + 1;
    smash("log.0", offsetof(struct segment_head, version), &version, sizeof version);
    cr_assert_eq(reopen(SYNC_POWER), STORE_NEWER);
    cr_assert(strstr(messages(), "newer"));
}

/* Another store's segment, and this directory's own earlier run. */
Test(recover, records_of_another_run)
{
    struct snapshot old = {0};
    struct store_birth birth = {.segment_bytes = SEGMENT_BYTES};
    for (int i = 0; i < RECORDS; i++)
        commit_and_apply(5, 8);
    snapshot_take(&old);
    log_close(&redo);
    cr_assert_eq(store_format(&store, &birth), 0);
    cr_assert_eq(recover_log(SYNC_POWER), 0);
    memset(model, 0, sizeof model);
    cr_assert(image_is(model));
    for (int i = 0; i < 3; i++)
        commit_and_apply(2, 3); /* the old run's records lie behind them */
    cr_assert_eq(reopen(SYNC_POWER), 3);
    cr_assert(image_is(model));
    put_file("log.0", old.data[0], old.size[0]);
    cr_assert_eq(reopen(SYNC_POWER), STORE_FOREIGN);
}

/* The whole cycle: crashes at random places of long histories, the image thrown back to its last sync. */
static struct snapshot durable;
static long at_sync(void *context, const struct disk_event *e)
{
    (void)context;
    if (e->op == DISK_SYNC && e->fd == store.image_fd)
        snapshot_take(&durable);
    return 0;
}

Test(recover, histories_with_reuse, .timeout = 300)
{
    disk_set_hook(at_sync, NULL);
    snapshot_take(&durable);
    uint64_t switches = 0;
    for (int life = 0; life < 40; life++) {
        unsigned commits = random_next() % 300;
        for (unsigned i = 0; i < commits; i++)
            commit_and_apply(1 + random_next() % 6, 1 + random_next() % 40);
        if (random_next() % 2)
            commit_random(4, 4);
        switches += redo.switches;
        /* All that was not synced is lost, or it got there by chance. */
        unsigned kind = random_next() % 3;
        if (kind == 0)
            put_file("image", durable.data[2], durable.size[2]);
        if (kind == 1)
            for (int64_t page = 0, bytes; page < durable.size[2]; page += bytes) {
                bytes = durable.size[2] - page < 4096 ? durable.size[2] - page : 4096;
                if (random_next() % 2)
                    smash("image", (uint64_t)page, durable.data[2] + page, (size_t)bytes);
            }
        uint64_t sequence = redo.sequence;
        cr_assert_geq(reopen(SYNC_POWER), 0, "life %d", life);
        cr_assert_eq(redo.sequence, sequence, "life %d: %lu, not %lu", life, redo.sequence, sequence);
        cr_assert(image_is(model), "life %d", life);
    }
    cr_assert_gt(switches, 60);
    disk_set_hook(NULL, NULL);
}

/* A crash right after the switch: the first record of a reused segment is torn, over the records of the
 * cycle before. */
/* With `slow_sync` the end of a background sync is noticed only by the switch that needs it. */
static void commit_watched(unsigned runs, unsigned lines, bool slow_sync)
{
    const struct log_segment *s = &redo.segment[redo.active];
    log_begin(&redo);
    add_random_runs(runs, lines);
    bool hidden = slow_sync && s->tail + PAGE_UP(redo.used) + BLOCK_BYTES <= s->bytes;
    uint64_t running = redo.sync_target;
    if (hidden)
        redo.sync_target = 0;
    cr_assert_eq(log_commit(&redo, NULL), 0);
    if (hidden)
        redo.sync_target = running;
}

static unsigned tear_first_records(bool slow_sync)
{
    unsigned noted = 0;
    static uint8_t before[IMAGE_BYTES];
    struct snapshot old = {0}, whole = {0};
    unsigned seen = 0, sizes[] = {2, 30, 100};
    for (int i = 0; i < 4000 && seen < 12; i++) {
        unsigned was = redo.active;
        memcpy(before, model, sizeof model);
        uint64_t sequence = redo.sequence;
        snapshot_take(&old);
        commit_watched(10, sizes[seen % 3], slow_sync);
        if (redo.active == was || redo.switches < 3) {
            log_apply(&redo);
            continue;
        }
        seen++;
        unsigned which = redo.active;
        noted += redo.sequence - sequence > 1;
        uint64_t notes = redo.sequence - sequence - 1, to = redo.segment[which].tail;
        snapshot_take(&whole);
        for (uint64_t cut = BLOCK_BYTES; cut < to; cut += 1024) {
            snapshot_put(&whole);
            smash(snapshot_files[which], cut, old.data[which] + cut, to - cut);
            bool complete = !memcmp(whole.data[which] + cut, old.data[which] + cut, to - cut);
            cr_assert_geq(reopen(SYNC_POWER), 0, "cut at %lu", cut);
            cr_assert_eq(redo.sequence, sequence + notes + complete);
            cr_assert(image_is(complete ? model : before));
        }
        snapshot_put(&whole);
        reopen(SYNC_POWER);
    }
    cr_assert_eq(seen, 12);
    return noted;
}

Test(recover, torn_first_record_of_a_reused_segment, .timeout = 300) { tear_first_records(false); }

Test(recover, the_same_after_a_late_sync, .timeout = 300)
{
    unsigned noted = tear_first_records(true);
    cr_assert(noted > 6 || redo.ring.refused, "%u", noted);
}

/* Damage in a segment that is still needed is found; in one that is not, it does no harm. */
Test(recover, damage_after_reuse, .timeout = 300)
{
    struct snapshot whole = {0};
    unsigned refused = 0, passed = 0;
    for (int round = 0; round < 150; round++) {
        unsigned commits = 1 + random_next() % 12;
        for (unsigned i = 0; i < commits; i++)
            commit_and_apply(6, 20);
        uint64_t sequence = redo.sequence;
        snapshot_take(&whole);
        flip_bit(random_next() % 2 ? "log.0" : "log.1", 4096 + random_next() % (SEGMENT_BYTES - 4096), 3);
        long r = reopen(SYNC_POWER);
        cr_assert(r >= 0 || r == STORE_DAMAGED, "%ld", r);
        refused += r < 0;
        if (r >= 0) {
            /* Right, or the very last record was hit, which looks like a torn tail. */
            cr_assert(redo.sequence == sequence ? image_is(model) : redo.sequence + 1 == sequence);
            passed += redo.sequence == sequence;
        }
        snapshot_put(&whole);
        cr_assert_geq(reopen(SYNC_POWER), 0);
        cr_assert(image_is(model));
    }
    cr_assert_gt(refused, 20);
    cr_assert_gt(passed, 20);
}

/* The first record of the newer segment is gone, others follow: not a torn tail. */
Test(recover, a_lost_first_record_is_noticed)
{
    static uint8_t zeros[4096];
    while (redo.switches < 3)
        commit_and_apply(6, 30);
    commit_and_apply(6, 30);
    smash(snapshot_files[redo.active], 4096, zeros, 4096);
    cr_assert_eq(reopen(SYNC_POWER), STORE_DAMAGED);
}

Test(recover, read_only_and_overlay)
{
    static uint8_t before[IMAGE_BYTES];
    struct snapshot old = {0}, after = {0};
    for (int i = 0; i < 9; i++)
        commit_and_apply(5, 8);
    memcpy(before, model, sizeof model);
    commit_random(8, 8);
    cr_assert_eq(ftruncate(store.image_fd, 5 * 4096), 0);
    snapshot_take(&old);
    close_all();
    cr_assert_eq(store_open_read_only(&store, directory), STORE_EXISTS);
    cr_assert_eq(log_open(&redo, &store, SYNC_POWER, store.image_fd), 0);
    struct image_writer check = {.fd = -1};
    cr_assert_eq(log_recover(&redo, &check), 10);
    uint8_t *memory;
    uint64_t bytes;
    cr_assert_eq(log_overlay(&redo, &memory, &bytes), 10);
    cr_assert_leq(bytes, MAPPED_BYTES);
    cr_assert(!memcmp(memory, model, IMAGE_BYTES));
    for (unsigned page = 0; page < IMAGE_BYTES / 4096; page++)
        cr_assert(sums_hold(memory + page * 4096, *(uint32_t *)(memory + sums_at(page * 4096))), "page %u", page);
    cr_assert_eq(log_commit(&redo, NULL), -EINVAL);
    snapshot_take(&after);
    for (int i = 0; i < 3; i++)
        cr_assert(old.size[i] == after.size[i] && !memcmp(old.data[i], after.data[i], (size_t)old.size[i]));
}

/* SYNC_PROCESS: good while the machine stays up; another boot is refused unless a flushed record covers it. */
Test(recover, process_mode_and_reboots)
{
    close_all();
    cr_assert_eq(store_open(&store, directory, 0), STORE_EXISTS);
    cr_assert_eq(recover_log(SYNC_PROCESS), 0);
    for (int i = 0; i < 200; i++)
        commit_and_apply(5, 20);
    cr_assert_geq(reopen(SYNC_PROCESS), 0);
    cr_assert(image_is(model));
    struct image_writer writer = {.fd = store.image_fd};
    redo.boot++;
    cr_assert_eq(log_recover(&redo, &writer), STORE_REBOOTED);
    /* The same boot may go over to SYNC_POWER, and then the next may be another. */
    cr_assert_geq(reopen(SYNC_POWER), 0);
    redo.boot++;
    writer.fd = store.image_fd;
    cr_assert_geq(log_recover(&redo, &writer), 0);
    commit_and_apply(5, 20);
    cr_assert_geq(reopen(SYNC_POWER), 0);
    cr_assert(image_is(model));
}
