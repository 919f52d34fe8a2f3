/* More than a hundred thousand losses of power: the store and its log over a simulated disk (power_disk.h).
 *
 *     test_power [SEED [CUTS]]
 *
 * A history is a store that is formatted, written to, killed, recovered and written to again, over several lives with a
 * loss of power between them. The trace of each life is cut at every operation, in several ways each; after each cut the
 * store must open and recover to the last acknowledged commit or to the one that was on its way, byte by byte; of loose
 * pages, to what that commit still needs. Then what was flushed is damaged, which must be refused or make no difference.
 */
#define _GNU_SOURCE
#include "heap/log.h"
#include "heap/say.h"
#include "heap/sums.h"
#include "heap/sys.h"
#include "heap/window.h"
#include "tests/fault/power_disk.h"
#include "tests/fault/power_fold.h"
#include "tests/fault/power_loose.h"

#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define SEGMENT_BYTES (16u * BLOCK_BYTES)
#define IMAGE_BYTES (16u * BLOCK_BYTES)
#define MODELS 256 /* sequences that a run may come to */

static char root[64], place[2][96];
static unsigned here;           /* which of them the present life uses; cuts go to the other */
static struct store store, other_store;
static struct log redo, other_log;
static uint8_t model[IMAGE_BYTES]; /* as of now */
static struct record_model {
    uint8_t image[IMAGE_BYTES];
    struct held held;
} * models, old_model; /* as of each sequence, and as of the last one of the run before */
static struct store_id old_run;
static uint64_t old_sequence;
static bool have_old;
static uint64_t last_position; /* of the last record in its segment */
static uint64_t boot = 1, random_state, first_seed;
static unsigned long cuts, wanted_cuts, exhausted, damages, refused, failures, histories, by_style[CUT_STYLES];
static const char *const style_names[CUT_STYLES] = {"drop", "keep", "prefix", "writes", "sectors", "flips", "counted"};

static uint64_t rnd(uint64_t below)
{
    return power_random(&random_state) % below;
}

static void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void fail(const char *format, ...)
{
    va_list arguments;
    if (failures++ >= 10)
        return;
    va_start(arguments, format);
    printf("FAIL history %lu: ", histories);
    vprintf(format, arguments);
    printf("\n    repeat it: %s %lu 1\n", program_invocation_name, first_seed);
    va_end(arguments);
}

/* The ring that the log submits its syncs to, without a kernel behind it: a sync ends when the test says so. With SQPOLL
 * nobody enters the kernel to submit; to wait for what never comes fails, and the log syncs in the foreground. */
static struct {
    unsigned taken, submitted, sq_flags, array[2], reaped, completed, cq_flags, mask, entries, lost;
    struct io_uring_sqe sqes[2];
    struct io_uring_cqe cqes[2];
} late;

static void make_late(struct log *log)
{
    struct io_uring *ring = &log->ring.uring;
    memset(&late, 0, sizeof late);
    late.mask = 1;
    late.entries = 2;
    *ring = (struct io_uring){.flags = IORING_SETUP_SQPOLL, .ring_fd = -1, .enter_ring_fd = -1};
    ring->sq = (struct io_uring_sq){.khead = &late.taken, .ktail = &late.submitted, .kring_mask = &late.mask,
                                    .kring_entries = &late.entries, .kflags = &late.sq_flags, .kdropped = &late.lost,
                                    .array = late.array, .sqes = late.sqes, .ring_mask = 1, .ring_entries = 2};
    ring->cq = (struct io_uring_cq){.khead = &late.reaped, .ktail = &late.completed, .kring_mask = &late.mask,
                                    .kring_entries = &late.entries, .kflags = &late.cq_flags, .koverflow = &late.lost,
                                    .cqes = late.cqes, .ring_mask = 1, .ring_entries = 2};
    log->ring.mapped = true;
}

