/* heap/image, heap/mapping, heap/vdso, heap/context: the committed memory and what describes it. */
#include "heap/context.h"
#include "heap/image.h"
#include "heap/mapping.h"
#include "heap/sys.h"
#include "heap/vdso.h"
#include "heap/window.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static struct image image;

static void open_image(void)
{
    char path[] = "/var/tmp/test_image.XXXXXX";
    int fd = mkstemp(path);
    unlink(path);
    cr_assert_geq(window_open(0), 0);
    cr_assert_eq(image_open(&image, fd, false), 0);
}

TestSuite(image, .init = open_image);

Test(image, a_chunk_gets_its_slot_once)
{
    cr_assert_eq(image_find(&image, 0x12345000), 0);
    uint64_t offset = image_place(&image, 0x12345000);
    cr_assert_eq(offset, layout_slot(0) + (0x12345000 & (CHUNK_BYTES - 1)));
    cr_assert_eq(offset % PAGE_BYTES, 0);
    cr_assert_eq(image_find(&image, 0x12345000), offset);
    cr_assert_eq(image_find(&image, 0x12346000), offset + PAGE_BYTES);
    cr_assert_eq(image_find(&image, 0x12345000 + CHUNK_BYTES), 0);
    cr_assert_eq(image.meta->chunks, 1);
}

Test(image, presence_is_kept_for_each_page)
{
    uint64_t offset = image_place(&image, 0x12345000);
    cr_assert_not(image_present(&image, offset));
    image_set_present(&image, offset);
    image_set_present(&image, offset);
    cr_assert(image_present(&image, offset));
    cr_assert_not(image_present(&image, offset + PAGE_BYTES));
    cr_assert_eq(image.chunks[0].pages, 1);
}

Test(image, dropping_the_last_page_frees_the_slot_and_punches)
{
    uint64_t offset = image_place(&image, 0x12345000);
    image_set_present(&image, offset);
    image_drop(&image, 0x12346000, 0x12347000);
    cr_assert_eq(image.punch_count, 0);
    image_drop(&image, 0x12345000, 0x12346000);
    cr_assert_eq(image.punch_count, 1);
    cr_assert_eq(image.punches[0].offset, offset);
    cr_assert_eq(image_find(&image, 0x12345000), 0);
    cr_assert_eq(image_place(&image, 0x7f0000000000) & ~(CHUNK_BYTES - 1), layout_slot(0), "the slot is used again");
}

Test(image, a_wide_drop_finds_all)
{
    for (uintptr_t at = 0x10000000; at < 0x20000000; at += CHUNK_BYTES)
        image_set_present(&image, image_place(&image, at + 5 * PAGE_BYTES));
    image_drop(&image, 0x1000, 0x7ffffffff000);
    cr_assert_eq(image.free_count, image.meta->chunks);
    cr_assert_eq(image.punch_count, image.meta->chunks);
}

/* Against a plain array as the model: random places and drops over 64 chunks. */
Test(image, agrees_with_a_model)
{
    enum { CHUNKS = 64, PAGES = CHUNKS * 512 };
    static bool model[PAGES];
    const uintptr_t base = 0x7f1234000000 & ~(CHUNK_BYTES - 1);
    srand(7);
    for (int step = 0; step < 3000; step++) {
        int from = rand() % PAGES, to = from + 1 + rand() % 2000;
        to = to > PAGES ? PAGES : to;
        if (rand() % 3) {
            uintptr_t at = base + (uintptr_t)from * PAGE_BYTES;
            image_set_present(&image, image_place(&image, at));
            model[from] = true;
        } else {
            image_drop(&image, base + (uintptr_t)from * PAGE_BYTES, base + (uintptr_t)to * PAGE_BYTES);
            memset(&model[from], 0, (size_t)(to - from));
        }
        image.punch_count = 0;
    }
    for (int page = 0; page < PAGES; page++) {
        uint64_t offset = image_find(&image, base + (uintptr_t)page * PAGE_BYTES);
        cr_assert_eq(offset && image_present(&image, offset), model[page], "page %d", page);
    }
}

