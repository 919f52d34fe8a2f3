#include "shim/call_memory.h"
#include "net/trouble.h"
#include "heap/mapping.h"
#include "heap/say.h"
#include "heap/session.h"
#include "heap/window.h"
#include "shim/threads.h"
#include "shim/thread.h"

#include <string.h>
#include <sys/mman.h>

#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#define MADV_GUARD_REMOVE 103
#endif

/* brk is answered here, not by the kernel: after a restore the kernel's own would be the new process's. */
static uintptr_t brk_start, brk_now;

void memory_boot(void)
{
    brk_start = brk_now = (uintptr_t)sys(SYS_brk, 0);
}

static bool touches_window(uintptr_t start, size_t bytes)
{
    uintptr_t base = window_base();
    return start < base + WINDOW_BYTES && start + bytes > base;
}

void memory_dropped(uintptr_t start, size_t bytes)
{
    if (call_passive)
        return;
    thread_self()->inside++;
    bool locked = thread_self()->locked;
    if (!locked)
        threads_lock(); /* behind the allocator's, which nobody takes who holds this one */
    image_drop(&session->image, start, start + bytes);
    if (!locked)
        threads_unlock();
    thread_self()->inside--;
}

void memory_grown(uintptr_t start, size_t bytes)
{
    (void)start;
    (void)bytes;
    if (!call_passive)
        session->areas.stale = true;
}

long call_mmap(struct call *c)
{
    uintptr_t start = (uintptr_t)c->arg[0];
    size_t bytes = PAGE_UP((size_t)c->arg[1]);
    if ((c->arg[3] & MAP_FIXED) && touches_window(start, bytes))
        return -ENOMEM;
    long at = call_raw(c);
    if (!sys_failed(at))
        areas_forget(session, (uintptr_t)at, (uintptr_t)at + bytes);
    return at;
}

long call_munmap(struct call *c)
{
    uintptr_t start = (uintptr_t)c->arg[0];
    size_t bytes = PAGE_UP((size_t)c->arg[1]);
    if (touches_window(start, bytes))
        return -EINVAL;
    long r = call_raw(c);
    if (!sys_failed(r))
        areas_forget(session, start, start + bytes);
    return r;
}

long call_mprotect(struct call *c)
{
    if (touches_window((uintptr_t)c->arg[0], (size_t)c->arg[1]))
        return -ENOMEM;
    int r = tracker_settle(&session->tracker, (uintptr_t)c->arg[0], (uintptr_t)c->arg[0] + PAGE_UP((size_t)c->arg[1]));
    if (r)
        return r;
    session->areas.stale = true;
    return call_raw(c);
}

long call_shmat(struct call *c)
{
    session->areas.stale = true;
    return call_raw(c);
}

/* Pages restored from the image are, to the kernel, private mappings of the image file: dropping one would
 * bring the file's contents back, and growing one would show its neighbour in the file. 1: found, or what ends first behind it; 0: none;
 * -errno: it cannot be told which it is. */
static long find_line(uintptr_t address, struct mapping_line *found)
{
    struct areas *a = &session->areas;
    long length = mapping_read(session->maps_fd, a->text, AREAS_TEXT_BYTES);
    const char *cursor = a->text;
    while (length > 0 && mapping_next(&cursor, a->text + length, found))
        if (found->end > address)
            return 1;
    return length < 0 ? length : 0;
}

static bool from_image(const struct mapping_line *line)
{
    const struct areas *a = &session->areas;
    return !line->shared && line->inode && line->inode == a->image_inode && line->device == a->image_device;
}

static long replace(uintptr_t start, size_t bytes, uint32_t prot, int flags)
{
    return sys(SYS_mmap, start, bytes, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | flags, -1, 0);
}

/* Drops [start, end): image-backed parts become fresh anonymous memory, the kernel drops the others. */
static long drop_restored(uintptr_t start, uintptr_t end, int advice)
{
    struct mapping_line line;
    while (start < end) {
        if (find_line(start, &line) <= 0 || line.start > start)
            return -ENOMEM;
        uintptr_t stop = line.end < end ? line.end : end;
        long r = from_image(&line) ? replace(start, stop - start, line.prot, MAP_FIXED)
                                   : sys(SYS_madvise, start, stop - start, advice);
        if (sys_failed(r))
            return r;
        if (from_image(&line))
            areas_forget(session, start, stop);
        else
            image_drop(&session->image, start, stop);
        start = stop;
    }
    return 0;
}

/* Reading and writing the same is enough; the tracker takes the page for written, and finds it unchanged. */
static void touch(uintptr_t start, uintptr_t end)
{
    if (!sys_failed(sys(SYS_madvise, start, end - start, MADV_POPULATE_WRITE)))
        return;
    for (; start < end; start += PAGE_BYTES)
        __atomic_fetch_or((uint8_t *)start, 0, __ATOMIC_RELAXED);
}

