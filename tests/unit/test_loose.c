/* heap/loose: a process that writes loose pages, gives some up, and dies in the midst of it, again and again. What it held at its
 * last commit is there afterwards, whether the page cache survived or only what was synced. */
#include "tests/unit/log_fixture.h"

#include "heap/image.h"
#include "heap/loose.h"

#define BLOCKS 48u
#define BLOCK_PAGES 4u
#define BYTES (BLOCK_PAGES * 4096u)
#define PAGES (BLOCKS * BLOCK_PAGES)

enum { FREE, LEAVING, HELD };

struct state {
    uint8_t is[BLOCKS];
    uint64_t content[BLOCKS]; /* what it is made of */
    uint64_t number;          /* in an ordinary page */
};

static struct image image;
static struct loose loose;
static uint8_t *memory; /* the blocks, and an ordinary page behind them */
static struct state now, committed;

/* The image as it is certain to be on the disk: our pages of it, and their sums. */
static struct disk {
    uint8_t pages[PAGES + 1][4096];
    uint32_t sums[PAGES + 1];
} durable, syncing;
static uint64_t target;

static uint64_t offset_of(unsigned page)
{
    return image_find(&image, (uintptr_t)memory + page * 4096UL);
}

static void look(struct disk *d)
{
    memset(d, 0, sizeof *d);
    for (unsigned p = 0; p <= PAGES; p++)
        if (offset_of(p)) {
            disk_read(store.image_fd, d->pages[p], 4096, offset_of(p));
            disk_read(store.image_fd, &d->sums[p], 4, sums_at(offset_of(p)));
        }
}

/* After each step of the log: a sync makes durable what the image was when it began. */
static void follow_sync(void)
{
    static uint64_t synced;
    if (redo.synced > synced && target && redo.synced == target)
        durable = syncing;
    else if (redo.synced > synced)
        look(&durable); /* one that began and ended within the step, maybe behind the other one */
    if (redo.synced >= target)
        target = 0;
    if (redo.sync_target && redo.sync_target != target) {
        look(&syncing);
        target = redo.sync_target;
    }
    synced = redo.synced;
}

static void fill(uint8_t *at, uint64_t content)
{
    for (unsigned i = 0; i < BYTES; i += 8) {
        uint64_t word = (content + i) * 0x9e3779b97f4a7c15UL;
        memcpy(at + i, &word, 8);
    }
}

static void write_some(void)
{
    for (unsigned n = random_next() % 12; n; n--) {
        unsigned k = random_next() % BLOCKS;
        if (now.is[k] == HELD)
            now.is[k] = LEAVING;
        if (now.is[k] != FREE)
            continue;
        uintptr_t at = (uintptr_t)memory + k * BYTES;
        cr_assert(loose_write(&loose, at, at + BYTES));
        now.is[k] = HELD;
        now.content[k] = random_next();
        fill((uint8_t *)at, now.content[k]);
    }
}

static void take_ordinary(void)
{
    uintptr_t at = (uintptr_t)memory + PAGES * 4096UL;
    uint64_t offset = image_place(&image, at);
    memcpy((void *)at, &now.number, sizeof now.number);
    unsigned flags = image_present(&image, offset) ? 0 : LOG_NEW;
    image_set_present(&image, offset);
    cr_assert_eq(image_log_lines(&image, &redo, (void *)at, flags ? NULL : image.twin + offset, offset, 1, flags), 0);
}

static void capture(void)
{
    now.number++;
    log_begin(&redo);
    take_ordinary();
    cr_assert_eq(loose_take(&loose, &redo), 0);
    cr_assert_eq(image_log_meta(&image, &redo), 0);
}

static void let_go(void)
{
    for (unsigned k = 0; k < BLOCKS; k++)
        if (now.is[k] == LEAVING) {
            now.is[k] = FREE;
            loose_give_up(&loose, (uintptr_t)memory + k * BYTES, (uintptr_t)memory + (k + 1) * BYTES);
        }
}

static void open_image(bool existing)
{
    cr_assert_eq(image_open(&image, dup(store.image_fd), existing), 0);
    log_use_twin(&redo, image.twin);
    loose_inherit(&loose);
    loose.image = &image;
    redo.loose = &loose;
}

