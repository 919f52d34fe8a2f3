#include "heap/tracker.h"
#include "heap/sys.h"
#include "heap/tracker_backend.h"

#include <string.h>
#include <sys/mman.h>

#define NEW_PASS UINTPTR_MAX

const char *tracker_name(enum tracker_kind kind)
{
    switch (kind) {
    case TRACKER_UFFD:
        return "uffd";
    case TRACKER_SOFTDIRTY:
        return "softdirty";
    case TRACKER_COMPARE:
        return "compare";
    case TRACKER_BEST:
        break;
    }
    return "best";
}

int tracker_named(const char *name)
{
    for (int kind = TRACKER_BEST; kind <= TRACKER_COMPARE; kind++)
        if (!strcmp(name, tracker_name((enum tracker_kind)kind)))
            return kind;
    return -EINVAL;
}

static void reset(struct tracker *t, enum tracker_kind kind)
{
    memset(t, 0, sizeof *t);
    t->kind = kind;
    t->uffd = t->clear_refs = t->pagemap.fd = -1;
    t->walked = NEW_PASS;
}

void tracker_close(struct tracker *t)
{
    if (t->uffd >= 0)
        sys(SYS_close, t->uffd);
    if (t->clear_refs >= 0)
        sys(SYS_close, t->clear_refs);
    if (t->pagemap.fd >= 0)
        pagemap_close(&t->pagemap);
    reset(t, t->kind);
}

/* Whether the page shows up, alone unless everything does: 0, -EOPNOTSUPP, or the error of the scan. */
static long find(struct tracker *t, uintptr_t page, uintptr_t from, uintptr_t to)
{
    struct page_range out[4];
    uintptr_t walked;
    long n = tracker_scan(t, from, to, out, 4, &walked);
    if (n < 0)
        return n;
    bool there = n == 1 && out[0].start <= page && out[0].end > page;
    bool alone = there && out[0].start == page && out[0].end == page + PAGE_BYTES;
    return alone || (there && t->kind == TRACKER_COMPARE) ? 0 : -EOPNOTSUPP;
}

/* 0, trouble, or -EOPNOTSUPP. */
static long try(struct tracker *t, uintptr_t first)
{
    uintptr_t second = first + PAGE_BYTES, end = second + PAGE_BYTES, walked;
    volatile uint8_t *scratch = (volatile uint8_t *)first;
    struct page_range out[1];
    scratch[0] = scratch[PAGE_BYTES] = 1;
    long r = tracker_add(t, first, end);
    if (r < 0)
        return r;
    r = t->kind == TRACKER_COMPARE ? 0 : tracker_scan(t, first, end, out, 1, &walked);
    if (r)
        return r < 0 ? r : -EOPNOTSUPP;
    while ((r = sys(SYS_getrandom, first, 16, 0)) == -EINTR)
        ;
    r = r == 16 ? find(t, first, first, end) : -EOPNOTSUPP;
    if (!r)
        r = sys(SYS_madvise, second, PAGE_BYTES, MADV_DONTNEED);
    if (!r)
        r = find(t, second, first, end);
    if (r)
        return r;
    tracker_remove(t, first, end);
    t->walked = NEW_PASS;
    return 0;
}

/* A write by the kernel and a dropped page, in earnest: kernels have claimed more than they did.
 * Not in the window's own memory: that grows meanwhile, and a mapping that grows is soft-dirty as a whole. */
