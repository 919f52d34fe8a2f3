/* What the log adds to the disk's own price: a commit of 20 runs of one line each, against a bare 4 KiB
 * O_DIRECT|DSYNC write into a preallocated file, taken in turns. Medians, in microseconds, and the ratio.
 * usage: bench_log [DIRECTORY]; exit 1 when the ratio is above the budget. */
#define _GNU_SOURCE
#include "heap/disk.h"
#include "heap/log.h"
#include "heap/say.h"
#include "heap/sys.h"
#include "heap/window.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define ROUNDS 4000
#define IMAGE_BYTES (16UL << 20)
#define BARE_BYTES (16UL << 20)
#define BUDGET 1.25

static struct store store;
static struct log redo;
static uint8_t *twin;

static double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, size_t count)
{
    qsort(values, count, sizeof *values, by_value);
    return values[count / 2];
}

static int open_bare(const char *directory)
{
    char path[256];
    snprintf(path, sizeof path, "%s/bare", directory);
    int fd = open(path, O_RDWR | O_CREAT, 0600);
    if (fd < 0 || disk_write_zeros(fd, 0, BARE_BYTES) || fsync(fd))
        return -1;
    close(fd);
    fd = open(path, O_RDWR | O_DIRECT);
    return fd < 0 ? open(path, O_RDWR) : fd;
}

/* The time of log_begin() to log_commit(); *apply gets that of log_apply(). */
static double commit_once(unsigned round, double *apply)
{
    uint8_t line[64];
    memset(line, (int)round, sizeof line);
    double start = now_us();
    log_begin(&redo);
    for (unsigned i = 0; i < 20; i++)
        log_lines(&redo, (1 << 20) + (i * 37 + round % 64) * 4096UL + i * 64, line, 1, 1, 0);
    if (log_commit(&redo, NULL))
        abort();
    double end = now_us();
    log_apply(&redo);
    *apply = now_us() - end;
    return end - start;
}

static int set_up(const char *directory, enum sync sync)
{
    struct store_birth birth = {.segment_bytes = 4UL << 20}; /* so that segments are switched, too */
    struct image_writer writer;
    char path[256];
    snprintf(path, sizeof path, "%s/store%d", directory, sync);
    if (store_open(&store, path, 0) < 0 || store_format(&store, &birth) ||
        log_open(&redo, &store, sync, store.image_fd))
        return -1;
    writer = (struct image_writer){.fd = store.image_fd};
    if (log_recover(&redo, &writer) || disk_write_zeros(store.image_fd, 0, IMAGE_BYTES))
        return -1;
    twin = mmap(NULL, IMAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, store.image_fd, 0);
    log_use_twin(&redo, twin);
    return 0;
}

int main(int argc, char **argv)
{
    static double bare[ROUNDS], commits[ROUNDS], applies[ROUNDS], process[ROUNDS];
    char directory[] = "ken-bench-XXXXXX", command[64];
    void *block;
    if (argc > 1 && chdir(argv[1]))
        return 2;
    if (!mkdtemp(directory) || window_open(0) < 0 || posix_memalign(&block, 4096, 4096))
        return 2;
    memset(block, 1, 4096);
    int fd = open_bare(directory);
    if (fd < 0 || set_up(directory, SYNC_POWER))
        return 2;
    for (unsigned i = 0; i < ROUNDS; i++) {
        double start = now_us();
        if (disk_write_durable(fd, block, 4096, i * 4096UL % BARE_BYTES))
            return 2;
        bare[i] = now_us() - start;
        commits[i] = commit_once(i, &applies[i]);
    }
    double b = median(bare, ROUNDS), c = median(commits, ROUNDS), a = median(applies, ROUNDS);
    printf("bare 4 KiB durable write  %7.1f us\n", b);
    printf("commit of 20 lines        %7.1f us   ratio %.2f (budget %.2f)   %lu switches, %lu waited\n", c, c / b,
           BUDGET, redo.switches, redo.foreground_waits);
    printf("= log: commit of 20 lines | %.1f us | %.1f bare durable write | %.2f | %.2f x | %s\n", c, b, c / b, BUDGET,
           c / b > BUDGET ? "OVER" : "within");
    printf("apply of 20 lines         %7.1f us\n", a);
    log_close(&redo);
    store_close(&store);
    if (set_up(directory, SYNC_PROCESS))
        return 2;
    for (unsigned i = 0; i < ROUNDS; i++)
        process[i] = commit_once(i, &applies[i]);
    printf("the same, SYNC_PROCESS    %7.1f us\n", median(process, ROUNDS));
    log_close(&redo);
    store_close(&store);
    snprintf(command, sizeof command, "rm -rf %s", directory);
    if (system(command))
        return 2;
    return 0;
}
