/* What a commit costs before its durable write (find, compare, copy), and how large its record is: 20 dirty pages of
 * one changed line each.
 *
 *     bench_commit DIRECTORY MEGABYTES [MAPPINGS]
 *
 * Prints medians: microseconds; bytes of the record; microseconds that comparing and copying the same 20 pages takes
 * when it is known which they are (the reference). DIRECTORY must not exist.
 */
#include "heap/commit.h"
#include "heap/diff.h"
#include "heap/sys.h"
#include "heap/window.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define TURNS 400
#define DIRTY 20

static double captured_at;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static void captured(void)
{
    captured_at = now();
}

static void check(long r, const char *what)
{
    if (r < 0) {
        fprintf(stderr, "bench_commit: %s failed: %ld\n", what, r);
        exit(1);
    }
}

static struct session *open_session(const char *directory)
{
    struct store store = {0};
    struct store_birth birth = {.executable = "bench", .command = "bench"};
    check(store_open(&store, directory, 0), "store_open");
    check(window_open(0), "window_open");
    birth.window_base = window_base();
    check(store_format(&store, &birth), "store_format");
    struct session *s = window_alloc(sizeof *s);
    s->store = store;
    check(tracker_open(&s->tracker, TRACKER_BEST), "tracker_open");
    s->maps_fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    s->memory_fd = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
    check(areas_open(&s->areas), "areas_open");
    check(log_open(&s->log, &s->store, SYNC_PROCESS, s->store.image_fd), "log_open");
    check(log_recover(&s->log, &(struct image_writer){.fd = s->store.image_fd}), "log_recover");
    check(image_open(&s->image, s->store.image_fd, false), "image_open");
    log_use_twin(&s->log, s->image.twin);
    return s;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* A heap of `mappings` equal pieces, apart from each other. */
static size_t mappings, pages_each;
static char *piece[4096];

static void make_heap(size_t bytes)
{
    pages_each = bytes / PAGE_BYTES / mappings;
    for (size_t m = 0; m < mappings; m++) {
        char *room = mmap(NULL, (pages_each + 1) * PAGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (room == MAP_FAILED || mprotect(room, pages_each * PAGE_BYTES, PROT_READ | PROT_WRITE))
            exit(1);
        piece[m] = room;
        memset(room, 1, pages_each * PAGE_BYTES);
    }
}

static char *dirty_page(int turn, size_t k)
{
    size_t page = ((size_t)turn * 7919 + k * 104729) % (pages_each * mappings);
    return piece[page % mappings] + page / mappings * PAGE_BYTES;
}

/* The part that no design avoids: each page against a twin, the changed line copied, the twin brought up to date. */
static double least_work(int turn)
{
    static char twin[DIRTY][PAGE_BYTES], record[DIRTY][64];
    uint64_t all = 0;
    for (size_t k = 0; k < DIRTY; k++) {
        memcpy(twin[k], dirty_page(turn, k), PAGE_BYTES);
        twin[k][128]++;
    }
    double start = now();
    for (size_t k = 0; k < DIRTY; k++) {
        uint64_t changed = diff_page(dirty_page(turn, k), twin[k]);
        memcpy(record[k], dirty_page(turn, k) + 64 * __builtin_ctzll(changed), 64);
        all |= changed;
    }
    double took = now() - start;
    return all == 4 ? took : 0;
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    mappings = argc > 3 ? strtoul(argv[3], NULL, 10) : 1;
    make_heap(strtoul(argv[2], NULL, 10) << 20);
    struct session *s = session = open_session(argv[1]);
    static double took[TURNS], least[TURNS];
    size_t record = 0;
    for (int turn = 0; turn < TURNS; turn++) {
        for (size_t k = 0; k < DIRTY; k++)
            dirty_page(turn, k)[128]++;
        double start = now();
        if (commit(s, RUN_RUNNING, captured) != COMMIT_DONE)
            return 1;
        took[turn] = captured_at - start;
        record = log_pending(&s->log);
        commit_apply(s);
        least[turn] = least_work(turn);
    }
    qsort(took, TURNS, sizeof *took, ascending);
    qsort(least, TURNS, sizeof *least, ascending);
    printf("%.2f %zu %.2f\n", took[TURNS / 2], record, least[TURNS / 2]);
    return 0;
}
