/* heap/verify, heap/sums: pages of an image that rot are found when they are used, and never before something was made of
 * them. */
#define _GNU_SOURCE
#include "tests/unit/log_fixture.h"

#include "heap/diff.h"
#include "heap/image.h"

#define PAGES 1536u /* of three chunks */

static struct image image;
static struct pagemap pagemap;
static uint8_t *memory; /* the program's: PAGES of them */

/* Commits what differs from the twin in one page, as commit.c does. */
static void take(unsigned page)
{
    uintptr_t at = (uintptr_t)memory + page * 4096UL;
    uint64_t offset = image_place(&image, at);
    bool present = image_present(&image, offset);
    const void *before = present ? image.twin + offset : NULL;
    image_set_present(&image, offset);
    cr_assert_eq(image_log_lines(&image, &redo, (void *)at, before, offset, diff_page((void *)at, before), present ? 0 : LOG_NEW), 0);
}

static void commit_all(void)
{
    cr_assert_eq(image_log_meta(&image, &redo), 0);
    cr_assert_eq(log_commit(&redo, NULL), 0);
    cr_assert_eq(log_apply(&redo), 0);
}

/* A program of PAGES pages, every third of them there, is committed and then mapped from its image. */
static void begin(void)
{
    start_fresh(SYNC_POWER);
    memory = mmap(NULL, PAGES * 4096UL + CHUNK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memory = (uint8_t *)(((uintptr_t)memory + CHUNK_BYTES - 1) & ~(CHUNK_BYTES - 1));
    cr_assert_eq(image_open(&image, dup(store.image_fd), false), 0);
    log_use_twin(&redo, image.twin);
    log_begin(&redo);
    for (unsigned page = 0; page < PAGES; page += 3) {
        memset(memory + page * 4096, 1 + (int)(page % 100), 4096);
        take(page);
    }
    image.meta->areas = 200; /* so that there are several pages of them */
    image.layout_changed = true;
    for (unsigned i = 0; i < 200; i++)
        image.areas[i] = (struct area){.start = i, .end = i + 1};
    commit_all();
    for (int round = 0; round < 3; round++) { /* in part by memcpy, and with other lines untouched */
        log_begin(&redo);
        memory[3 * 4096 + 70 * (unsigned)round]++;
        take(3);
        commit_all();
    }
}

static void resume(void)
{
    uint64_t offset;
    cr_assert_eq(image_open(&image, dup(store.image_fd), true), 0);
    cr_assert_eq(verify_open(&image, directory), 0);
    uintptr_t at = (uintptr_t)memory, end = at + PAGES * 4096UL;
    cr_assert_eq(image_run(&image, at, end, &offset), end);
    cr_assert_eq(mmap(memory, end - at, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, image.fd, (off_t)offset), memory);
    cr_assert_eq(madvise(memory, end - at, MADV_NOHUGEPAGE), 0);
    cr_assert_eq(verify_later(&image, at, end), 0);
    cr_assert_eq(pagemap_open(&pagemap), 0);
}

static void end(void)
{
    close_all();
    remove_root();
}
TestSuite(verify, .init = begin, .fini = end);

static uint64_t offset_of(unsigned page)
{
    return image_find(&image, (uintptr_t)memory + page * 4096UL);
}

/* True if `use` ends the process with a line about that page. */
static bool dies(void (*use)(unsigned), unsigned page)
{
    char place[80];
    int status;
    listen_to_messages();
    pid_t child = fork();
    if (!child) {
        cr_assert_eq(pagemap_open(&pagemap), 0); /* its own */
        use(page);
        _exit(0);
    }
    cr_assert_eq(waitpid(child, &status, 0), child);
    const char *said = messages();
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return false;
    int right = strstr(said, "cannot be read") ? 75 : 70; /* another try may read it */
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == right, "status %x", status);
    snprintf(place, sizeof place, "offset %lu, which is the program's page at 0x%lx", offset_of(page),
             (uintptr_t)memory + page * 4096UL);
    cr_assert(strstr(said, place) && strstr(said, directory), "%s", said);
    return true;
}