Test(image, a_run_ends_where_slots_stop_following_each_other)
{
    const uintptr_t base = 0x40000000;
    uint64_t offset;
    image_place(&image, base);
    image_place(&image, base + CHUNK_BYTES);
    image_place(&image, base + 3 * CHUNK_BYTES);
    cr_assert_eq(image_run(&image, base + PAGE_BYTES, base + 8 * CHUNK_BYTES, &offset), base + 2 * CHUNK_BYTES);
    cr_assert_eq(offset, layout_slot(0) + PAGE_BYTES);
    cr_assert_eq(image_run(&image, base + 2 * CHUNK_BYTES, base + 8 * CHUNK_BYTES, &offset), base + 3 * CHUNK_BYTES);
    cr_assert_eq(offset, 0);
}

Test(mapping, parses_what_the_kernel_writes)
{
    static const char text[] = "00400000-0040b000 r-xp 00001000 fe:0a 48 /usr/bin/a b\n"
                               "7ffc0000-7ffd0000 rw-p 00000000 00:00 0                          [stack]\n"
                               "7fff0000-7fff1000 ---s 00002000 103:02 7\n";
    const char *cursor = text;
    struct mapping_line line;
    cr_assert(mapping_next(&cursor, text + sizeof text - 1, &line));
    cr_assert_eq(line.start, 0x400000);
    cr_assert_eq(line.end, 0x40b000);
    cr_assert_eq(line.prot, PROT_READ | PROT_EXEC);
    cr_assert_eq(line.offset, 0x1000);
    cr_assert_eq(line.device, 0xfe0000000aUL);
    cr_assert_eq(line.inode, 48);
    cr_assert(mapping_named(&line, "/usr/bin/a b"));
    cr_assert(mapping_next(&cursor, text + sizeof text - 1, &line));
    cr_assert(mapping_named(&line, "[stack]"));
    cr_assert(mapping_next(&cursor, text + sizeof text - 1, &line));
    cr_assert(line.shared);
    cr_assert_eq(line.device, 0x10300000002UL);
    cr_assert_eq(line.name_length, 0);
    cr_assert_not(mapping_next(&cursor, text + sizeof text - 1, &line));
}

Test(context, returns_a_second_time)
{
    static struct context c;
    volatile int count = 0;
    int second = context_save(&c);
    cr_assert_eq(second, count);
    if (count++ == 0)
        context_resume(&c);
    cr_assert_eq(count, 2);
}

/* The vdso of "another kernel" is a copy of this one: called through the patches it must still tell the time. */
Test(vdso, a_patched_copy_leads_to_the_new_one)
{
    static char maps[1 << 20];
    FILE *f = fopen("/proc/self/maps", "r");
    size_t length = fread(maps, 1, sizeof maps, f);
    fclose(f);
    const char *cursor = maps;
    struct mapping_line line;
    bool found = false;
    while (!found && mapping_next(&cursor, maps + length, &line))
        found = mapping_named(&line, "[vdso]");
    if (!found)
        cr_skip_test("this kernel gives no vdso");
    size_t bytes = line.end - line.start;
    uint8_t *copy = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memcpy(copy, (void *)line.start, bytes);
    cr_assert_gt(vdso_patch(copy, bytes, (const uint8_t *)line.start, line.start), 2);
    cr_assert_eq(mprotect(copy, bytes, PROT_READ | PROT_EXEC), 0);
    uintptr_t entry = vdso_function(copy, "__vdso_clock_gettime");
    cr_assert_neq(entry, 0);
    struct timespec before, through, after;
    int (*call)(clockid_t, struct timespec *) = (int (*)(clockid_t, struct timespec *))((uintptr_t)copy + entry);
    clock_gettime(CLOCK_MONOTONIC, &before);
    cr_assert_eq(call(CLOCK_MONOTONIC, &through), 0);
    clock_gettime(CLOCK_MONOTONIC, &after);
    cr_assert(through.tv_sec >= before.tv_sec && through.tv_sec <= after.tv_sec);
}
