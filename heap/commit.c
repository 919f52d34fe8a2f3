#include "heap/commit.h"
#include "heap/context.h"
#include "heap/diff.h"
#include "heap/fault.h"
#include "heap/say.h"
#include "heap/sys.h"
#include "heap/window.h"

#include <time.h>

#define USER_END 0x7ffffffff000UL

/* The page, or what it holds where the program itself could not read it now. */
static const void *look_at(struct session *s, uintptr_t address)
{
    if (!pages_hold(&s->areas.closed, address))
        return (const void *)address;
    long n = sys(SYS_pread64, s->memory_fd, s->closed_page, PAGE_BYTES, address);
    return MUTANT("commit.closed_missed", false, n == PAGE_BYTES) ? s->closed_page : NULL;
}

/* Puts what changed in one page into the record. */
static int take_page(struct session *s, uintptr_t address)
{
    struct image *i = &s->image;
    bool loose = loose_holds(address);
    if (loose && pages_hold(&s->loose.written, address))
        return 0; /* loose_take() does */
    uint64_t offset = image_find(i, address);
    bool present = offset && image_present(i, offset);
    if (present && i->unverified.count)
        verify_at(i, offset); /* what it is compared with */
    const void *now = look_at(s, address);
    if (!now)
        return -EIO;
    const void *before = present ? i->twin + offset : NULL;
    /* The record may hold lines of the page already: what libken itself wrote since the areas were refreshed, its own stack at
     * the least, is found once more. Lines that went back to what the twin has would be missed by a second comparison.
     * A loose page that is not there yet and was not written came with a huge page. */
    bool whole = (loose && present) || pages_hold(&s->taken, address) || diff_throughout(now, before);
    uint64_t changed = whole ? ~0UL : diff_page(now, before);
    if (!changed)
        return 0;
    if (!present) {
        if (!offset && !(offset = image_place(i, address)))
            return -ENOSPC;
        MUTANT("image.not_present", (void)0, image_set_present(i, offset));
    }
    changed &= MUTANT("diff.line_missed", ~(1UL << 63), ~0UL);
    return image_log_lines(i, &s->log, now, before, offset, changed, present ? 0 : LOG_NEW);
}

static int take_range(struct session *s, uintptr_t from, uintptr_t to)
{
    const struct span *stack = &s->areas.stack;
    uintptr_t live = layout_live_stack(s->image.meta, stack->start, stack->end);
    for (; from < to; from += PAGE_BYTES) {
        if (from >= stack->start && from < live)
            continue;
        int r = take_page(s, from);
        if (r)
            return r;
    }
    return 0;
}

static int take_new(struct session *s, uintptr_t from, uintptr_t to)
{
    int r = take_range(s, from, to);
    return r ? r : pages_add(&s->taken, from, to);
}

/* One scan over everything: the tracker knows nothing of the window, which is never added to it. */
static int take_written(struct session *s)
{
    struct page_range *ranges = s->ranges;
    uintptr_t from = PAGE_BYTES, to = USER_END;
    while (from < to) {
        uintptr_t walked = to;
        long n = tracker_scan(&s->tracker, from, to, ranges, SESSION_RANGES, &walked);
        if (n < 0)
            return (int)n;
        for (long i = 0; i < n; i++) {
            int r = take_range(s, ranges[i].start + MUTANT("tracker.page_missed", PAGE_BYTES, 0), ranges[i].end);
            if (r)
                return r;
        }
        from = walked;
    }
    return 0;
}

static int take_sparse(struct session *s)
{
    struct page_range *ranges = s->ranges;
    for (size_t k = 0; k < s->areas.sparse_count; k++) {
        uintptr_t at = s->areas.sparse[k].start, end = s->areas.sparse[k].end, walked;
        for (; at < end; at = walked) {
            walked = end;
            long n = tracker_populated(&s->tracker, at, end, ranges, SESSION_RANGES, &walked);
            for (long i = 0; i < n; i++) {
                int r = take_range(s, ranges[i].start, ranges[i].end);
                if (r)
                    return r;
            }
            if (n < 0)
                return (int)n;
        }
    }
    return 0;
}

/* Shared memory: every page that exists, whoever wrote it. Beyond the end of a cut memfd none does. */
static int take_shared(struct session *s)
{
    unsigned char resident[1024];
    for (size_t k = MUTANT("commit.shared_missed", s->areas.shared_count, 0); k < s->areas.shared_count; k++) {
        uintptr_t at = s->areas.shared[k].start, end = s->areas.shared[k].end;
        while (at < end) {
            size_t pages = (end - at) / PAGE_BYTES < sizeof resident ? (end - at) / PAGE_BYTES : sizeof resident;
            long known;
            do
                known = sys(SYS_mincore, at, pages * PAGE_BYTES, resident);
            while (known == -EAGAIN);
            if (sys_failed(known))
                return (int)known;
            for (size_t p = 0; p < pages; p++) {
                int r = resident[p] & 1 ? take_page(s, at + p * PAGE_BYTES) : 0;
                if (r)
                    return r;
            }
            at += pages * PAGE_BYTES;
        }
    }
    return 0;
}

static int capture(struct session *s)
{
    struct meta *meta = s->image.meta;
    log_begin(&s->log);
    pages_clear(&s->taken);
    FAULT("commit.begun");
    if (meta->context.rsp < s->areas.stack.start && meta->context.rsp > s->areas.stack.start - (64UL << 20))
        s->areas.stale = true; /* the stack has grown */
    int r = verify_touched(&s->image, &s->tracker.pagemap);
    if (!r)
        r = image_log_punches(&s->image, &s->log);
    if (!r && s->areas.stale)
        r = areas_refresh(s, take_new);
    if (!r)
        r = take_written(s);
    if (!r)
        r = take_sparse(s);
    if (!r)
        r = take_shared(s);
    if (!r)
        r = loose_take(&s->loose, &s->log);
    return r ? r : image_log_meta(&s->image, &s->log);
}

static __attribute__((noinline)) enum commit_result make_durable(struct session *s, enum run_state state,
                                                                   void (*captured)(void))
{
    struct meta *meta = s->image.meta;
    meta->committed_ns = (uint64_t)sys_clock_ns(CLOCK_REALTIME);
    meta->state = state;
    meta->durable_bytes = s->log.synced_bytes;
    meta->turn++;
    int r = capture(s);
    captured();
    FAULT("commit.captured");
    chaos_at(&s->chaos, CHAOS_CAPTURED, meta->turn);
    if (!r)
        r = store_sync_pins(&s->store);
    FAULT("commit.pinned");
    if (!r)
        r = log_commit(&s->log, NULL);
    if (r)
        say_die_of(r, "cannot commit turn %lu (%s); the store keeps the turn before, start the same command again", meta->turn,
                   say_error(r));
    FAULT("commit.durable");
    chaos_at(&s->chaos, CHAOS_DURABLE, meta->turn);
    return COMMIT_DONE;
}

enum commit_result commit(struct session *s, enum run_state state, void (*captured)(void))
{
    if (context_save(&s->image.meta->context))
        return COMMIT_RESUMED;
    return make_durable(s, state, captured);
}

void commit_apply(struct session *s)
{
    FAULT("commit.apply");
    bool resumed = s->log.applied == s->log.sequence; /* somebody waits for the outcome */
    int r = log_apply(&s->log);
    if (r)
        say_die_of(r, "cannot write the image (%s); start the same command again to recover", say_error(r));
    if (!resumed)
        verify_some(&s->image);
}
