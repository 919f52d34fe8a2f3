/* What a turn dirties: pages and 64-byte lines whose contents changed, over all writable private
 * memory but the stack and this program's own copies.
 *
 *     bench_dirty [LIVE [PAIRS]]    prints medians of 201 turns: pages, lines
 *
 * A turn replaces PAIRS (20) of LIVE (20000) objects of 16 to 512 bytes, writing 8 bytes into each.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { TURNS = 201, AREAS = 256 };

static struct area {
    uintptr_t start, end;
    char *copy;
} area[AREAS];
static int areas;
static char text[1 << 18];
static int pages[TURNS], lines[TURNS];

static void find_areas(void)
{
    int fd = open("/proc/self/maps", O_RDONLY);
    size_t used = 0;
    ssize_t n;
    while ((n = read(fd, text + used, sizeof text - 1 - used)) > 0)
        used += (size_t)n;
    close(fd);
    text[used] = 0;
    for (char *line = text, *next; *line && areas < AREAS; line = next) {
        next = strchr(line, '\n') + 1;
        next[-1] = 0;
        unsigned long start, end;
        char mode[8];
        if (sscanf(line, "%lx-%lx %7s", &start, &end, mode) != 3 || strncmp(mode, "rw-p", 4) ||
            strstr(line, "[stack]") || strstr(line, "bench_dirty"))
            continue;
        area[areas++] = (struct area){start, end, NULL};
    }
    for (int i = 0; i < areas; i++)
        area[i].copy = mmap(NULL, area[i].end - area[i].start, PROT_READ | PROT_WRITE,
                            MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}

static void compare(int turn)
{
    for (int i = 0; i < areas; i++)
        for (uintptr_t p = area[i].start; p < area[i].end; p += 4096) {
            char *copy = area[i].copy + (p - area[i].start);
            if (!memcmp((char *)p, copy, 4096))
                continue;
            for (int k = 0; k < 4096; k += 64)
                lines[turn] += memcmp((char *)p + k, copy + k, 64) != 0;
            pages[turn]++;
            memcpy(copy, (char *)p, 4096);
        }
}

static int order(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

static uint64_t seed = 7;

static uint64_t draw(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    return seed ^= seed << 17;
}

int main(int argc, char **argv)
{
    static void *object[1 << 20];
    unsigned live = argc > 1 ? (unsigned)atoi(argv[1]) : 20000;
    unsigned pairs = argc > 2 ? (unsigned)atoi(argv[2]) : 20;
    for (unsigned i = 0; i < 20 * live; i++) {
        void **slot = &object[i < live ? i : draw() % live];
        free(*slot);
        *slot = malloc(16 + draw() % 497);
        memset(*slot, 1, 16);
    }
    find_areas();
    compare(0);
    memset(pages, 0, sizeof pages);
    memset(lines, 0, sizeof lines);
    for (int turn = 0; turn < TURNS; turn++) {
        for (unsigned i = 0; i < pairs; i++) {
            void **slot = &object[draw() % live];
            free(*slot);
            *slot = malloc(16 + draw() % 497);
            memcpy(*slot, &seed, 8);
        }
        compare(turn);
    }
    qsort(pages, TURNS, sizeof *pages, order);
    qsort(lines, TURNS, sizeof *lines, order);
    printf("%d %d\n", pages[TURNS / 2], lines[TURNS / 2]);
    return 0;
}
