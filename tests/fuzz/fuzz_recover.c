/* Recovery of a damaged store. The input is a program for a disk that went wrong: which bytes of which file to change, cut,
 * copy elsewhere or leave out. Whatever it does, recovery ends with an error and changes nothing, or the image is exactly
 * what one of the commits left; and what is then said of a good image's metadata is no crash.
 */
#include "tests/unit/log_fixture.h"

#include "heap/image.h"
#include "heap/layout_meta.h"

#define COMMITS 12

struct input {
    const uint8_t *at;
    size_t left;
};

static uint8_t states[COMMITS + 1][IMAGE_BYTES]; /* after so many commits */
static struct snapshot whole;

static unsigned next(struct input *in)
{
    if (!in->left)
        return 0;
    in->left--;
    return *in->at++;
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    make_root_in("/dev/shm");
    atexit(remove_root);
    static struct snapshot half;
    start_fresh(SYNC_PROCESS);
    for (int i = 1; i <= COMMITS; i++) {
        commit_and_apply(3, 6);
        memcpy(states[i], model, sizeof model);
        if (i == COMMITS / 2)
            snapshot_take(&half);
    }
    snapshot_take(&whole);
    close_all();
    /* The image is one of the past: the log has to bring it up to date. */
    whole.data[2] = half.data[2];
    whole.size[2] = half.size[2];
    return 0;
}

/* A place in a file, where the headers and records are rather than in the zeros behind them. */
static uint64_t place(struct input *in, int64_t size)
{
    uint64_t at = next(in) | next(in) << 8 | next(in) << 16, most = 24 * 4096;
    return size ? at % (uint64_t)(size < (int64_t)most ? size : (int64_t)most) : 0;
}

static void damage(struct input *in)
{
    unsigned how = next(in) % 5, file = next(in) % 2; /* the logs: the image's own damage is told by sums, page by page */
    struct stat now;
    cr_assert_eq(stat(store_file(snapshot_files[file]), &now), 0);
    uint64_t at = place(in, now.st_size), from = place(in, whole.size[file]);
    unsigned n = 1 + next(in);
    uint8_t bytes[256];
    switch (how) {
    case 0:
        if (now.st_size)
            flip_bit(snapshot_files[file], at, n % 8);
        break;
    case 1:
        for (unsigned i = 0; i < n; i++)
            bytes[i] = (uint8_t)next(in);
        smash(snapshot_files[file], at, bytes, n);
        break;
    case 2: /* what lies there in this file, or in the other one, lies here too: a sector in the wrong place */
        at &= ~511UL;
        from &= ~511UL;
        smash(snapshot_files[file], at, whole.data[n % 2] + from, 512);
        break;
    case 3: /* a sector that was never written */
        memset(bytes, 0, sizeof bytes);
        smash(snapshot_files[file], at & ~511UL, bytes, sizeof bytes);
        smash(snapshot_files[file], (at & ~511UL) + 256, bytes, sizeof bytes);
        break;
    default:
        cr_assert_eq(truncate(store_file(snapshot_files[file]), (off_t)at), 0);
    }
}

/* Metadata made of the input, with sums that are right: the tables have to fit each other. */
static void examine(struct input *in)
{
    static uint8_t *beginning;
    if (!beginning)
        beginning = mmap(NULL, META_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    cr_assert(beginning != MAP_FAILED);
    struct meta *m = (struct meta *)beginning;
    uint8_t *parts[] = {(uint8_t *)&m->chunks, (uint8_t *)&m->pages, beginning + CHUNK_AT, beginning + AREA_AT, beginning + FILE_AT,
                        beginning + VDSO_AT};
    memset(m, 0, sizeof *m);
    m->magic = META_MAGIC;
    uint64_t file_bytes = (uint64_t)next(in) << 20;
    while (in->left)
        parts[next(in) % 6][next(in)] = (uint8_t)next(in);
    uint32_t *sums = (uint32_t *)(beginning + SUMS_AT);
    uint64_t ends[] = {CHUNK_AT + 4096, AREA_AT + 4096, FILE_AT + 4096, VDSO_AT + 4096}, starts[] = {CHUNK_AT, AREA_AT, FILE_AT, VDSO_AT};
    sums[0] = sums_page(beginning);
    for (int i = 0; i < 4; i++)
        for (uint64_t at = starts[i]; at < ends[i]; at += 4096)
            sums[at / 4096] = sums_page(beginning + at);
    int r = image_examine(beginning, file_bytes);
    cr_assert(r == 0 || r == -EBADMSG);
    for (int i = 2; i < 6; i++)
        memset(parts[i], 0, 256);
}

static bool is_some_state(void)
{
    for (int i = COMMITS; i >= 0; i--)
        if (image_is(states[i]))
            return true;
    return false;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    if (next(&in) % 2) {
        examine(&in);
        return 0;
    }
    snapshot_put(&whole);
    for (int n = 0; in.left && n < 8; n++)
        damage(&in);
    long r = store_open(&store, directory, 0);
    cr_assert_eq(r, STORE_EXISTS);
    r = recover_log(SYNC_PROCESS);
    cr_assert(r < 0 || is_some_state());
    close_all();
    return 0;
}
