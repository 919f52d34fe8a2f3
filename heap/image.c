#include "heap/image.h"
#include "heap/diff.h"
#include "heap/fault.h"
#include "heap/sums.h"
#include "heap/sys.h"
#include "heap/verify.h"
#include "heap/window.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define INDEX_SLOTS (1u << 19) /* twice CHUNK_MAX, rounded down to a power of two */
#define GROWTH (64UL << 20)

_Static_assert(CHUNK_MAX < INDEX_SLOTS, "the index must never fill");
_Static_assert(META_BYTES + (CHUNK_MAX / GROUP_SLOTS + 1) * GROUP_BYTES <= WINDOW_TWIN_BYTES, "the window holds the twin");

static uint32_t hash(uint64_t number)
{
    return (uint32_t)((number * 0x9e3779b97f4a7c15UL) >> 45) & (INDEX_SLOTS - 1);
}

static void index_add(struct image *i, uint64_t number, uint32_t slot)
{
    uint32_t at = hash(number);
    while (i->index[at])
        at = (at + 1) & (INDEX_SLOTS - 1);
    i->index[at] = slot + 1;
}

/* Returns the index position of the chunk, or of the empty place where its search ends. */
static uint32_t index_find(struct image *i, uint64_t number)
{
    uint32_t at = hash(number);
    while (i->index[at] && i->chunks[i->index[at] - 1].number != number)
        at = (at + 1) & (INDEX_SLOTS - 1);
    return at;
}

/* Linear probing has no tombstones: the entries behind the hole are put in again. */
static void index_remove(struct image *i, uint32_t at)
{
    i->index[at] = 0;
    for (at = (at + 1) & (INDEX_SLOTS - 1); i->index[at]; at = (at + 1) & (INDEX_SLOTS - 1)) {
        uint32_t slot = i->index[at] - 1;
        i->index[at] = 0;
        index_add(i, i->chunks[slot].number, slot);
    }
}

static int file_grow(struct image *i, uint64_t bytes)
{
    if (bytes <= i->file_bytes)
        return 0;
    bytes = (bytes + GROWTH - 1) / GROWTH * GROWTH;
    long r = sys(SYS_ftruncate, i->fd, bytes);
    if (sys_failed(r))
        return (int)r;
    i->file_bytes = bytes;
    return 0;
}

/* The tables within one mapping of the metadata. */
static void find_tables(struct image *i, void *beginning)
{
    char *base = beginning;
    i->meta = beginning;
    i->chunks = (struct chunk *)(base + CHUNK_AT);
    i->areas = (struct area *)(base + AREA_AT);
    i->files = (struct file *)(base + FILE_AT);
    i->vdso = (uint8_t *)base + VDSO_AT;
}

/* A file that was cut short lacks pages that the tables say are there. */
static bool reaches_all_pages(const struct image *i, uint64_t file_bytes)
{
    for (uint32_t slot = 0; slot < i->meta->chunks; slot++) {
        const struct chunk *c = &i->chunks[slot];
        for (unsigned word = CHUNK_PAGES / 64; c->number != CHUNK_FREE && word-- > 0;) {
            if (!c->present[word])
                continue;
            unsigned last = word * 64 + 63 - (unsigned)__builtin_clzl(c->present[word]);
            if (layout_slot(slot) + (last + 1) * PAGE_BYTES > file_bytes)
                return false;
            break;
        }
    }
    return true;
}

static bool reaches_all_tables(const struct meta *m, uint64_t file_bytes)
{
    return CHUNK_AT + m->chunks * sizeof(struct chunk) <= file_bytes &&
           (!m->areas || AREA_AT + m->areas * sizeof(struct area) <= file_bytes) &&
           (!m->files || FILE_AT + m->files * sizeof(struct file) <= file_bytes) &&
           (!m->vdso_bytes || VDSO_AT + m->vdso_bytes <= file_bytes);
}

static uint64_t layout_sum(const struct image *i)
{
    const struct meta *m = i->meta;
    uint64_t sum = XXH3_64bits(i->areas, m->areas * sizeof *i->areas);
    sum = XXH3_64bits_withSeed(i->files, m->files * sizeof *i->files, sum);
    return XXH3_64bits_withSeed(i->vdso, m->vdso_bytes, sum);
}

static bool adds_up(const struct image *i)
{
    uint64_t pages = 0;
    for (uint32_t slot = 0; slot < i->meta->chunks; slot++)
        pages += i->chunks[slot].pages;
    return pages == i->meta->pages && layout_sum(i) == i->meta->layout_sum;
}

