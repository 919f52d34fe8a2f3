/* What the disk asks for one durable write: 4 KiB, O_DIRECT, RWF_DSYNC, into a preallocated file that was written before.
 *
 *     durable_write FILE WRITES     prints microseconds: median, 90 % and 99 % quantile
 *
 * The file is made when it is not there. Exit status 77: the file system has no O_DIRECT.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK = 4096, BLOCKS = 4096 };

static double now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void fill(int fd, char *block)
{
    struct stat s;
    if (fstat(fd, &s) == 0 && s.st_size == (off_t)BLOCK * BLOCKS)
        return;
    for (long i = 0; i < BLOCKS; i++)
        if (pwrite(fd, block, BLOCK, i * BLOCK) != BLOCK)
            err(1, "pwrite");
    fsync(fd);
}

int main(int argc, char **argv)
{
    if (argc != 3)
        errx(2, "usage: durable_write FILE WRITES");
    long writes = atol(argv[2]);
    double *took = calloc((size_t)writes + 1, sizeof *took);
    char *block = mmap(NULL, BLOCK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int fd = open(argv[1], O_RDWR | O_CREAT | O_DIRECT, 0600);
    if (fd < 0 && errno == EINVAL)
        return fprintf(stderr, "no O_DIRECT on this file system\n"), 77;
    if (fd < 0)
        err(1, "%s", argv[1]);
    fill(fd, block);
    for (long i = 0; i < writes; i++) {
        struct iovec v = {block, BLOCK};
        memcpy(block, &i, sizeof i);
        double start = now_us();
        if (pwritev2(fd, &v, 1, i % BLOCKS * BLOCK, RWF_DSYNC) != BLOCK)
            err(1, "pwritev2");
        took[i] = now_us() - start;
    }
    qsort(took, (size_t)writes, sizeof *took, ascending);
    printf("%.2f %.2f %.2f\n", took[writes / 2], took[writes * 9 / 10], took[writes * 99 / 100]);
    return 0;
}