long memory_unshare(void)
{
    const uint32_t both = PROT_READ | PROT_WRITE;
    struct areas *a = &session->areas;
    struct mapping_line line;
    if (!session->resumed || session->unshared)
        return 0;
    long length = mapping_read(session->maps_fd, a->text, AREAS_TEXT_BYTES);
    if (length < 0)
        return length;
    const char *cursor = a->text;
    while (length > 0 && mapping_next(&cursor, a->text + length, &line)) {
        if (!from_image(&line) || window_holds(line.start) || !(line.prot & PROT_READ))
            continue; /* what cannot be read is not seen either */
        bool closed = (line.prot & both) != both;
        long r = closed ? sys(SYS_mprotect, line.start, line.end - line.start, line.prot | both) : 0;
        if (r < 0)
            return r;
        touch(line.start, line.end);
        if (closed)
            trouble_none(sys(SYS_mprotect, line.start, line.end - line.start, line.prot), "protect memory again");
    }
    session->unshared = true;
    return 0;
}

long call_madvise(struct call *c)
{
    uintptr_t start = (uintptr_t)c->arg[0], end = start + PAGE_UP((size_t)c->arg[1]);
    int advice = (int)c->arg[2];
    if (advice == MADV_GUARD_INSTALL || advice == MADV_GUARD_REMOVE)
        return -EINVAL; /* as before Linux 6.13: who wants guards falls back to mprotect, which a restore knows */
    /* Lazily freed pages would vanish at a moment nobody sees. */
    if (advice == MADV_FREE || advice == MADV_DONTNEED_LOCKED)
        advice = MADV_DONTNEED;
    if (advice != MADV_DONTNEED && advice != MADV_REMOVE)
        return call_raw(c);
    if (touches_window(start, end - start))
        return -EINVAL;
    if (session->resumed && advice == MADV_DONTNEED && start % PAGE_BYTES == 0)
        return drop_restored(start, end, advice);
    long r = sys(SYS_madvise, start, c->arg[1], advice);
    if (!sys_failed(r) || r == -ENOMEM) /* over a hole: what is mapped was dropped all the same */
        image_drop(&session->image, start, end);
    return r;
}

/* Grows what came from the image: in place where there is room, else into new anonymous memory. */
static long grow_restored(uintptr_t old, size_t old_bytes, size_t bytes, int flags, uintptr_t wanted, uint32_t prot)
{
    if (!(flags & MREMAP_FIXED)) {
        long r = replace(old + old_bytes, bytes - old_bytes, prot, MAP_FIXED_NOREPLACE);
        if (r == (long)(old + old_bytes)) {
            areas_forget(session, old + old_bytes, old + bytes);
            return (long)old;
        }
        if (!(flags & MREMAP_MAYMOVE))
            return -ENOMEM;
    }
    long at = replace(wanted, bytes, prot | PROT_READ | PROT_WRITE, flags & MREMAP_FIXED ? MAP_FIXED : 0);
    if (sys_failed(at))
        return at;
    memcpy((void *)at, (const void *)old, old_bytes < bytes ? old_bytes : bytes);
    bool closed = (prot & (PROT_READ | PROT_WRITE)) != (PROT_READ | PROT_WRITE);
    long r = closed ? sys(SYS_mprotect, at, bytes, prot) : 0;
    if (r < 0) {
        sys(SYS_munmap, at, bytes);
        return r;
    }
    sys(SYS_munmap, old, old_bytes);
    areas_forget(session, old, old + old_bytes);
    areas_forget(session, (uintptr_t)at, (uintptr_t)at + bytes);
    return at;
}

long call_mremap(struct call *c)
{
    uintptr_t old = (uintptr_t)c->arg[0];
    size_t old_bytes = PAGE_UP((size_t)c->arg[1]), bytes = PAGE_UP((size_t)c->arg[2]);
    int flags = (int)c->arg[3];
    struct mapping_line line;
    if (touches_window(old, old_bytes) || ((flags & MREMAP_FIXED) && touches_window((uintptr_t)c->arg[4], bytes)))
        return -EINVAL;
    int joined = tracker_join(&session->tracker, old, old + old_bytes);
    if (joined)
        return joined;
    bool asks = session->resumed && (bytes > old_bytes || (flags & MREMAP_FIXED)) && old_bytes;
    long found = asks ? find_line(old, &line) : 0;
    if (found < 0)
        return -ENOMEM;
    if (found && line.start <= old && from_image(&line))
        return grow_restored(old, old_bytes, bytes, flags, (uintptr_t)c->arg[4], line.prot);
    long at = call_raw(c);
    if (sys_failed(at))
        return at;
    if ((uintptr_t)at != old || (flags & MREMAP_FIXED)) {
        areas_forget(session, old, old + old_bytes);
        areas_forget(session, (uintptr_t)at, (uintptr_t)at + bytes);
    } else if (bytes < old_bytes) {
        areas_forget(session, old + bytes, old + old_bytes);
    }
    session->areas.stale = true;
    return at;
}

long call_brk(struct call *c)
{
    uintptr_t wanted = (uintptr_t)c->arg[0], top = PAGE_UP(brk_now);
    if (wanted < brk_start || touches_window(wanted, 0))
        return (long)brk_now;
    if (PAGE_UP(wanted) > top) {
        long at = replace(top, PAGE_UP(wanted) - top, PROT_READ | PROT_WRITE, MAP_FIXED_NOREPLACE);
        if (at != (long)top)
            return (long)brk_now;
        areas_forget(session, top, PAGE_UP(wanted));
    } else if (PAGE_UP(wanted) < top) {
        sys(SYS_munmap, PAGE_UP(wanted), top - PAGE_UP(wanted));
        areas_forget(session, PAGE_UP(wanted), top);
    }
    brk_now = wanted;
    return (long)wanted;
}