static void end_sync(struct log *log)
{
    bool runs = log->sync_target && late.taken != late.submitted;
    late.taken = late.submitted;
    if (runs)
        late.cqes[late.completed++ & 1] = (struct io_uring_cqe){.res = 0};
}

static void close_log(struct log *log)
{
    log->ring.mapped = false;
    log_close(log);
}

static long open_log_in(struct log *log, struct store *s, uint64_t this_boot)
{
    struct image_writer writer = {.fd = s->image_fd};
    int r = log_open(log, s, SYNC_POWER, s->image_fd);
    if (r)
        return r;
    if (log == &redo)
        make_late(log);
    else
        log->ring.refused = true; /* syncs in the foreground */
    log->trust_cache = true;
    log->boot = this_boot;
    return log_recover(log, &writer);
}

static bool image_is(int fd, const struct record_model *expected)
{
    static uint8_t image[IMAGE_BYTES];
    ssize_t n = pread(fd, image, sizeof image, 0);
    memset(image + (n > 0 ? n : 0), 0, sizeof image - (size_t)(n > 0 ? n : 0));
    return !memcmp(image, expected->image, sizeof image) && held_is_there(fd, &expected->held);
}

/* Whether each page agrees with its sum. */
static bool sums_agree(int fd)
{
    static uint8_t image[IMAGE_BYTES];
    uint32_t sums[IMAGE_BYTES / BLOCK_BYTES] = {0};
    memset(image, 0, sizeof image);
    bool agree = pread(fd, image, sizeof image, 0) >= 0 && pread(fd, sums, sizeof sums, SUMS_AT) >= 0;
    for (unsigned page = 0; page < IMAGE_BYTES / BLOCK_BYTES; page++)
        agree &= sums_hold(image + page * BLOCK_BYTES, sums[page]);
    return agree && held_sums_agree(fd);
}

enum verdict { AS_IT_WAS, IS_FRESH, IS_REFUSED, IS_WRONG };

/* Opens what is left in the other directory. */
static enum verdict judge(uint64_t acknowledged, uint64_t attempted, char *why, size_t bytes)
{
    enum verdict verdict = AS_IT_WAS;
    int state = store_open(&other_store, place[!here], 0);
    if (state == STORE_FRESH) {
        store_close(&other_store);
        return IS_FRESH;
    }
    if (state < 0) {
        snprintf(why, bytes, "the store does not open: %d (%s)", state, other_store.fault_path);
        return IS_REFUSED;
    }
    long r = open_log_in(&other_log, &other_store, ++boot);
    bool is_old = have_old && !memcmp(&other_store.super.id, &old_run, sizeof old_run);
    uint64_t sequence = other_log.sequence;
    if (r < 0) {
        snprintf(why, bytes, "recovery refuses it: %ld", r);
        verdict = IS_REFUSED;
    } else if (!sums_agree(other_store.image_fd)) {
        snprintf(why, bytes, "a page of the image does not agree with its sum");
        verdict = IS_REFUSED;
    } else if (is_old && (sequence != old_sequence || attempted || !image_is(other_store.image_fd, &old_model))) {
        snprintf(why, bytes, "the run before is there, but not as it was (record %lu of %lu)", sequence, old_sequence);
        verdict = IS_WRONG;
    } else if (!is_old && (sequence < acknowledged || sequence > attempted)) {
        snprintf(why, bytes, "record %lu is the last, but %lu was acknowledged and %lu begun", sequence, acknowledged, attempted);
        verdict = IS_WRONG;
    } else if (!is_old && !image_is(other_store.image_fd, &models[sequence])) {
        snprintf(why, bytes, "the image is not that of record %lu", sequence);
        verdict = IS_WRONG;
    }
    log_close(&other_log);
    store_close(&other_store);
    return verdict;
}

