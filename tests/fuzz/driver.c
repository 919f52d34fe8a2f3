/* Runs a fuzz target where libFuzzer is not to be had: all files of the corpus, then seeded mutations of them.
 *
 *   fuzz_TARGET SECONDS SEED ARTIFACT CORPUS-FILE...
 *
 * Not guided by coverage. What is tried is written to ARTIFACT first, in memory that is shared with the file: it is what
 * crashed when the process dies. The last line tells how many inputs ran.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define MOST 4096

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
__attribute__((weak)) int LLVMFuzzerInitialize(int *argc, char ***argv);

struct input {
    size_t size;
    uint8_t bytes[MOST];
};

static uint64_t state;
static struct input *tried; /* shared with ARTIFACT */

static uint64_t draw(void)
{
    uint64_t z = state += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

static size_t below(size_t n)
{
    return n ? draw() % n : 0;
}

static void insert(struct input *i, size_t at, const uint8_t *bytes, size_t n)
{
    n = n < MOST - i->size ? n : MOST - i->size;
    memmove(i->bytes + at + n, i->bytes + at, i->size - at);
    memcpy(i->bytes + at, bytes, n);
    i->size += n;
}

static void mutate(struct input *i, const struct input *other)
{
    static const uint8_t edges[] = {0, 1, 0x7f, 0x80, 0xff, 0xfe, '/', ':', ',', '\n'};
    uint8_t copy[256], random = (uint8_t)draw();
    size_t at = below(i->size + 1), n;
    switch (below(7)) {
    case 0:
        if (at < i->size)
            i->bytes[at] ^= (uint8_t)(1u << below(8));
        break;
    case 1:
        if (at < i->size)
            i->bytes[at] = edges[below(sizeof edges)];
        break;
    case 2:
        insert(i, at, &random, 1);
        break;
    case 3: /* a piece out */
        n = below(i->size - at + 1);
        memmove(i->bytes + at, i->bytes + at + n, i->size - at - n);
        i->size -= n;
        break;
    case 4: /* a piece again, or one of another input */
        n = below(other->size < sizeof copy ? other->size + 1 : sizeof copy);
        memcpy(copy, other->bytes + below(other->size - n + 1), n);
        insert(i, at, copy, n);
        break;
    case 5: /* a number, larger or smaller */
        if (at + 4 <= i->size) {
            uint32_t number;
            memcpy(&number, i->bytes + at, 4);
            number += (uint32_t)below(35) - 17;
            memcpy(i->bytes + at, &number, 4);
        }
        break;
    default:
        if (at < i->size)
            i->bytes[at] = random;
    }
}

static void try(const struct input *i)
{
    *tried = *i;
    /* In memory of its own length, so that a read behind it is seen. */
    uint8_t *bytes = malloc(i->size ? i->size : 1);
    memcpy(bytes, i->bytes, i->size);
    LLVMFuzzerTestOneInput(bytes, i->size);
    free(bytes);
}

static void load(struct input *i, const char *path)
{
    int fd = open(path, O_RDONLY);
    ssize_t n = fd < 0 ? -1 : read(fd, i->bytes, MOST);
    if (n < 0) {
        perror(path);
        exit(2);
    }
    i->size = (size_t)n;
    close(fd);
}

int main(int argc, char **argv)
{
    if (argc < 5)
        return 2;
    int count = argc - 4, artifact = open(argv[3], O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (artifact < 0 || ftruncate(artifact, sizeof *tried))
        return 2;
    tried = mmap(NULL, sizeof *tried, PROT_READ | PROT_WRITE, MAP_SHARED, artifact, 0);
    struct input *corpus = calloc((size_t)count, sizeof *corpus);
    if (tried == MAP_FAILED || !corpus)
        return 2;
    if (LLVMFuzzerInitialize)
        LLVMFuzzerInitialize(&argc, &argv);
    state = strtoull(argv[2], NULL, 0);
    unsigned long ran = 0;
    for (int k = 0; k < count; k++, ran++) {
        load(&corpus[k], argv[4 + k]);
        try(&corpus[k]);
    }
    for (time_t end = time(NULL) + atoi(argv[1]); time(NULL) < end; ran++) {
        static struct input i;
        i = corpus[below((size_t)count)];
        for (size_t n = 1 + below(6); n; n--)
            mutate(&i, &corpus[below((size_t)count)]);
        try(&i);
    }
    unlink(argv[3]);
    printf("%lu\n", ran);
    return 0;
}