/* As on a kernel without PAGEMAP_SCAN. */
static void read_it_slowly(unsigned page)
{
    pagemap.scans = false;
    *(volatile uint8_t *)(memory + page * 4096UL);
    cr_assert_eq(verify_touched(&image, &pagemap), 0);
}

static void read_it(unsigned page)
{
    *(volatile uint8_t *)(memory + page * 4096UL);
    cr_assert_eq(verify_touched(&image, &pagemap), 0);
}

static void write_it(unsigned page)
{
    memory[page * 4096UL] = 1;
    verify_at(&image, offset_of(page));
}

static void drop_it(unsigned page)
{
    image_drop(&image, (uintptr_t)memory + page * 4096UL, (uintptr_t)memory + (page + 1) * 4096UL);
}

static void go_on(unsigned page)
{
    (void)page;
    for (int i = 0; i < 1000; i++)
        verify_some(&image);
}

static void all(unsigned page)
{
    (void)page;
    verify_all(&image);
}

Test(verify, a_whole_image_passes)
{
    resume();
    cr_assert_eq(image.unverified.count, PAGES / 3);
    for (unsigned page = 0; page < PAGES; page += 200)
        read_it(page);
    cr_assert_lt(image.unverified.count, PAGES / 3);
    cr_assert_gt(image.unverified.count, 0);
    verify_range(&image, (uintptr_t)memory + 5 * 4096, (uintptr_t)memory + 301 * 4096);
    drop_it(600);
    go_on(0);
    cr_assert_eq(image.unverified.count, 0);
    cr_assert_eq(image.unverified.spans.count, 0);
    read_it(9);
    verify_all(&image);
}

/* Any bit of a page or of its sum. */
Test(verify, a_flipped_bit_is_found_by_whatever_uses_the_page, .timeout = 60)
{
    resume();
    for (int round = 0; round < 12; round++) {
        unsigned page = (unsigned)random_next() % (PAGES / 3) * 3, bit = (unsigned)random_next() % 8;
        uint64_t at = round % 4 ? offset_of(page) + random_next() % 4096 : sums_at(offset_of(page)) + random_next() % 4;
        flip_bit("image", at, bit);
        cr_assert(dies(read_it, page), "reading page %u, byte %lu", page, at);
        cr_assert(dies(read_it_slowly, page));
        cr_assert(dies(write_it, page));
        cr_assert(dies(drop_it, page));
        cr_assert(dies(all, page));
        cr_assert_not(dies(read_it, (page + PAGES / 2) % PAGES / 3 * 3), "another page is good");
        flip_bit("image", at, bit);
        cr_assert_not(dies(read_it, page));
    }
}

/* A page that the process never comes to is told about, and only then ends it. */
Test(verify, the_slices_tell_and_go_on)
{
    resume();
    flip_bit("image", offset_of(900) + 5, 1);
    flip_bit("image", offset_of(1200) + 5, 1);
    listen_to_messages();
    go_on(0);
    cr_assert_eq(count_of(messages(), "is damaged"), 1);
    cr_assert_eq(image.unverified.count, 2);
    read_it(0);
    cr_assert(dies(read_it, 900));
    cr_assert(dies(read_it, 1200));
}

/* A page of zeros has lost what was in it, and a table that lost its contents is as bad. */
Test(verify, zeros_are_no_excuse)
{
    static uint8_t zeros[4096];
    resume();
    smash("image", offset_of(30), zeros, sizeof zeros);
    cr_assert(dies(read_it, 30));
    smash("image", sums_at(offset_of(60)), zeros, 4);
    cr_assert(dies(read_it, 60));
}

/* A disk that cannot read one page: the others of the same stretch are good. */
static uint64_t bad_at;
static long bad_sector(void *context, const struct disk_event *e)
{
    (void)context;
    return e->op == DISK_READ && e->fd == image.fd && e->offset <= bad_at && bad_at < e->offset + e->bytes ? -EIO : 0;
}