static void cut(enum cut_style style, uint64_t counter)
{
    char why[256] = "it opens as fresh";
    uint64_t acknowledged = power_acknowledged(), attempted = power_attempted();
    power_cut(place[!here], style, &random_state, counter);
    enum verdict v = judge(acknowledged, attempted, why, sizeof why);
    cuts++;
    by_style[style]++;
    if (v == AS_IT_WAS || (v == IS_FRESH && !attempted))
        return;
    fail("cut %lu (%s, acknowledged %lu, begun %lu): %s", cuts, style_names[style], acknowledged, attempted, why);
}

/* Bits of what was flushed turn over. Damage to the log's last record cannot be told from a write that was torn: that one
 * is left alone. */
static bool last_record_holds(unsigned name, uint64_t at)
{
    return name == 1 + redo.active && at >= last_position && at < redo.segment[redo.active].tail;
}

static void damage(void)
{
    static const char *const names[] = {"super", "log.0", "log.1", "image"};
    char path[160], why[256];
    struct stat s;
    uint8_t byte;
    const struct log_segment *last = &redo.segment[redo.active];
    unsigned name = (unsigned)rnd(4);
    power_cut(place[!here], CUT_KEEP, &random_state, 0);
    snprintf(path, sizeof path, "%s/%s", place[!here], names[name]);
    int fd = open(path, O_RDWR);
    if (fd < 0 || fstat(fd, &s) || !s.st_size)
        return;
    uint64_t at = rnd(name < 3 ? (uint64_t)s.st_size : LOW_BYTES);
    if (name == 3 && rnd(2))
        at = HELD_AT + rnd(HELD_BYTES);
    if (name < 3 && rnd(2) && last->tail > BLOCK_BYTES) /* where it matters more */
        at = BLOCK_BYTES + rnd(last->tail - BLOCK_BYTES);
    if (last_record_holds(name, at))
        return (void)close(fd);
    if ((off_t)at >= s.st_size || pread(fd, &byte, 1, (off_t)at) != 1)
        at = 0;
    byte ^= (uint8_t)(1u << rnd(8));
    if (pwrite(fd, &byte, 1, (off_t)at) != 1)
        err(1, "%s", path);
    close(fd);
    uint64_t now = power_acknowledged();
    enum verdict v = judge(now, power_attempted(), why, sizeof why);
    damages++;
    refused += v == IS_REFUSED;
    if (v == IS_WRONG || v == IS_FRESH)
        fail("damage to %s at %lu was accepted: %s", path, at, v == IS_FRESH ? "it opens as fresh" : why);
}

/* Lines for the log and the model, page by page. */
static int add_lines(uint64_t offset, const uint8_t *data, unsigned lines, unsigned flags)
{
    int r = 0;
    for (uint64_t end = offset + lines * LINE_BYTES; !r && offset < end;) {
        uint64_t page = PAGE_DOWN(offset), stop = page + BLOCK_BYTES < end ? page + BLOCK_BYTES : end;
        memcpy(model + offset, data, stop - offset);
        r = log_lines(&redo, offset, data, (unsigned)((stop - offset) / LINE_BYTES), sums_page(model + page), flags);
        data += stop - offset;
        offset = stop;
    }
    return r;
}

/* All pages that the range touches. */
static int add_punch(uint64_t offset, uint64_t bytes)
{
    uint64_t start = PAGE_DOWN(offset), end = PAGE_UP(offset + bytes);
    memset(model + start, 0, end - start);
    return log_punch(&redo, start, end - start);
}

static void save(struct record_model *to)
{
    memcpy(to->image, model, sizeof model);
    held_save(&to->held);
}

