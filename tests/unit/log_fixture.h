/* What the tests of store, log and recovery share: a store in a temporary directory, a model image, and a
 * disk whose operations are seen and can be made to fail. */
#ifndef KEN_TESTS_LOG_FIXTURE_H
#define KEN_TESTS_LOG_FIXTURE_H

#include "heap/disk.h"
#include "heap/log.h"
#include "heap/store.h"
#include "heap/say.h"
#include "heap/sums.h"
#include "heap/sys.h"
#include "heap/window.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define SEGMENT_BYTES (64u * 4096u)
#define IMAGE_BYTES (16u * 4096u)
#define MAPPED_BYTES (SUMS_AT + 4096) /* the image with its sums */
_Static_assert(IMAGE_BYTES <= SUMS_AT, "the model is one stretch");

static char root[64];      /* the temporary directory */
static char directory[96]; /* the store in it */
static struct store store;
static struct log redo;
static uint8_t model[IMAGE_BYTES];
static uint64_t seed = 88172645463325252UL;

static inline uint64_t random_next(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed * 0x2545f4914f6cdd1dUL >> 16;
}

static inline void remove_root(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf '%s'", root);
    if (root[0] && system(command))
        perror(command);
}

static inline void make_root_in(const char *base)
{
    snprintf(root, sizeof root, "%s/ken-log-XXXXXX", base);
    cr_assert(mkdtemp(root));
    snprintf(directory, sizeof directory, "%s/store", root);
    cr_assert(window_open(0) > 0);
    say_to(open("/dev/null", O_WRONLY));
}

static inline void make_root(void)
{
    const char *base = getenv("TMPDIR");
    make_root_in(base && strlen(base) < 32 ? base : "/tmp");
}

static inline const char *store_file(const char *name)
{
    static char path[160];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    return path;
}

/* What libken has said since the last call. */
static int said_fd = -1;

static inline void listen_to_messages(void)
{
    said_fd = memfd_create("said", 0);
    say_to(said_fd);
}

static inline const char *messages(void)
{
    static char text[8192];
    ssize_t n = pread(said_fd, text, sizeof text - 1, 0);
    text[n > 0 ? n : 0] = '\0';
    cr_assert(ftruncate(said_fd, 0) == 0 && lseek(said_fd, 0, SEEK_SET) == 0);
    return text;
}

static inline unsigned count_of(const char *text, const char *what)
{
    unsigned n = 0;
    while ((text = strstr(text, what)) && ++n)
        text++;
    return n;
}

static inline void format_store(void)
{
    struct store_birth birth = {.segment_bytes = SEGMENT_BYTES, .executable = "/bin/true", .command = "true"};
    cr_assert_eq(store_open(&store, directory, 0), STORE_FRESH);
    cr_assert_eq(store_format(&store, &birth), 0);
}

static inline long recover_log(enum sync sync)
{
    struct image_writer writer = {.fd = store.image_fd};
    int r = log_open(&redo, &store, sync, store.image_fd);
    return r ? r : log_recover(&redo, &writer);
}

static inline void close_all(void)
{
    log_close(&redo);
    store_close(&store);
}

/* Opens what a crash left. */
static inline long reopen(enum sync sync)
{
    close_all();
    cr_assert_eq(store_open(&store, directory, 0), STORE_EXISTS);
    return recover_log(sync);
}

static inline void start_fresh(enum sync sync)
{
    if (!root[0])
        make_root();
    format_store();
    cr_assert_eq(recover_log(sync), 0);
    memset(model, 0, sizeof model);
}

/* Lines for the log and the model, page by page. */
static inline void add_lines(uint64_t offset, const uint8_t *data, unsigned lines, unsigned flags)
{
    for (uint64_t end = offset + lines * 64; offset < end;) {
        uint64_t page = PAGE_DOWN(offset), stop = page + 4096 < end ? page + 4096 : end;
        memcpy(model + offset, data, stop - offset);
        cr_assert_eq(log_lines(&redo, offset, data, (unsigned)(stop - offset) / 64, sums_page(model + page), flags), 0);
        data += stop - offset;
        offset = stop;
    }
}

