/* The rules of layout_meta.h, one by one. */
#include "heap/kenctl_saved.h"
#include "heap/say.h"
#include "heap/sums.h"
#include "heap/sys.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { USER_BITS = 47, TOLD_MOST = 20, LOOKS = 8, LOOK_PAUSE_US = 2000 };

struct findings {
    const struct saved *saved;
    unsigned count;
    bool tell;
};

__attribute__((format(printf, 2, 3))) static void find(struct findings *f, const char *format, ...)
{
    char line[1024];
    if (f->count++ >= TOLD_MOST || !f->tell)
        return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    say("the store %s is damaged: %s", f->saved->store.path, line);
}

static int by_number(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static unsigned count_bits(const struct chunk *chunk)
{
    unsigned bits = 0;
    for (size_t i = 0; i < CHUNK_PAGES / 64; i++)
        bits += (unsigned)__builtin_popcountll(chunk->present[i]);
    return bits;
}

static void check_chunks(struct findings *f)
{
    const struct saved *s = f->saved;
    uint64_t *numbers = calloc(s->meta->chunks + 1, sizeof *numbers);
    size_t used = 0;
    for (uint32_t i = 0; i < s->meta->chunks; i++) {
        const struct chunk *chunk = &s->chunks[i];
        unsigned bits = count_bits(chunk);
        if (chunk->pages != bits)
            find(f, "slot %u counts %lu pages, but has %u", i, chunk->pages, bits);
        if (chunk->number == CHUNK_FREE)
            continue;
        if (chunk->number >> (USER_BITS - CHUNK_SHIFT))
            find(f, "slot %u is for an impossible address", i);
        if (layout_slot(i) + CHUNK_BYTES > s->bytes && bits)
            find(f, "slot %u lies beyond the end of the image", i);
        if (numbers)
            numbers[used++] = chunk->number;
    }
    if (numbers)
        qsort(numbers, used, sizeof *numbers, by_number);
    for (size_t i = 1; i < used; i++)
        if (numbers[i] == numbers[i - 1])
            find(f, "two slots are for address 0x%lx", numbers[i] << CHUNK_SHIFT);
    free(numbers);
}

static void check_areas(struct findings *f)
{
    const struct saved *s = f->saved;
    uint64_t end = 0;
    for (uint32_t i = 0; i < s->meta->areas; i++) {
        const struct area *a = &s->areas[i];
        bool of_file = a->kind == AREA_FILE_PRIVATE || a->kind == AREA_FILE_SHARED;
        if (a->start >= a->end || (a->start | a->end | a->offset) & (PAGE_BYTES - 1) ||
            a->end >> USER_BITS)
            find(f, "mapping %u has impossible bounds 0x%lx-0x%lx", i, a->start, a->end);
        else if (a->start < end)
            find(f, "mapping %u at 0x%lx overlaps the one before", i, a->start);
        if (a->kind < AREA_ANONYMOUS || a->kind > AREA_SHARED_ANONYMOUS)
            find(f, "mapping %u is of an unknown kind %u", i, a->kind);
        if (of_file && a->file >= s->meta->files)
            find(f, "mapping %u is of file %u of %u", i, a->file, s->meta->files);
        if (a->prot & ~(uint32_t)(PROT_READ | PROT_WRITE | PROT_EXEC))
            find(f, "mapping %u has impossible protection 0x%x", i, a->prot);
        end = a->end > end ? a->end : end;
    }
}

/* Files that are mapped must be there: their pins, as they were, or the files themselves. */
static void check_files(struct findings *f)
{
    const struct saved *s = f->saved;
    char *used = calloc(s->meta->files + 1, 1);
    for (uint32_t i = 0; used && i < s->meta->areas; i++)
        if ((s->areas[i].kind == AREA_FILE_PRIVATE || s->areas[i].kind == AREA_FILE_SHARED) &&
            s->areas[i].file < s->meta->files)
            used[s->areas[i].file] = 1;
    for (uint32_t i = 0; used && i < s->meta->files; i++) {
        const struct file *file = &s->files[i];
        if (!used[i])
            continue;
        if (!file->pin[0]) {
            if (access(file->path, F_OK) != 0)
                find(f, "%s, which is mapped, is missing", file->path);
            continue;
        }
        int fd = (int)store_pin_open(&s->store, file->pin);
        if (fd < 0)
            find(f, "the pin %s of %s is missing or changed (%s)", file->pin, file->path, say_error(fd));
        else
            close(fd);
    }
    free(used);
}

static void check_context(struct findings *f)
{
    const struct saved *s = f->saved;
    if (s->meta->state == RUN_FINISHED)
        return;
    const struct area *code = saved_area(s, s->meta->context.rip);
    const struct area *stack = saved_area(s, s->meta->context.rsp);
    if (s->meta->state == RUN_NONE || s->meta->state > RUN_FINISHED)
        find(f, "it is in an unknown state %u", s->meta->state);
    if (!code || !(code->prot & PROT_EXEC))
        find(f, "it would go on at 0x%lx, which is no code", s->meta->context.rip);
    if (!stack || !(stack->prot & PROT_WRITE))
        find(f, "its stack pointer 0x%lx is no stack", s->meta->context.rsp);
}

/* The program that runs may be writing the page, or have done so since the store was opened: its file is looked at again. */
static bool agrees_meanwhile(const struct saved *s, uint64_t offset)
{
    static uint8_t page[PAGE_BYTES] __attribute__((aligned(16)));
    uint32_t sum;
    for (int look = 0; look < LOOKS; look++) {
        if (pread(s->store.image_fd, &sum, sizeof sum, (off_t)sums_at(offset)) == sizeof sum &&
            pread(s->store.image_fd, page, sizeof page, (off_t)offset) == sizeof page && sums_hold(page, sum))
            return true;
        usleep(LOOK_PAUSE_US);
    }
    return false;
}

static bool agrees(const struct saved *s, uint64_t offset)
{
    uint64_t at = sums_at(offset);
    if (offset + PAGE_BYTES > s->bytes || at + sizeof(uint32_t) > s->bytes)
        return false;
    return sums_hold(s->image + offset, *(const uint32_t *)(s->image + at)) ||
           (s->holder && agrees_meanwhile(s, offset));
}

static void check_table(struct findings *f, uint64_t at, uint64_t bytes)
{
    for (uint64_t offset = at; offset < at + bytes; offset += PAGE_BYTES)
        if (!agrees(f->saved, offset))
            find(f, "the page of metadata at offset %lu of the image does not agree with its checksum", offset);
}

static void check_sums(struct findings *f)
{
    const struct saved *s = f->saved;
    check_table(f, 0, PAGE_BYTES);
    check_table(f, CHUNK_AT, s->meta->chunks * sizeof(struct chunk));
    check_table(f, AREA_AT, s->meta->areas * sizeof(struct area));
    check_table(f, FILE_AT, s->meta->files * sizeof(struct file));
    check_table(f, VDSO_AT, s->meta->vdso_bytes);
    for (uint32_t slot = 0; slot < s->meta->chunks; slot++) {
        const struct chunk *chunk = &s->chunks[slot];
        for (unsigned page = 0; chunk->number != CHUNK_FREE && page < CHUNK_PAGES; page++) {
            uint64_t offset = layout_slot(slot) + page * PAGE_BYTES;
            if (chunk->present[page / 64] >> (page % 64) & 1 && !agrees(s, offset))
                find(f, "the page at offset %lu of the image, 0x%lx of the program, does not agree with its checksum",
                     offset, (chunk->number << CHUNK_SHIFT) + page * PAGE_BYTES);
        }
    }
}

unsigned saved_check(const struct saved *s, bool tell)
{
    struct findings f = {s, 0, tell};
    check_chunks(&f);
    check_areas(&f);
    check_files(&f);
    check_context(&f);
    check_sums(&f);
    if (f.count > TOLD_MOST && tell)
        say("the store %s: %u more of this kind", s->store.path, f.count - TOLD_MOST);
    return f.count;
}
