#include "heap/loose.h"
#include "heap/disk.h"
#include "heap/fault.h"
#include "heap/image.h"
#include "heap/log_inner.h"
#include "heap/sums.h"

struct page_range loose_span;

void loose_claim(uintptr_t start, uintptr_t end)
{
    loose_span = (struct page_range){start, end};
}

bool loose_write(struct loose *l, uintptr_t start, uintptr_t end)
{
    start = PAGE_DOWN(start);
    end = PAGE_UP(end);
    return pages_remove(&l->recorded, start, end) == 0 && pages_remove(&l->owed, start, end) == 0 &&
           pages_remove(&l->older, start, end) == 0 && pages_add(&l->written, start, end) == 0;
}

/* For want of memory they are written once more than needed, or in loose_write() not at all. */
void loose_give_up(struct loose *l, uintptr_t start, uintptr_t end)
{
    pages_remove(&l->owed, start, end);
    pages_remove(&l->older, start, end);
}

static int take(struct image *i, struct log *log, uintptr_t address)
{
    uint64_t offset = image_find(i, address);
    bool present = offset && image_present(i, offset);
    if (!present) {
        if (!offset && !(offset = image_place(i, address)))
            return -ENOSPC;
        image_set_present(i, offset);
    }
    return log_page(log, offset, (const void *)address, RUN_OWED);
}

int loose_take(struct loose *l, struct log *log)
{
    int r = 0;
    struct pages taken = l->written;
    for (size_t k = 0; k < taken.count; k++)
        for (uintptr_t at = taken.at[k].start; !r && at < taken.at[k].end; at += PAGE_BYTES)
            r = take(l->image, log, at);
    l->written = l->recorded;
    l->recorded = taken;
    return r;
}

/* Writes the pages, which lie in one chunk. */
static void put(struct image *i, struct log *log, uintptr_t start, uintptr_t end)
{
    uint32_t sums[CHUNK_PAGES];
    uint64_t offset = image_find(i, start), count = (end - start) / PAGE_BYTES;
    for (uint64_t p = 0; p < count; p++)
        sums[p] = sums_page((const void *)(start + p * PAGE_BYTES));
    for (int error; (error = disk_write(i->fd, (const void *)start, end - start, offset));)
        log_trouble(log, "writing the image of", error);
    FAULT("loose.page");
    for (int error; (error = disk_write(i->fd, sums, count * sizeof *sums, sums_at(offset)));)
        log_trouble(log, "writing the image of", error);
    FAULT("loose.sums");
}

static void put_all(struct image *i, struct log *log, uintptr_t start, uintptr_t end)
{
    while (start < end) {
        uintptr_t stop = (start & ~(CHUNK_BYTES - 1)) + CHUNK_BYTES;
        put(i, log, start, stop < end ? stop : end);
        start = stop;
    }
}

/* Makes all of `from` a part of `to`; what finds no room there is written at once. */
static void move(struct loose *l, struct log *log, struct pages *to, struct pages *from)
{
    for (size_t k = 0; k < from->count; k++)
        if (pages_add(to, from->at[k].start, from->at[k].end))
            put_all(l->image, log, from->at[k].start, from->at[k].end);
    pages_clear(from);
}

void loose_applied(struct loose *l, struct log *log)
{
    move(l, log, &l->owed, &l->recorded);
}

void loose_age(struct loose *l, struct log *log)
{
    move(l, log, &l->older, &l->owed);
}

static void settle(struct loose *l, struct log *log, struct pages *set)
{
    for (size_t k = 0; k < set->count; k++)
        put_all(l->image, log, set->at[k].start, set->at[k].end);
    pages_clear(set);
}

void loose_settle(struct loose *l, struct log *log, bool all)
{
    settle(l, log, &l->older);
    if (all)
        settle(l, log, &l->owed);
    FAULT("loose.settled");
}

void loose_inherit(struct loose *l)
{
    pages_clear(&l->written);
    pages_clear(&l->recorded);
    pages_clear(&l->owed);
    pages_clear(&l->older);
}