static bool sums_match(const void *beginning, uint64_t at, uint64_t bytes)
{
    const uint8_t *base = beginning;
    for (uint64_t end = at + bytes; at < end; at += PAGE_BYTES)
        if (!sums_hold(base + at, *(const uint32_t *)(base + sums_at(at))))
            return false;
    return true;
}

/* Whatever of the metadata is in use. */
static bool are_sound(const struct meta *m)
{
    return sums_match(m, 0, PAGE_BYTES) && sums_match(m, CHUNK_AT, m->chunks * sizeof(struct chunk)) &&
           sums_match(m, AREA_AT, m->areas * sizeof(struct area)) &&
           sums_match(m, FILE_AT, m->files * sizeof(struct file)) && sums_match(m, VDSO_AT, m->vdso_bytes);
}

int image_examine(const void *beginning, uint64_t file_bytes)
{
    struct image i = {0};
    find_tables(&i, (void *)beginning);
    const struct meta *m = i.meta;
    bool good = file_bytes >= PAGE_BYTES && m->magic == META_MAGIC && m->chunks <= CHUNK_MAX &&
                m->areas <= AREA_MAX && m->files <= FILE_MAX && m->vdso_bytes <= META_BYTES - VDSO_AT &&
                reaches_all_tables(m, file_bytes) && MUTANT("verify.no_meta", true, are_sound(m)) && adds_up(&i) && reaches_all_pages(&i, file_bytes);
    return good ? 0 : -EBADMSG;
}

/* Calls use(beginning) with the file's metadata mapped; beyond the file's end nothing may be touched. */
static long with_file(int fd, uint64_t *file_bytes, long (*use)(struct image *, const void *, uint64_t), struct image *i)
{
    struct stat status;
    long r = sys(SYS_fstat, fd, &status);
    if (sys_failed(r))
        return r;
    *file_bytes = (uint64_t)status.st_size;
    if (*file_bytes < PAGE_BYTES)
        return -EBADMSG;
    long at = sys(SYS_mmap, 0, META_BYTES, PROT_READ, MAP_PRIVATE, fd, 0);
    if (sys_failed(at))
        return at;
    r = use(i, (const void *)at, *file_bytes);
    sys(SYS_munmap, at, META_BYTES);
    return r;
}

static long only_examine(struct image *i, const void *beginning, uint64_t file_bytes)
{
    (void)i;
    return image_examine(beginning, file_bytes);
}

int image_examine_file(int fd)
{
    uint64_t file_bytes;
    return (int)with_file(fd, &file_bytes, only_examine, NULL);
}

static void fill_index(struct image *i)
{
    i->restored = i->meta->chunks;
    for (uint32_t slot = 0; slot < i->meta->chunks; slot++) {
        if (i->chunks[slot].number != CHUNK_FREE)
            index_add(i, i->chunks[slot].number, slot);
        else
            i->free_slots[i->free_count++] = slot;
    }
}

static long load(struct image *i, const void *beginning, uint64_t file_bytes)
{
    const char *base = beginning;
    int r = image_examine(beginning, file_bytes);
    if (r)
        return r;
    memcpy(i->meta, beginning, PAGE_BYTES);
    memcpy(i->chunks, base + CHUNK_AT, i->meta->chunks * sizeof *i->chunks);
    memcpy(i->areas, base + AREA_AT, i->meta->areas * sizeof *i->areas);
    memcpy(i->files, base + FILE_AT, i->meta->files * sizeof *i->files);
    memcpy(i->vdso, base + VDSO_AT, i->meta->vdso_bytes);
    fill_index(i);
    return 0;
}

int image_open(struct image *i, int fd, bool existing)
{
    memset(i, 0, sizeof *i);
    i->fd = fd;
    i->punch_capacity = 1u << 20;
    char *meta = window_alloc(META_BYTES);
    i->index = window_alloc(INDEX_SLOTS * sizeof *i->index);
    i->free_slots = window_alloc(CHUNK_MAX * sizeof *i->free_slots);
    i->punches = window_alloc(i->punch_capacity * sizeof *i->punches);
    i->after = window_alloc(PAGE_BYTES);
    if (!i->after || !meta || !i->index || !i->free_slots || !i->punches)
        return -ENOMEM;
    find_tables(i, meta);
    i->twin = window_twin(window_base());
    long r = existing ? with_file(fd, &i->file_bytes, load, i) : 0;
    if (!r)
        r = file_grow(i, layout_slot(i->meta->chunks));
    if (r)
        return (int)r;
    r = sys(SYS_mmap, i->twin, WINDOW_TWIN_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);
    if (sys_failed(r))
        return (int)r;
    i->meta->magic = META_MAGIC;
    i->layout_changed = !existing;
    return 0;
}