/* One random record, to the log and to the model. At most `lines` lines a run. */
static inline void add_random_runs(unsigned runs, unsigned lines)
{
    static uint8_t data[IMAGE_BYTES];
    for (unsigned i = 0; i < runs; i++) {
        unsigned count = 1 + random_next() % lines;
        uint64_t offset = random_next() % (IMAGE_BYTES / 64 - count + 1) * 64;
        if (random_next() % 8 == 0) {
            uint64_t bytes = PAGE_UP(count * 64);
            offset = PAGE_DOWN(offset) + bytes > IMAGE_BYTES ? IMAGE_BYTES - bytes : PAGE_DOWN(offset);
            cr_assert_eq(log_punch(&redo, offset, bytes), 0);
            memset(model + offset, 0, bytes);
            continue;
        }
        for (unsigned b = 0; b < count * 64; b++)
            data[b] = (uint8_t)random_next();
        add_lines(offset, data, count, random_next() % 2 ? LOG_NEW : 0);
    }
}

/* Adds pages beyond the model that were zero before; the last one may be a part. Offset and bytes are of whole lines. */
static inline int add_pages(uint64_t offset, const uint8_t *data, uint64_t bytes)
{
    static uint8_t page[4096];
    int r = 0;
    for (uint64_t done = 0; !r && done < bytes; done += sizeof page) {
        uint64_t part = bytes - done < sizeof page ? bytes - done : sizeof page;
        memset(page, 0, sizeof page);
        memcpy(page, data + done, part);
        r = log_lines(&redo, offset + done, page, (unsigned)part / 64, sums_page(page), LOG_NEW);
    }
    return r;
}

static inline void commit_random(unsigned runs, unsigned lines)
{
    uint64_t sequence = 0, expected = redo.sequence + 1;
    log_begin(&redo);
    add_random_runs(runs, lines);
    cr_assert_eq(log_commit(&redo, &sequence), 0);
    cr_assert_geq(sequence, expected);
}

static inline void commit_and_apply(unsigned runs, unsigned lines)
{
    commit_random(runs, lines);
    cr_assert_eq(log_apply(&redo), 0);
}

static inline void read_image(uint8_t image[IMAGE_BYTES])
{
    memset(image, 0, IMAGE_BYTES);
    cr_assert(disk_read(store.image_fd, image, IMAGE_BYTES, 0) >= 0);
}

/* The pages, and that each agrees with its sum. */
static inline bool image_is(const uint8_t expected[IMAGE_BYTES])
{
    static uint8_t image[IMAGE_BYTES];
    uint32_t sums[IMAGE_BYTES / 4096] = {0};
    read_image(image);
    cr_assert(disk_read(store.image_fd, sums, sizeof sums, SUMS_AT) >= 0);
    for (unsigned page = 0; page < IMAGE_BYTES / 4096; page++)
        if (!sums_hold(image + page * 4096, sums[page]))
            return false;
    return !memcmp(image, expected, IMAGE_BYTES);
}

/* The files of a store, to be put back later: a disk image of a sort. */
struct snapshot {
    uint8_t *data[3];
    int64_t size[3];
};
static const char *const snapshot_files[3] = {"log.0", "log.1", "image"};

static inline void snapshot_take(struct snapshot *s)
{
    for (int i = 0; i < 3; i++) {
        int fd = open(store_file(snapshot_files[i]), O_RDONLY);
        cr_assert(fd >= 0);
        s->size[i] = lseek(fd, 0, SEEK_END);
        free(s->data[i]);
        s->data[i] = malloc((size_t)s->size[i] + 1);
        cr_assert(pread(fd, s->data[i], (size_t)s->size[i], 0) == s->size[i]);
        close(fd);
    }
}

static inline void put_file(const char *name, const void *data, int64_t size)
{
    int fd = open(store_file(name), O_WRONLY | O_CREAT, 0600);
    cr_assert(fd >= 0 && pwrite(fd, data, (size_t)size, 0) == size && ftruncate(fd, size) == 0);
    close(fd);
}

static inline void snapshot_put(const struct snapshot *s)
{
    for (int i = 0; i < 3; i++)
        put_file(snapshot_files[i], s->data[i], s->size[i]);
}

/* Writes over a file of the store as a faulty disk would. */
static inline void smash(const char *name, uint64_t offset, const void *data, size_t bytes)
{
    int fd = open(store_file(name), O_WRONLY);
    cr_assert(fd >= 0 && pwrite(fd, data, bytes, (off_t)offset) == (ssize_t)bytes);
    close(fd);
}

static inline void flip_bit(const char *name, uint64_t offset, unsigned bit)
{
    uint8_t byte;
    int fd = open(store_file(name), O_RDWR);
    cr_assert(fd >= 0 && pread(fd, &byte, 1, (off_t)offset) == 1);
    byte ^= (uint8_t)(1u << bit);
    cr_assert(pwrite(fd, &byte, 1, (off_t)offset) == 1);
    close(fd);
}

#endif
