/* Large blocks: a run of pages each. A block that realloc has to move gets virtual room behind it
 * (untouched, so neither resident nor logged), so that growing by small steps copies each byte only
 * a few times. Moving pages by mremap was left out: after a restore neighbouring pages belong to
 * different mappings of the image file, which mremap refuses to move as one.
 */
#include "heap/alloc_span.h"

#include <string.h>

#define ROOM_DOUBLE 16384UL /* pages: up to here room is as much again, from there on a quarter */
#define SHRINK_LEAST 16UL   /* pages: less is not worth giving back */

static size_t pages_for(size_t bytes)
{
    return bytes ? PAGE_UP(bytes) / PAGE_BYTES : 1;
}

static void *take(size_t count, size_t room, size_t align, bool *zero)
{
    void *p = NULL;
    lock_take(&alloc_lock);
    uint32_t id = runs_take(count + room, align);
    if (!id && room)
        id = runs_take(count, align);
    if (id) {
        struct span *s = span_at(id);
        s->state = SPAN_LARGE;
        rest_at(id)->used = (uint32_t)count;
        runs_map(id);
        *zero = s->content == CONTENT_ZERO;
        p = (void *)s->start;
    }
    lock_give(&alloc_lock);
    return p;
}

void *large_malloc(size_t bytes, size_t alignment, bool *zero)
{
    if (bytes > PTRDIFF_MAX - PAGE_BYTES || !alloc_heap_mine() || alignment > region.bytes)
        return NULL;
    return take(pages_for(bytes), 0, alignment <= PAGE_BYTES ? 1 : alignment / PAGE_BYTES, zero);
}

void large_free(struct span *s, uintptr_t address)
{
    lock_take(&alloc_lock);
    enum span_state state = s->state;
    bool right = state == SPAN_LARGE && s->start == address;
    if (right)
        runs_give(span_id(s));
    lock_give(&alloc_lock);
    if (right)
        return;
    if (state == SPAN_RUN)
        alloc_abort_pointer("double free", address);
    alloc_abort_pointer(state == SPAN_LARGE ? "free of a pointer into a block"
                                            : "double free, or free of a pointer into a block,",
                        address);
}

/* Fits the block to `count` pages where it lies. */
static bool resize(struct span *s, size_t count)
{
    uint32_t id = span_id(s);
    struct rest *r = rest_at(id);
    bool fits = true;
    lock_take(&alloc_lock);
    if (count < r->used / 2 && r->pages - count >= SHRINK_LEAST)
        runs_shrink(id, count);
    else if (count > r->pages)
        fits = runs_extend(id, count + count / 4) || runs_extend(id, count);
    if (fits)
        r->used = (uint32_t)count;
    lock_give(&alloc_lock);
    return fits;
}

void *large_realloc(struct span *s, void *p, size_t bytes)
{
    struct rest *r = span_rest(s);
    bool zero;
    if (bytes > PTRDIFF_MAX - PAGE_BYTES)
        return NULL;
    size_t used = r->used * PAGE_BYTES, count = pages_for(bytes);
    void *moved;
    if (bytes > CLASS_LARGEST / 2) {
        if (count == r->used || (count <= UINT32_MAX && resize(s, count)))
            return p;
        moved = take(count, count < ROOM_DOUBLE ? count : count / 4, 1, &zero);
    } else {
        moved = alloc_malloc(bytes);
        if (!moved)
            return p;
    }
    if (!moved)
        return NULL;
    memcpy(moved, p, bytes < used ? bytes : used);
    large_free(s, (uintptr_t)p);
    return moved;
}
