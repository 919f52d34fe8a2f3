/* Random writes, mappings and moves against twins of all pages. */
#define _GNU_SOURCE /* mremap */
#include "tracker_fixture.h"

TestSuite(uffd, .init = open_window, .timeout = 60);
TestSuite(softdirty, .init = open_window, .timeout = 60);
TestSuite(compare, .init = open_window, .timeout = 60);

#define PAGES 96u
static uint8_t *world;   /* anonymous | hole | file | hole | stack-like */
static uint8_t *twins;
static bool touched[PAGES], mapped[PAGES];
static int feed[2];

static void build_world(struct tracker *t)
{
    world = map(PAGES, PROT_NONE);
    twins = map(PAGES, PROT_READ | PROT_WRITE);
    uint8_t *file = map_file(24);
    cr_assert_neq(mmap(world, 40 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0),
                  MAP_FAILED);
    cr_assert_neq(mremap(file, 24 * PAGE, 24 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, world + 48 * PAGE), MAP_FAILED);
    cr_assert_neq(mmap(world + 80 * PAGE, 16 * PAGE, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_STACK | MAP_NORESERVE, -1, 0), MAP_FAILED);
    munmap(world + 40 * PAGE, 8 * PAGE);
    munmap(world + 72 * PAGE, 8 * PAGE);
    for (unsigned i = 0; i < PAGES; i++) {
        mapped[i] = i < 40 || (i >= 48 && i < 72) || i >= 80;
        if (mapped[i] && i % 3)
            memset(world + i * PAGE, (int)i, 100);
        if (mapped[i])
            memcpy(twins + i * PAGE, world + i * PAGE, PAGE);
    }
    add(t, world, 40);
    add(t, world + 48 * PAGE, 24);
    add(t, world + 80 * PAGE, 16);
    cr_assert_eq(pipe(feed), 0);
}

static void random_act(struct tracker *t)
{
    unsigned i = (unsigned)rand() % PAGES;
    if (!mapped[i])
        return;
    uint8_t *page = world + i * PAGE;
    int act = rand() % 13;
    touched[i] = touched[i] || act != 11;
    if (act < 6) {
        page[rand() % (int)PAGE] = (uint8_t)rand();
    } else if (act < 8) {
        cr_assert_eq(write(feed[1], &act, sizeof act), (long)sizeof act);
        cr_assert_eq(read(feed[0], page + 8 * (rand() % 500), sizeof act), (long)sizeof act);
    } else if (act == 8) {
        cr_assert_eq(madvise(page, PAGE, MADV_DONTNEED), 0);
        cr_assert_eq(tracker_mark(t, (uintptr_t)page, (uintptr_t)page + PAGE), 0);
    } else if (act == 9) {
        tracker_settle(t, (uintptr_t)page, (uintptr_t)page + PAGE);
        mprotect(page, PAGE, PROT_READ);
        mprotect(page, PAGE, PROT_READ | PROT_WRITE);
        *page ^= 1;
    } else if (act == 10) {
        pid_t child = fork();
        if (child == 0) {
            memset(page, 77, PAGE);
            _exit(0);
        }
        page[1] ^= 3;
        waitpid(child, NULL, 0);
    } else if (act == 12) {
        tracker_expect(t, (uintptr_t)page, (uintptr_t)page + PAGE);
        memset(page, rand(), PAGE);
    } else {
        (void)*(volatile uint8_t *)page;
    }
}

/* Differences from the twins without reading the program's pages where nothing may have happened: reading maps
 * pages, and the absent ones are half of the subject. */
static void check_round(struct tracker *t, struct tracker *reference, bool look_everywhere)
{
    scan(t);
    bool mine[PAGES], theirs[PAGES];
    for (unsigned i = 0; i < PAGES; i++)
        mine[i] = is_found(world + i * PAGE);
    if (reference)
        scan(reference);
    for (unsigned i = 0; i < PAGES; i++)
        theirs[i] = reference ? is_found(world + i * PAGE) : mine[i];
    for (unsigned i = 0; i < PAGES; i++) {
        uint8_t *page = world + i * PAGE, *twin = twins + i * PAGE;
        if (exact(t) && !t->apart.allowed)
            cr_assert_eq(mine[i], touched[i], "page %u: reported %d, touched %d", i, mine[i], touched[i]);
        if (mapped[i] && (look_everywhere || touched[i]) && memcmp(page, twin, PAGE)) {
            cr_assert(mine[i], "page %u has changed and is not reported", i);
            cr_assert(theirs[i], "page %u has changed and compare does not report it", i);
            memcpy(twin, page, PAGE);
        }
        touched[i] = false;
    }
}

static void run_random(struct tracker *t, struct tracker *reference)
{
    build_world(t);
    if (reference) {
        add(reference, world, 40);
        add(reference, world + 48 * PAGE, 24);
        add(reference, world + 80 * PAGE, 16);
    }
    srand(5);
    for (int round = 0; round < 300; round++) {
        for (int n = rand() % 12; n > 0; n--)
            random_act(t);
        bool heating = t->apart.allowed && round / 40 % 2 == 0;
        for (unsigned i = 3; heating && i < PAGES; i += 11) {
            touched[i] = true;
            if (mapped[i])
                world[i * PAGE + 7]++;
        }
        check_round(t, reference, round % 10 == 9);
    }
}

ON_EACH(random_writes_are_all_found)
{
    run_random(t, NULL);
}

ON_EACH(random_writes_are_found_by_two_trackers)
{
    run_random(t, open_or_skip(TRACKER_COMPARE));
}

Test(uffd, random_writes_are_found_where_pages_stand_apart)
{
    struct tracker *t = open_apart();
    run_random(t, NULL);
    cr_assert_gt(t->apart.hot.count, 0, "nothing got hot");
}
