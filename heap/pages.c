#include "heap/pages.h"
#include "heap/sys.h"
#include "heap/window.h"

#include <string.h>

/* Room for `count` ranges. */
static int reserve(struct pages *p, size_t count)
{
    if (count <= p->capacity)
        return 0;
    size_t capacity = p->capacity ? p->capacity : PAGE_BYTES / sizeof *p->at;
    while (capacity < count)
        capacity *= 2;
    struct page_range *at = window_alloc(capacity * sizeof *at);
    if (!at)
        return -ENOMEM;
    if (p->count)
        memcpy(at, p->at, p->count * sizeof *at);
    p->at = at;
    p->capacity = capacity;
    return 0;
}

/* Puts `n` ranges in the place of [from, to). */
static int splice(struct pages *p, size_t from, size_t to, const struct page_range *with, size_t n)
{
    size_t count = p->count - (to - from) + n;
    int r = reserve(p, count);
    if (r)
        return r;
    if (to - from != n && to < p->count)
        memmove(p->at + from + n, p->at + to, (p->count - to) * sizeof *p->at);
    for (size_t i = 0; i < n; i++)
        p->at[from + i] = with[i];
    p->count = count;
    return 0;
}

size_t pages_find(const struct pages *p, uintptr_t address)
{
    size_t low = 0, high = p->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (p->at[middle].end > address)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

int pages_add(struct pages *p, uintptr_t start, uintptr_t end)
{
    if (start >= end)
        return 0;
    struct page_range joined = {start, end};
    if (!p->count || p->at[p->count - 1].end < start)
        return splice(p, p->count, p->count, &joined, 1);
    size_t from = start ? pages_find(p, start - 1) : 0, to = from;
    for (; to < p->count && p->at[to].start <= end; to++) {
        if (p->at[to].start < joined.start)
            joined.start = p->at[to].start;
        if (p->at[to].end > joined.end)
            joined.end = p->at[to].end;
    }
    return splice(p, from, to, &joined, 1);
}

int pages_remove(struct pages *p, uintptr_t start, uintptr_t end)
{
    if (start >= end)
        return 0;
    size_t from = pages_find(p, start), to = from, n = 0;
    struct page_range rest[2];
    for (; to < p->count && p->at[to].start < end; to++) {
        if (p->at[to].start < start)
            rest[n++] = (struct page_range){p->at[to].start, start};
        if (p->at[to].end > end)
            rest[n++] = (struct page_range){end, p->at[to].end};
    }
    return splice(p, from, to, rest, n);
}

int pages_add_common(struct pages *to, const struct pages *from, uintptr_t start, uintptr_t end)
{
    int r = 0;
    for (size_t i = pages_find(from, start); !r && i < from->count && from->at[i].start < end; i++)
        r = pages_add(to, from->at[i].start > start ? from->at[i].start : start,
                      from->at[i].end < end ? from->at[i].end : end);
    return r;
}

int pages_add_missing(struct pages *to, const struct pages *all, const struct pages *without)
{
    int r = 0;
    size_t w = 0;
    for (size_t i = 0; !r && i < all->count; i++) {
        uintptr_t at = all->at[i].start, end = all->at[i].end;
        while (w < without->count && without->at[w].end <= at)
            w++;
        while (!r && at < end) {
            uintptr_t stop =
                w < without->count && without->at[w].start < end ? without->at[w].start : end;
            r = pages_add(to, at, stop);
            if (stop == end)
                break;
            at = without->at[w].end;
            if (at < end)
                w++;
        }
    }
    return r;
}

size_t pages_copy(const struct pages *p, uintptr_t from, uintptr_t to, struct page_range *out,
                  size_t capacity, uintptr_t *walked)
{
    size_t n = 0;
    size_t i = pages_find(p, from);
    for (; n < capacity && i < p->count && p->at[i].start < to; i++) {
        out[n].start = p->at[i].start > from ? p->at[i].start : from;
        out[n].end = p->at[i].end < to ? p->at[i].end : to;
        n++;
    }
    if (i < p->count && p->at[i].start < to)
        *walked = n ? out[n - 1].end : from;
    else
        *walked = to;
    return n;
}