static void commit(bool giant)
{
    static uint8_t data[IMAGE_BYTES];
    unsigned runs = giant ? 1 : 1 + (unsigned)rnd(6);
    if (!redo.sync_target || rnd(4) == 0)
        end_sync(&redo);
    held_write(&random_state);
    log_begin(&redo);
    for (unsigned i = 0; i < runs; i++) {
        unsigned lines = giant ? IMAGE_BYTES / LINE_BYTES : 1 + (unsigned)rnd(rnd(4) ? 4 : 40);
        uint64_t offset = rnd(IMAGE_BYTES / LINE_BYTES - lines + 1) * LINE_BYTES;
        bool is_punch = !giant && rnd(8) == 0;
        for (unsigned b = 0; b < lines * LINE_BYTES; b += 8) {
            uint64_t word = is_punch ? 0 : power_random(&random_state);
            memcpy(data + b, &word, 8);
        }
        if (is_punch ? add_punch(offset, lines * LINE_BYTES) : add_lines(offset, data, lines, rnd(2) ? LOG_NEW : 0))
            errx(1, "the record does not fit");
    }
    if (held_take(&redo))
        errx(1, "the loose pages do not fit");
    /* A note may come before it and take a number. */
    uint64_t from = redo.sequence;
    models[from + 1] = models[from];
    save(&models[from + 2]);
    power_attempt(from + 2);
    if (log_commit(&redo, NULL))
        errx(1, "log_commit fails");
    save(&models[redo.sequence]);
    last_position = redo.segment[redo.active].tail - ((const struct record *)redo.buffer)->bytes;
    power_attempt(redo.sequence);
    power_acknowledge(redo.sequence);
    held_committed();
    if (rnd(2)) /* the next turn begins before this one is in the image */
        held_write(&random_state);
}

/* The process is killed and starts again; the machine stays up. */
static void kill_and_resume(uint64_t this_boot)
{
    close_log(&redo);
    store_close(&store);
    if (store_open(&store, place[here], 0) != STORE_EXISTS || open_log_in(&redo, &store, this_boot) < 0 ||
        !image_is(store.image_fd, &models[redo.sequence]))
        fail("a resume in the same boot loses record %lu", redo.sequence);
    held_resume(&models[redo.sequence].held, &redo);
}

static void live(unsigned commits, uint64_t this_boot)
{
    for (unsigned n = 0; n < commits && redo.sequence + 4 < MODELS; n++) {
        commit(rnd(40) == 0);
        bool is_killed = rnd(12) == 0;
        if ((!is_killed || rnd(2)) && log_apply(&redo))
            errx(1, "log_apply fails");
        if (is_killed)
            kill_and_resume(this_boot);
        if (rnd(20) == 0)
            log_sync(&redo);
    }
}

static void format_store(void)
{
    struct store_birth birth = {.segment_bytes = SEGMENT_BYTES, .executable = "/bin/true", .command = "true"};
    if (store_open(&store, place[here], 0) < 0 || store_format(&store, &birth))
        errx(1, "store_format fails");
    memset(model, 0, sizeof model);
    memset(&models[0], 0, sizeof models[0]);
}

static void open_fresh_log(void)
{
    if (open_log_in(&redo, &store, ++boot) != 0)
        errx(1, "a fresh log does not open");
    held_resume(NULL, &redo);
}

/* Half of the histories begin where an earlier run was. */
static void begin_fresh(void)
{
    for (int i = 0; i < 2; i++)
        power_clear(place[i]);
    if ((have_old = rnd(2))) {
        format_store();
        open_fresh_log();
        live(1 + (unsigned)rnd(20), boot);
        old_run = store.super.id;
        old_sequence = redo.sequence;
        old_model = models[old_sequence];
        close_log(&redo);
        store_close(&store);
    }
    power_begin(place[here]);
    format_store();
}

/* Which record the store that a cut has left comes to; -1: none. */
static int64_t last_record(void)
{
    struct image_writer nowhere = {.fd = -1};
    int64_t sequence = -1;
    bool there = store_open(&store, place[here], 0) == STORE_EXISTS;
    if (there && (!have_old || memcmp(&store.super.id, &old_run, sizeof old_run) != 0) &&
        !log_open(&redo, &store, SYNC_POWER, store.image_fd)) {
        redo.boot = boot + 1;
        if (log_recover(&redo, &nowhere) >= 0)
            sequence = (int64_t)redo.sequence;
        close_log(&redo);
    }
    store_close(&store);
    return sequence;
}