Test(verify, a_page_that_cannot_be_read)
{
    resume();
    bad_at = offset_of(300) + 512;
    disk_set_hook(bad_sector, NULL);
    listen_to_messages();
    go_on(0);
    const char *said = messages();
    cr_assert_eq(count_of(said, "EIO"), 1);
    cr_assert_eq(count_of(said, "cannot be read"), 1);
    cr_assert_eq(image.unverified.count, 1);
    cr_assert(dies(write_it, 300));
    disk_set_hook(NULL, NULL);
    write_it(300);
    cr_assert_eq(image.unverified.count, 0);
}

/* What is committed after a resume is verified by the next one. */
Test(verify, goes_on_over_resumes)
{
    for (int life = 0; life < 6; life++) {
        resume();
        log_use_twin(&redo, image.twin);
        log_begin(&redo);
        for (unsigned page = (unsigned)life; page < PAGES; page += 31) {
            if (offset_of(page) && image_present(&image, offset_of(page)))
                write_it(page);
            memory[page * 4096 + (unsigned)life * 64] ^= 0x5a;
            take(page);
        }
        image_drop(&image, (uintptr_t)memory + 800 * 4096, (uintptr_t)memory + 820 * 4096);
        cr_assert_eq(image_log_punches(&image, &redo), 0);
        commit_all();
        verify_all(&image);
        close(pagemap.fd);
    }
    cr_assert_eq(image_examine_file(image.fd), 0);
    resume();
    verify_all(&image);
    cr_assert_eq(image.unverified.count, 0);
}

/* Every page of the metadata that is in use. */
Test(verify, metadata_are_verified_at_once)
{
    const uint64_t places[] = {sizeof(struct meta) + 100, 40, CHUNK_AT + 24, AREA_AT + 150 * sizeof(struct area),
                               AREA_AT + 8100, SUMS_AT, sums_at(CHUNK_AT) + 3, sums_at(AREA_AT + 4096)};
    cr_assert_eq(image_examine_file(image.fd), 0);
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        flip_bit("image", places[i], 2);
        cr_assert_eq(image_examine_file(image.fd), -EBADMSG, "place %zu", i);
        flip_bit("image", places[i], 2);
        cr_assert_eq(image_examine_file(image.fd), 0);
    }
}

/* Where the sums lie: each page has one of its own, in a table, and in front of it or in the metadata. */
Test(verify, each_page_has_its_place)
{
    const uint32_t slots[] = {0, 1, GROUP_SLOTS - 1, GROUP_SLOTS, GROUP_SLOTS + 7, CHUNK_MAX - 1};
    for (size_t i = 0; i < sizeof slots / sizeof *slots; i++)
        for (unsigned page = 0; page < CHUNK_PAGES; page++) {
            unsigned found;
            uint64_t offset = layout_slot(slots[i]) + page * 4096UL;
            cr_assert_eq(image_slot(offset, &found), slots[i]);
            cr_assert_eq(found, page);
            cr_assert(sums_cover(offset, 4096));
            uint64_t at = sums_at(offset), group = layout_slot(slots[i] / GROUP_SLOTS * GROUP_SLOTS);
            cr_assert_eq(at, group - GROUP_SUM_BYTES + (offset - group) / 1024);
            cr_assert_not(sums_cover(at, 1), "no lines may lie in a table");
        }
    cr_assert(sums_cover(0, SUMS_AT) && sums_cover(CHUNK_AT, META_BYTES - CHUNK_AT));
    cr_assert_not(sums_cover(SUMS_AT - 64, 128));
    cr_assert_not(sums_cover(META_BYTES - 64, 128));
    cr_assert_not(sums_cover(layout_slot(GROUP_SLOTS - 1), 2 * CHUNK_BYTES));
    cr_assert_eq(sums_at(4096 * 5), SUMS_AT + 20);
}
