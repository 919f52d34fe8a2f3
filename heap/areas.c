#include "heap/areas.h"
#include "heap/fault.h"
#include "heap/loose.h"
#include "heap/mapping.h"
#include "heap/region.h"
#include "heap/say.h"
#include "heap/session.h"
#include "heap/sys.h"
#include "heap/vdso.h"
#include "heap/window.h"

#include <string.h>
#include <sys/mman.h>

#define SPAN_MAX (1u << 18)
#define SPARSE_BYTES (4UL << 30) /* larger ones are tracked only if they are well filled */

struct session *session;

int areas_open(struct areas *a)
{
    memset(a, 0, sizeof *a);
    a->known = window_alloc(SPAN_MAX * sizeof *a->known);
    a->sparse = window_alloc(SPAN_MAX * sizeof *a->sparse);
    a->shared = window_alloc(SPAN_MAX * sizeof *a->shared);
    a->text = window_alloc(AREAS_TEXT_BYTES);
    if (!a->known || !a->sparse || !a->shared || !a->text)
        return -ENOMEM;
    a->stale = true;
    return 0;
}

/* The first known span that ends behind `address`. */
static size_t known_from(const struct areas *a, uintptr_t address)
{
    size_t low = 0, high = a->known_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (a->known[middle].end > address)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

/* Replaces spans [from, to) by `with` (0 to 2 of them). */
static bool known_splice(struct areas *a, size_t from, size_t to, const struct span *with, size_t count)
{
    if (a->known_count - (to - from) + count > SPAN_MAX)
        return false;
    memmove(&a->known[from + count], &a->known[to], (a->known_count - to) * sizeof *a->known);
    memcpy(&a->known[from], with, count * sizeof *with);
    a->known_count += count - (to - from);
    return true;
}

static void known_add(struct areas *a, uintptr_t start, uintptr_t end)
{
    size_t from = known_from(a, start ? start - 1 : 0), to = from;
    struct span joined = {start, end};
    for (; to < a->known_count && a->known[to].start <= end; to++) {
        if (a->known[to].start < joined.start)
            joined.start = a->known[to].start;
        if (a->known[to].end > joined.end)
            joined.end = a->known[to].end;
    }
    known_splice(a, from, to, &joined, 1);
}

static void known_remove(struct areas *a, uintptr_t start, uintptr_t end)
{
    size_t from = known_from(a, start), to = from, rest = 0;
    struct span left[2];
    for (; to < a->known_count && a->known[to].start < end; to++) {
        if (a->known[to].start < start)
            left[rest++] = (struct span){a->known[to].start, start};
        if (a->known[to].end > end)
            left[rest++] = (struct span){end, a->known[to].end};
    }
    known_splice(a, from, to, left, rest);
}

void areas_forget(struct session *s, uintptr_t start, uintptr_t end)
{
    known_remove(&s->areas, start, end);
    tracker_remove(&s->tracker, start, end);
    MUTANT("image.drop_forgotten", (void)0, image_drop(&s->image, start, end));
    s->areas.stale = true;
}

/* Calls take() for the pages of [start, end) that hold private memory. */
static int take_populated(struct session *s, uintptr_t start, uintptr_t end,
                          int (*take)(struct session *, uintptr_t, uintptr_t))
{
    struct page_range ranges[128];
    while (start < end) {
        uintptr_t walked = end;
        long n = tracker_populated(&s->tracker, start, end, ranges, 128, &walked);
        if (n < 0)
            return (int)n;
        for (long i = 0; i < n; i++) {
            int r = take(s, ranges[i].start, ranges[i].end);
            if (r)
                return r;
        }
        start = walked;
    }
    return 0;
}

/* Calls take() for the pages of [start, end) that can be read: all of a file's up to its end. */
static int take_existing(struct session *s, uintptr_t start, uintptr_t end,
                         int (*take)(struct session *, uintptr_t, uintptr_t))
{
    for (uintptr_t at = start; at < end; at += PAGE_BYTES) {
        if (sys_failed(sys(SYS_madvise, at, PAGE_BYTES, MADV_POPULATE_READ)))
            return take_populated(s, at, end, take);
        int r = take(s, at, at + PAGE_BYTES);
        if (r)
            return r;
    }
    return 0;
}

/* Positive: something lies there; 0; or -errno. */
static long is_populated(struct session *s, uintptr_t start, uintptr_t end)
{
    struct page_range range;
    uintptr_t walked = end;
    return tracker_populated(&s->tracker, start, end, &range, 1, &walked);
}

/* Those parts of a private mapping that are not known yet. `whole`: not only what was written to, but all that it shows. */
static int track_new(struct session *s, const struct mapping_line *line, bool whole,
                     int (*take)(struct session *, uintptr_t, uintptr_t))
{
    struct areas *a = &s->areas;
    bool closed = line->prot == PROT_NONE;
    uintptr_t at = line->start;
    /* What the region has in reserve was never touched: looking there takes seconds before Linux 6.7. */
    if (closed && region_holds(at) && (at = region.base + region.bytes) >= line->end)
        return 0;
    long there = closed && line->end - at > SPARSE_BYTES ? is_populated(s, at, line->end) : 1;
    if (there <= 0)
        return (int)there;
    if (line->end - at > SPARSE_BYTES && a->sparse_count < SPAN_MAX && known_from(a, at) == known_from(a, line->end)) {
        a->sparse[a->sparse_count++] = (struct span){at, line->end};
        return 0;
    }
    while (at < line->end) {
        size_t next = known_from(a, at);
        bool have = next < a->known_count;
        if (have && a->known[next].start <= at) {
            at = a->known[next].end;
            continue;
        }
        uintptr_t stop = have && a->known[next].start < line->end ? a->known[next].start : line->end;
        /* An inaccessible reservation is left alone until something lies in it. */
        if ((there = closed ? is_populated(s, at, stop) : 1) < 0)
            return (int)there;
        if (!there) {
            at = stop;
            continue;
        }
        bool loose = loose_holds(at), sealed = (line->prot & (PROT_READ | PROT_WRITE)) == PROT_READ;
        if (stop > loose_span.start && at < loose_span.start)
            stop = loose_span.start;
        else if (loose && stop > loose_span.end)
            stop = loose_span.end;
        int r = loose         ? 0
                : sealed      ? tracker_add_sealed(&s->tracker, at, stop)
                : line->inode ? tracker_add(&s->tracker, at, stop) /* what was restored would be read by the table */
                              : tracker_add_sparse(&s->tracker, at, stop);
        if (r < 0)
            return r;
        if ((r = whole ? take_existing(s, at, stop, take) : take_populated(s, at, stop, take)))
            return r;
        known_add(a, at, stop);
        at = stop;
    }
    return 0;
}

/* After a restore the kernel's list shows the pinned file: `<store>/pin/<name>`. How it calls the store depends on the root
 * directory, which the program may have changed; the name says enough. */
static bool find_pin(const struct session *s, const struct mapping_line *line, uint32_t *index)
{
    static const char folder[] = "/pin/";
    const struct image *i = &s->image;
    size_t length = STORE_PIN_BYTES - 1, before = sizeof folder - 1;
    const char *name = line->name + line->name_length - length;
    if (line->name_length <= before + length || memcmp(name - before, folder, before) != 0)
        return false;
    for (uint32_t f = 0; f < i->meta->files; f++) {
        if (i->files[f].pin[0] && !memcmp(i->files[f].pin, name, length)) {
            *index = f;
            return true;
        }
    }
    return false;
}

/* What nobody can find by a path: anonymous shared memory (shown as /dev/zero), memfd, System V, a deleted file. */
static bool is_nameless(const struct mapping_line *line)
{
    static const char deleted[] = " (deleted)";
    size_t length = sizeof deleted - 1;
    return line->name_length >= length && !memcmp(line->name + line->name_length - length, deleted, length);
}

/* The file of a mapping that was deleted or replaced since: its pin keeps it, and its inode's number. What is mapped shared is
 * never pinned: a copy would be another file. */
static bool is_file(const struct file *file, const struct mapping_line *line)
{
    bool shared = !file->pin[0] && !file->unpinned;
    if (file->device != line->device || file->inode != line->inode || shared != line->shared)
        return false;
    bool same_name = strlen(file->path) == line->name_length && !memcmp(file->path, line->name, line->name_length);
    return same_name || (file->pin[0] && !line->shared && is_nameless(line));
}

static bool find_file(const struct session *s, const struct mapping_line *line, uint32_t *index)
{
    const struct image *i = &s->image;
    if (find_pin(s, line, index))
        return true;
    for (*index = 0; *index < i->meta->files; ++*index)
        if (is_file(&i->files[*index], line))
            return true;
    return false;
}

/* The file table's entry for the file behind the line; pinned in the store if it is mapped privately. */
static int file_index(struct session *s, const struct mapping_line *line, uint32_t *index)
{
    struct image *i = &s->image;
    if (find_file(s, line, index))
        return 0;
    struct file *file = &i->files[i->meta->files];
    if (i->meta->files == FILE_MAX || line->name_length >= sizeof file->path)
        return -ENAMETOOLONG;
    memset(file, 0, sizeof *file);
    file->device = line->device;
    file->inode = line->inode;
    memcpy(file->path, line->name, line->name_length);
    if (!line->shared) {
        int r = store_pin(&s->store, file->path, 0, line->inode, file->pin);
        if (r) {
            say("cannot pin %s in the store (%s); a restart will need it unchanged", file->path,
                say_error(r));
            file->pin[0] = '\0';
            file->unpinned = 1; /* not tried again for each of its mappings */
        }
    }
    *index = i->meta->files++;
    return 0;
}

static enum area_kind classify(const struct areas *a, const struct mapping_line *line)
{
    if (vdso_is_piece(line) || mapping_named(line, "[vsyscall]") ||
        (line->name_length >= 10 && !memcmp(line->name, "anon_inode", 10)))
        return 0;
    if (line->shared)
        return is_nameless(line) ? AREA_SHARED_ANONYMOUS : AREA_FILE_SHARED;
    if (line->inode == a->image_inode && line->device == a->image_device)
        return AREA_ANONYMOUS;
    if (mapping_named(line, "[stack]"))
        return AREA_STACK;
    return line->inode ? AREA_FILE_PRIVATE : AREA_ANONYMOUS;
}

/* A private mapping of a file that is gone, and that the store does not have: what it shows is kept as memory. */
static bool is_orphan(const struct session *s, const struct mapping_line *line)
{
    uint32_t index;
    return is_nameless(line) && !find_file(s, line, &index);
}

static bool area_continues(const struct area *last, const struct area *next)
{
    bool is_memory = next->kind == AREA_ANONYMOUS;
    return is_memory && last->kind == next->kind && last->end == next->start && last->prot == next->prot;
}

static int area_add(struct session *s, const struct mapping_line *line, enum area_kind kind)
{
    struct image *i = &s->image;
    struct area area = {.start = line->start, .end = line->end, .prot = line->prot, .kind = (uint16_t)kind};
    if (kind == AREA_FILE_PRIVATE || kind == AREA_FILE_SHARED) {
        area.offset = line->offset;
        int r = file_index(s, line, &area.file);
        if (r)
            return r;
    }
    struct area *last = i->meta->areas ? &i->areas[i->meta->areas - 1] : NULL;
    /* What grew while it was being tracked stands in a line of its own. Nothing else can lie there: the kernel keeps a
     * gap below a stack. */
    while (kind == AREA_STACK && last && last->kind == AREA_ANONYMOUS && last->end == area.start) {
        area.start = last->start;
        last = --i->meta->areas ? last - 1 : NULL;
    }
    if (kind == AREA_STACK)
        s->areas.stack = (struct span){area.start, area.end};
    if (last && area_continues(last, &area)) {
        last->end = area.end;
        return 0;
    }
    if (i->meta->areas == AREA_MAX)
        return -ENOMEM;
    i->areas[i->meta->areas++] = area;
    return 0;
}

/* The main stack keeps its kind after a restore, when the kernel no longer calls it [stack]. */
static bool is_stack(const struct session *s, const struct mapping_line *line)
{
    uintptr_t top = s->image.meta->start_stack;
    return line->start <= top && top < line->end;
}

/* Which device and inode the kernel's list shows for the image; stat() may show another device. */
static void find_image(struct areas *a, const char *text, const char *end)
{
    struct mapping_line line;
    while (!a->image_inode && mapping_next(&text, end, &line)) {
        if (line.start == (uintptr_t)window_twin(window_base())) {
            a->image_device = line.device;
            a->image_inode = line.inode;
        }
    }
}

void areas_inherit(struct session *s)
{
    s->areas.known_count = s->areas.sparse_count = s->areas.shared_count = 0;
    s->areas.stale = true;
}

void areas_pin(struct session *s)
{
    struct areas *a = &s->areas;
    struct mapping_line line;
    uint32_t index;
    long length = mapping_read(s->maps_fd, a->text, AREAS_TEXT_BYTES);
    const char *cursor = a->text;
    while (length > 0 && mapping_next(&cursor, a->text + length, &line)) {
        bool ours = window_holds(line.start) || vdso_holds(s->image.meta, line.start);
        if (!ours && classify(a, &line) == AREA_FILE_PRIVATE)
            file_index(s, &line, &index);
    }
}

int areas_refresh(struct session *s, int (*take)(struct session *, uintptr_t, uintptr_t))
{
    struct areas *a = &s->areas;
    long length = mapping_read(s->maps_fd, a->text, AREAS_TEXT_BYTES);
    if (length < 0)
        return (int)length;
    find_image(a, a->text, a->text + length);
    if (!s->image.meta->vdso_pieces)
        vdso_record(&s->image, a->text, a->text + length);
    s->image.meta->areas = 0;
    a->sparse_count = a->shared_count = 0;
    pages_clear(&a->closed);
    const char *cursor = a->text;
    struct mapping_line line;
    while (mapping_next(&cursor, a->text + length, &line)) {
        bool ours = window_holds(line.start) || vdso_holds(s->image.meta, line.start);
        enum area_kind kind = ours ? 0 : classify(a, &line);
        if (!kind)
            continue;
        if (kind == AREA_ANONYMOUS && is_stack(s, &line))
            kind = AREA_STACK;
        bool orphan = kind == AREA_FILE_PRIVATE && is_orphan(s, &line);
        if (orphan)
            kind = AREA_ANONYMOUS;
        int r = area_add(s, &line, kind);
        if (!r && !line.shared && !(line.prot & PROT_READ))
            r = pages_add(&a->closed, line.start, line.end);
        if (!r && (kind == AREA_ANONYMOUS || kind == AREA_STACK || kind == AREA_FILE_PRIVATE))
            r = track_new(s, &line, orphan, take);
        if (r)
            return r;
        if (kind == AREA_SHARED_ANONYMOUS && (line.prot & PROT_READ) && a->shared_count < SPAN_MAX)
            a->shared[a->shared_count++] = (struct span){line.start, line.end};
    }
    s->tracker.apart.whole = (struct page_range){a->stack.start, a->stack.end};
    s->image.layout_changed = true;
    a->stale = false;
    return 0;
}

/* No record is being made: the next commit takes them. */
static int mark_written(struct session *s, uintptr_t from, uintptr_t to)
{
    return tracker_mark(&s->tracker, from, to);
}

void areas_resume(struct session *s)
{
    s->areas.known_count = 0;
    if (areas_refresh(s, mark_written))
        s->areas.known_count = 0; /* the next commit does all of it, or tells why it cannot */
    s->areas.stale = true;        /* the kernel's side is not made again yet */
}