static void put_durable(void)
{
    for (unsigned p = 0; p <= PAGES; p++)
        if (offset_of(p)) {
            cr_assert_eq(disk_write(store.image_fd, durable.pages[p], 4096, offset_of(p)), 0);
            cr_assert_eq(disk_write(store.image_fd, &durable.sums[p], 4, sums_at(offset_of(p))), 0);
        }
}

static void check_image(void)
{
    static struct disk d;
    static uint8_t right[BYTES];
    look(&d);
    for (unsigned k = 0; k < BLOCKS; k++) {
        fill(right, now.content[k]);
        for (unsigned p = 0; p < BLOCK_PAGES; p++)
            cr_assert(sums_hold(d.pages[k * BLOCK_PAGES + p], d.sums[k * BLOCK_PAGES + p]), "block %u", k);
        cr_assert(now.is[k] == FREE || !memcmp(d.pages[k * BLOCK_PAGES], right, BYTES), "block %u", k);
    }
    cr_assert_eq(memcmp(d.pages[PAGES], &now.number, sizeof now.number), 0);
    cr_assert(sums_hold(d.pages[PAGES], d.sums[PAGES]));
}

static void die_and_resume(bool machine_too)
{
    if (machine_too) {
        while (redo.sync_target) /* what was on its way may or may not have arrived: here it has not */
            redo.sync_target = 0;
        put_durable();
    }
    close(image.fd);
    close_all();
    cr_assert_eq(store_open(&store, directory, 0), STORE_EXISTS);
    struct image_writer writer = {.fd = store.image_fd};
    cr_assert_eq(log_open(&redo, &store, SYNC_POWER, store.image_fd), 0);
    redo.trust_cache = !machine_too;
    cr_assert_geq(log_recover(&redo, &writer), 0);
    open_image(true);
    now = committed;
    check_image();
    for (unsigned k = 0; k < BLOCKS; k++)
        if (now.is[k] != FREE)
            fill(memory + k * BYTES, now.content[k]);
    let_go();
    committed = now;
    target = 0;
    if (machine_too)
        look(&durable);
    if (redo.synced != redo.sequence)
        return;
    look(&durable);
}

static void begin(void)
{
    start_fresh(SYNC_POWER);
    void *at = mmap(NULL, PAGES * 4096UL + CHUNK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memory = (uint8_t *)at;
    open_image(false);
}

static void end(void)
{
    remove_root();
}

TestSuite(loose, .init = begin, .fini = end);

static void live_and_die(unsigned turns, bool machine_too)
{
    for (unsigned turn = 0; turn < turns; turn++) {
        write_some();
        bool dies = random_next() % 16 == 0;
        unsigned when = dies ? random_next() % 3 : 3;
        if (when == 0) { /* before the commit */
            die_and_resume(machine_too);
            continue;
        }
        capture();
        cr_assert_eq(log_commit(&redo, NULL), 0);
        committed = now;
        follow_sync();
        if (when == 1) {
            die_and_resume(machine_too);
            continue;
        }
        let_go(); /* as peers_committed() does, before the image is brought up to it */
        if (random_next() % 2)
            write_some(); /* of the next turn */
        cr_assert_eq(log_apply(&redo), 0);
        follow_sync();
        if (when == 2)
            die_and_resume(machine_too);
    }
}

Test(loose, a_killed_process_has_what_it_held)
{
    live_and_die(2500, false);
}

Test(loose, so_it_has_when_the_machine_dies)
{
    live_and_die(2500, true);
}

Test(loose, what_was_given_up_never_comes_into_the_image)
{
    static struct disk d;
    uintptr_t at = (uintptr_t)memory;
    for (int round = 0; round < 3; round++) {
        cr_assert(loose_write(&loose, at, at + BYTES));
        fill(memory, (uint64_t)round);
        capture();
        cr_assert_eq(log_commit(&redo, NULL), 0);
        cr_assert_eq(log_apply(&redo), 0);
        if (round == 1)
            loose_give_up(&loose, at, at + BYTES);
        log_sync(&redo);
        look(&d);
        cr_assert_eq(!memcmp(d.pages, memory, BYTES), round != 1, "round %d", round);
        cr_assert(!redo.owed && !redo.owed_next);
    }
}