/* After a loss of power. False when there is nothing to go on with. */
static bool live_again(uint64_t this_boot)
{
    here = !here;
    int64_t sequence = last_record();
    if (sequence < 0)
        return false;
    power_begin(place[here]);
    power_attempt((uint64_t)sequence);
    power_acknowledge((uint64_t)sequence);
    if (store_open(&store, place[here], 0) != STORE_EXISTS || open_log_in(&redo, &store, this_boot) < 0 ||
        redo.sequence != (uint64_t)sequence)
        errx(1, "the next life does not begin");
    memcpy(model, models[sequence].image, IMAGE_BYTES);
    held_resume(&models[sequence].held, &redo);
    return true;
}

/* All cuts of one life: at each operation one of each style, and all states where they are few. */
static void cut_everywhere(bool all_states)
{
    power_end();
    power_rewind();
    do {
        uint64_t states = power_states();
        if (all_states && states <= 2048) {
            for (uint64_t n = 0; n < states; n++)
                cut(CUT_COUNTED, n);
            exhausted++;
            continue;
        }
        cut(CUT_DROP, 0);
        for (enum cut_style style = CUT_KEEP; style <= CUT_FLIPS; style++)
            if (rnd(3) == 0)
                cut(style, 0);
    } while (power_step());
    for (int n = 0; n < 12; n++)
        damage();
}

static void history(bool brief)
{
    begin_fresh();
    open_fresh_log();
    for (unsigned life = 0, lives = brief ? 1 : 1 + (unsigned)rnd(3); life < lives; life++) {
        if (life && !live_again(++boot))
            break;
        live(brief ? 3 : 5 + (unsigned)rnd(45), boot);
        close_log(&redo);
        store_close(&store);
        cut_everywhere(brief);
        power_rewind();
        for (size_t n = rnd(power_length()); n--;)
            power_step();
        power_cut(place[!here], (enum cut_style)rnd(CUT_FLIPS + 1), &random_state, 0);
    }
}

static void make_places(void)
{
    const char *base = access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm";
    snprintf(root, sizeof root, "%s/ken-power-XXXXXX", base);
    if (!mkdtemp(root))
        err(1, "%s", root);
    for (int i = 0; i < 2; i++) {
        snprintf(place[i], sizeof place[i], "%s/%d", root, i);
        if (mkdir(place[i], 0700))
            err(1, "%s", place[i]);
    }
    if (window_open(0) <= 0 || !(models = calloc(MODELS, sizeof *models)))
        errx(1, "no memory");
    power_watch(&redo.sync_target, &redo.synced);
    say_to(open("/dev/null", O_WRONLY));
}

int main(int argc, char **argv)
{
    struct timespec start, end;
    clock_gettime(CLOCK_MONOTONIC, &start);
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 0) : (uint64_t)start.tv_nsec * 2654435761u >> 8;
    if (argc > 2)
        wanted_cuts = strtoul(argv[2], NULL, 0);
    if (!wanted_cuts)
        wanted_cuts = getenv("KEN_LONG") ? 1000000 : 120000;
    make_places();
    for (histories = 0; cuts < wanted_cuts && failures < 10; histories++) {
        first_seed = random_state = seed + histories;
        here = 0;
        history(first_seed % 8 == 0);
    }
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", root);
    if (system(command))
        warn("%s", command);
    clock_gettime(CLOCK_MONOTONIC, &end);
    printf("NOTE %lu power cuts in %lu histories, seeds %lu to %lu; %lu places with all their states;", cuts, histories, seed,
           seed + histories - 1, exhausted);
    for (int i = 0; i < CUT_STYLES; i++)
        printf(" %s %lu", style_names[i], by_style[i]);
    printf("; %lu damages, %lu refused; %.1f s\n", damages, refused,
           (double)(end.tv_sec - start.tv_sec) + (double)(end.tv_nsec - start.tv_nsec) / 1e9);
    printf("%lu passed, %lu failed, 0 skipped\n", cuts + damages - failures, failures);
    return failures > 0;
}
