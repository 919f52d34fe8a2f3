#include "tests/fault/power_loose.h"
#include "heap/image.h"
#include "heap/loose.h"
#include "heap/sums.h"
#include "tests/fault/power_disk.h"

#include <err.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static _Alignas(CHUNK_BYTES) uint8_t memory[HELD_BYTES];
static int is[HELD_BLOCKS];
static struct loose loose;
/* One chunk, whose slot it had from the beginning: the tables of a whole image are longer than all the rest of these tests. */
static struct chunk chunk;
static struct meta meta = {.chunks = 1};
static struct image image = {.meta = &meta, .chunks = &chunk};

void held_resume(const struct held *from, struct log *log)
{
    if ((uintptr_t)memory % CHUNK_BYTES)
        errx(1, "the loader aligns less than asked for");
    memset(is, 0, sizeof is);
    chunk = (struct chunk){0};
    if (from) {
        memcpy(is, from->is, sizeof is);
        memcpy(memory, from->bytes, sizeof memory);
        chunk = from->chunk;
    }
    chunk.number = (uintptr_t)memory >> CHUNK_SHIFT; /* which the model of a store without a record does not know */
    image.fd = log->image_fd;
    loose_inherit(&loose);
    loose.image = &image;
    log->loose = &loose;
    held_committed();
}

static void fill(unsigned block, uint64_t *random)
{
    uintptr_t at = (uintptr_t)memory + block * HELD_BLOCK_BYTES;
    if (!loose_write(&loose, at, at + HELD_BLOCK_BYTES))
        errx(1, "no memory");
    uint64_t word = power_random(random);
    for (uint64_t *to = (uint64_t *)at; to < (uint64_t *)(at + HELD_BLOCK_BYTES); to++)
        *to = word += 0x9e3779b97f4a7c15UL;
    is[block] = HELD_NEEDED;
}

void held_write(uint64_t *random)
{
    for (uint64_t n = power_random(random) % 3; n--;) {
        unsigned block = (unsigned)(power_random(random) % HELD_BLOCKS);
        if (is[block] == HELD_NEEDED)
            is[block] = HELD_LEAVING;
        else if (is[block] == HELD_FREE)
            fill(block, random);
    }
}

int held_take(struct log *log)
{
    return loose_take(&loose, log);
}

void held_save(struct held *to)
{
    memcpy(to->is, is, sizeof is);
    memcpy(to->bytes, memory, sizeof memory);
    to->chunk = chunk;
}

void held_committed(void)
{
    for (unsigned block = 0; block < HELD_BLOCKS; block++) {
        uintptr_t at = (uintptr_t)memory + block * HELD_BLOCK_BYTES;
        if (is[block] != HELD_LEAVING)
            continue;
        is[block] = HELD_FREE;
        loose_give_up(&loose, at, at + HELD_BLOCK_BYTES);
    }
}

static const uint8_t *look(int image_fd)
{
    static uint8_t there[HELD_BYTES];
    memset(there, 0, sizeof there);
    if (pread(image_fd, there, sizeof there, (off_t)HELD_AT) < 0)
        err(1, "pread");
    return there;
}

bool held_is_there(int image_fd, const struct held *expected)
{
    const uint8_t *there = look(image_fd);
    for (unsigned at = 0; at < HELD_BYTES; at += HELD_BLOCK_BYTES)
        if (expected->is[at / HELD_BLOCK_BYTES] == HELD_NEEDED && memcmp(there + at, expected->bytes + at, HELD_BLOCK_BYTES) != 0)
            return false;
    return true;
}

bool held_sums_agree(int image_fd)
{
    uint32_t sums[HELD_BYTES / BLOCK_BYTES] = {0};
    const uint8_t *there = look(image_fd);
    bool agree = pread(image_fd, sums, sizeof sums, (off_t)sums_at(HELD_AT)) >= 0;
    for (unsigned page = 0; page < HELD_BYTES / BLOCK_BYTES; page++)
        agree &= sums_hold(there + page * BLOCK_BYTES, sums[page]);
    return agree;
}