int image_inherit(struct image *i, bool existing)
{
    const struct image parents = *i;
    const struct meta was = *i->meta;
    int r = image_open(i, parents.fd, existing);
    if (r)
        return r;
    struct meta *m = i->meta;
    struct meta is = existing ? *m : was;
    if (!existing) {
        is.turn = is.chunks = is.areas = is.vdso_bytes = is.vdso_pieces = 0;
        is.pages = is.durable_bytes = 0;
    }
    is.files = was.files;
    is.exit_status = 0;
    *m = is;
    memcpy(i->files, parents.files, was.files * sizeof *i->files);
    i->layout_changed = true;
    i->restored = 0; /* no page of this process is the file's: memory_unshare() */
    image_drop(i, PAGE_BYTES, UINTPTR_MAX & ~(PAGE_BYTES - 1));
    return 0;
}

uint64_t image_find(struct image *i, uintptr_t address)
{
    uint64_t number = address >> CHUNK_SHIFT;
    if (i->last >= i->meta->chunks || i->chunks[i->last].number != number) {
        uint32_t at = index_find(i, number);
        if (!i->index[at])
            return 0;
        i->last = i->index[at] - 1;
    }
    return layout_slot(i->last) + (PAGE_DOWN(address) & (CHUNK_BYTES - 1));
}

uint64_t image_place(struct image *i, uintptr_t address)
{
    uint64_t offset = image_find(i, address);
    if (offset)
        return offset;
    uint32_t slot;
    if (i->free_count)
        slot = i->free_slots[--i->free_count];
    else if (i->meta->chunks == CHUNK_MAX || file_grow(i, layout_slot(i->meta->chunks + 1)))
        return 0;
    else
        slot = i->meta->chunks++;
    memset(&i->chunks[slot], 0, sizeof i->chunks[slot]);
    i->chunks[slot].number = address >> CHUNK_SHIFT;
    index_add(i, i->chunks[slot].number, slot);
    i->last = slot;
    return layout_slot(slot) + (PAGE_DOWN(address) & (CHUNK_BYTES - 1));
}

static struct chunk *chunk_of(struct image *i, uint64_t offset, unsigned *page)
{
    return &i->chunks[image_slot(offset, page)];
}

bool image_present(struct image *i, uint64_t page_offset)
{
    unsigned page;
    struct chunk *c = chunk_of(i, page_offset, &page);
    return c->present[page / 64] >> (page % 64) & 1;
}

void image_set_present(struct image *i, uint64_t page_offset)
{
    unsigned page;
    struct chunk *c = chunk_of(i, page_offset, &page);
    uint64_t bit = 1UL << (page % 64);
    if (!(c->present[page / 64] & bit)) {
        c->present[page / 64] |= bit;
        c->pages++;
        i->meta->pages++;
    }
}

static void punch_add(struct image *i, uint64_t offset, uint64_t bytes)
{
    struct punch *last = i->punch_count ? &i->punches[i->punch_count - 1] : NULL;
    if (last && last->offset + last->bytes == offset)
        last->bytes += bytes;
    else if (i->punch_count < i->punch_capacity)
        i->punches[i->punch_count++] = (struct punch){offset, bytes};
}

static void chunk_drop(struct image *i, uint32_t slot, unsigned from, unsigned to)
{
    struct chunk *c = &i->chunks[slot];
    verify_pages(i, slot, from, to);
    for (unsigned page = from; page < to; page++) {
        uint64_t bit = 1UL << (page % 64);
        if (!(c->present[page / 64] & bit))
            continue;
        c->present[page / 64] &= ~bit;
        c->pages--;
        i->meta->pages--;
        punch_add(i, layout_slot(slot) + page * PAGE_BYTES, PAGE_BYTES);
    }
    if (c->pages)
        return;
    index_remove(i, index_find(i, c->number));
    c->number = CHUNK_FREE;
    if (slot >= i->restored)
        i->free_slots[i->free_count++] = slot;
}

