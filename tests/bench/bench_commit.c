/* What a commit costs before its durable write (find, compare, copy), and how large its record is: 20 dirty pages of
 * one changed line each, in a small and in a large heap. Prints microseconds (medians) and bytes.
 *
 *     bench_commit DIRECTORY [MEGABYTES ...]
 */
#include "heap/commit.h"
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

int main(int argc, char **argv)
{
    if (argc < 3)
        return 2;
    size_t bytes = strtoul(argv[2], NULL, 10) << 20, pages = bytes / PAGE_BYTES;
    char *heap = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(heap, 1, bytes);
    struct session *s = session = open_session(argv[1]);
    static double took[TURNS];
    size_t record = 0;
    for (int turn = 0; turn < TURNS; turn++) {
        for (size_t k = 0; k < DIRTY; k++)
            heap[(((size_t)turn * 7919 + k * 104729) % pages) * PAGE_BYTES + 128]++;
        double start = now();
        if (commit(s, RUN_RUNNING, captured) != COMMIT_DONE)
            return 1;
        took[turn] = captured_at - start;
        record = log_pending(&s->log);
        commit_apply(s);
    }
    qsort(took, TURNS, sizeof *took, ascending);
    printf("%s MB: %.1f us before the write, record %zu bytes\n", argv[2], took[TURNS / 2], record);
    return 0;
}