static long prove(struct tracker *t)
{
    long room = sys(SYS_mmap, NULL, 4 * PAGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (sys_failed(room))
        return room == -EAGAIN ? -ENOMEM : room;
    uintptr_t scratch = (uintptr_t)room + PAGE_BYTES;
    long r = sys(SYS_mprotect, scratch, 2 * PAGE_BYTES, PROT_READ | PROT_WRITE);
    if (!r)
        r = try(t, scratch);
    sys(SYS_munmap, room, 4 * PAGE_BYTES);
    return r;
}

static int try_open(struct tracker *t, enum tracker_kind kind)
{
    reset(t, kind);
    int r = pagemap_open(&t->pagemap);
    if (!r && kind == TRACKER_UFFD)
        r = uffd_open(t);
    if (!r && kind == TRACKER_SOFTDIRTY)
        r = softdirty_open(t);
    if (!r)
        r = (int)prove(t);
    if (!r)
        return (int)kind;
    tracker_close(t);
    return sys_in_trouble(r) ? r : -EOPNOTSUPP;
}

/* For want of memory or descriptors no slower one is taken for the whole run. */
static bool is_short(int r)
{
    return r == -ENOMEM || r == -EMFILE || r == -ENFILE;
}

int tracker_open(struct tracker *t, enum tracker_kind wanted)
{
    if (wanted != TRACKER_BEST)
        return try_open(t, wanted);
    int r = -EOPNOTSUPP, trouble = 0;
    for (int kind = TRACKER_UFFD; r < 0 && !is_short(trouble) && kind <= TRACKER_COMPARE; kind++) {
        r = try_open(t, (enum tracker_kind)kind);
        if (sys_in_trouble(r))
            trouble = r;
    }
    return r < 0 && trouble ? trouble : r;
}

int tracker_open_on(struct tracker *t, enum tracker_kind kind, int pagemap_fd, int clear_refs_fd)
{
    if (kind != TRACKER_SOFTDIRTY && kind != TRACKER_COMPARE)
        return -EOPNOTSUPP;
    reset(t, kind);
    t->clear_refs = clear_refs_fd;
    int r = pagemap_open_on(&t->pagemap, pagemap_fd);
    return r ? r : (int)kind;
}

/* SOFTDIRTY and COMPARE */
static int look(struct tracker *t)
{
    return t->kind == TRACKER_SOFTDIRTY ? softdirty_look(t) : compare_look(t);
}

static int forget(struct tracker *t, uintptr_t start, uintptr_t end)
{
    int r = pages_remove(&t->tracked, start, end);
    if (!r && t->apart.allowed)
        r = apart_forget(t, start, end);
    if (!r && t->held.count)
        r = pages_remove(&t->held, start, end);
    return r || !t->pending.count ? r : pages_remove(&t->pending, start, end);
}

/* What holds memory from the beginning on, so that its being dropped is noticed. */
static int hold(struct tracker *t, uintptr_t start, uintptr_t end)
{
    struct page_range out[64];
    while (start < end) {
        long n = pagemap_populated(&t->pagemap, start, end, out, 64, &start);
        if (n < 0)
            return (int)n;
        for (long i = 0; i < n; i++)
            if (pages_add(&t->held, out[i].start, out[i].end))
                return -ENOMEM;
    }
    return 0;
}

enum manner { PLAIN, SPARSE, SEALED };

static int add(struct tracker *t, uintptr_t start, uintptr_t end, enum manner manner)
{
    if (t->kind != TRACKER_UFFD)
        return forget(t, start, end);
    if (!t->apart.allowed)
        return uffd_add(t, start, end);
    int r = apart_forget(t, start, end);
    if (r)
        return r;
    return manner == SEALED ? apart_seal(t, start, end) : manner == SPARSE ? apart_add(t, start, end) : uffd_add(t, start, end);
}

static int add_tracked(struct tracker *t, uintptr_t start, uintptr_t end, enum manner manner)
{
    if (start >= end)
        return 0;
    int r = add(t, start, end, manner);
    /* Arming the range arms everything: what else was written must be read before. */
    if (!r && t->kind == TRACKER_SOFTDIRTY)
        r = look(t);
    if (!r && t->kind != TRACKER_UFFD)
        r = hold(t, start, end);
    t->walked = NEW_PASS;
    return r ? r : pages_add(&t->tracked, start, end);
}

int tracker_add(struct tracker *t, uintptr_t start, uintptr_t end)
{
    return add_tracked(t, start, end, PLAIN);
}

int tracker_add_sealed(struct tracker *t, uintptr_t start, uintptr_t end)
{
    return add_tracked(t, start, end, SEALED);
}

int tracker_add_sparse(struct tracker *t, uintptr_t start, uintptr_t end)
{
    return add_tracked(t, start, end, SPARSE);
}

int tracker_settle(struct tracker *t, uintptr_t start, uintptr_t end)
{
    return t->apart.allowed && start < end ? apart_settle(t, start, end) : 0;
}

int tracker_join(struct tracker *t, uintptr_t start, uintptr_t end)
{
    return t->apart.allowed && start < end ? apart_join(t, start, end) : 0;
}

int tracker_allow_apart(struct tracker *t, bool allowed)
{
    int r = allowed ? 0 : tracker_join(t, 0, UINTPTR_MAX);
    t->apart.allowed = allowed && t->kind == TRACKER_UFFD;
    return r;
}

int tracker_remove(struct tracker *t, uintptr_t start, uintptr_t end)
{
    if (start >= end)
        return 0;
    if (t->kind == TRACKER_UFFD)
        uffd_remove(t, start, end);
    return forget(t, start, end);
}

int tracker_mark(struct tracker *t, uintptr_t start, uintptr_t end)
{
    int r = 0;
    if (t->kind != TRACKER_UFFD)
        return pages_add_common(&t->pending, &t->tracked, start, end);
    if (t->apart.allowed)
        r = apart_join(t, start, end);
    for (size_t i = pages_find(&t->tracked, start); i < t->tracked.count; i++) {
        const struct page_range *range = &t->tracked.at[i];
        if (r || range->start >= end)
            break;
        r = uffd_mark(t, range->start > start ? range->start : start,
                      range->end < end ? range->end : end);
    }
    return r;
}

/* Where part of it is not registered nothing is done, and the pages are found in their own ways. */
void tracker_expect(struct tracker *t, uintptr_t start, uintptr_t end)
{
    if (t->kind == TRACKER_UFFD && start < end)
        uffd_mark(t, start, end);
}

static long scan_apart(struct tracker *t, uintptr_t from, uintptr_t to, struct page_range *out, size_t capacity,
                       uintptr_t *walk_end)
{
    long given = apart_begin(t, from, to, out, capacity);
    if (given < 0)
        return given;
    long n = apart_scan(t, from, to, out + given, capacity - (size_t)given, walk_end);
    t->walked = *walk_end;
    if (n < 0)
        return n;
    apart_learn(t, out + given, (size_t)n);
    return given + n;
}

long tracker_scan(struct tracker *t, uintptr_t from, uintptr_t to, struct page_range *out,
                  size_t capacity, uintptr_t *walk_end)
{
    if (t->kind == TRACKER_UFFD)
        return t->apart.allowed ? scan_apart(t, from, to, out, capacity, walk_end)
                                : uffd_scan(t, from, to, out, capacity, walk_end);
    if (from < t->walked) {
        int r = look(t);
        if (r)
            return r;
    }
    size_t n = pages_copy(&t->pending, from, to, out, capacity, walk_end);
    pages_remove(&t->pending, from, *walk_end); /* when it fails they are reported twice: fine */
    t->walked = *walk_end;
    return (long)n;
}

long tracker_populated(struct tracker *t, uintptr_t from, uintptr_t to, struct page_range *out,
                       size_t capacity, uintptr_t *walk_end)
{
    if (t->kind == TRACKER_UFFD)
        return uffd_populated(t, from, to, out, capacity, walk_end);
    return pagemap_populated(&t->pagemap, from, to, out, capacity, walk_end);
}