void image_drop(struct image *i, uintptr_t start, uintptr_t end)
{
    /* A range wider than all there is costs a walk over the table instead. */
    if ((end - start) >> CHUNK_SHIFT > i->meta->chunks) {
        for (uint32_t slot = 0; slot < i->meta->chunks; slot++) {
            uintptr_t base = i->chunks[slot].number << CHUNK_SHIFT;
            if (i->chunks[slot].number == CHUNK_FREE || base + CHUNK_BYTES <= start || base >= end)
                continue;
            unsigned from = start > base ? (unsigned)((start - base) / PAGE_BYTES) : 0;
            unsigned to = end - base < CHUNK_BYTES ? (unsigned)((end - base) / PAGE_BYTES)
                                                   : CHUNK_PAGES;
            chunk_drop(i, slot, from, to);
        }
        return;
    }
    while (start < end) {
        uintptr_t base = start & ~(CHUNK_BYTES - 1);
        uintptr_t stop = base + CHUNK_BYTES < end ? base + CHUNK_BYTES : end;
        if (image_find(i, start))
            chunk_drop(i, i->last, (unsigned)((start - base) / PAGE_BYTES),
                       (unsigned)((stop - base) / PAGE_BYTES));
        start = stop;
    }
}

uintptr_t image_run(struct image *i, uintptr_t address, uintptr_t end, uint64_t *offset)
{
    *offset = image_find(i, address);
    uint64_t expected = *offset;
    while (address < end) {
        uintptr_t next = (address & ~(CHUNK_BYTES - 1)) + CHUNK_BYTES;
        if (expected)
            expected += next - address;
        address = next < end ? next : end;
        if (address < end && image_find(i, address) != expected)
            break;
    }
    return address;
}

/* Makes `after` the page as it will be in the image. */
static void look_ahead(uint8_t *after, const void *page, const void *before, uint64_t changed)
{
    struct diff_run run;
    if (before)
        memcpy(after, before, PAGE_BYTES);
    else
        memset(after, 0, PAGE_BYTES);
    while (diff_next(&changed, &run))
        memcpy(after + run.first * LINE_BYTES, (const char *)page + run.first * LINE_BYTES, run.lines * LINE_BYTES);
}

int image_log_lines(struct image *i, struct log *log, const void *page, const void *before, uint64_t offset,
                    uint64_t changed, unsigned flags)
{
    struct diff_run run;
    if (!changed)
        return 0;
    if (!~changed)
        return log_page(log, offset, page, flags);
    look_ahead(i->after, page, before, changed);
    uint32_t sum = sums_page(i->after);
    while (diff_next(&changed, &run)) {
        uint64_t at = run.first * LINE_BYTES;
        int r = log_lines(log, offset + at, i->after + at, run.lines, sum, flags);
        if (r)
            return r;
    }
    return 0;
}

static int log_range(struct image *i, struct log *log, uint64_t offset, uint64_t bytes)
{
    for (uint64_t end = offset + bytes; offset < end; offset += PAGE_BYTES) {
        const uint8_t *now = (const uint8_t *)i->meta + offset;
        uint64_t changed = diff_page(now, i->twin + offset);
        if (!changed)
            continue;
        /* A page that is all zero may be a hole of the file. */
        unsigned flags = diff_page(i->twin + offset, NULL) ? 0 : LOG_NEW;
        int r = image_log_lines(i, log, now, i->twin + offset, offset, changed, flags);
        if (r)
            return r;
    }
    return 0;
}

int image_log_punches(struct image *i, struct log *log)
{
    for (size_t p = 0; p < i->punch_count; p++) {
        int r = log_punch(log, i->punches[p].offset, i->punches[p].bytes);
        if (r)
            return r;
    }
    i->punch_count = 0;
    return 0;
}

int image_log_meta(struct image *i, struct log *log)
{
    if (i->layout_changed)
        i->meta->layout_sum = layout_sum(i);
    int r = log_range(i, log, 0, PAGE_BYTES);
    if (!r)
        r = log_range(i, log, CHUNK_AT, i->meta->chunks * sizeof(struct chunk));
    if (r || !i->layout_changed)
        return r;
    i->layout_changed = false;
    if ((r = log_range(i, log, AREA_AT, i->meta->areas * sizeof(struct area))) ||
        (r = log_range(i, log, FILE_AT, i->meta->files * sizeof(struct file))))
        return r;
    return log_range(i, log, VDSO_AT, i->meta->vdso_bytes);
}
