#define _GNU_SOURCE
#include "heap/region.h"
#include "heap/alloc_span.h"
#include "heap/sys.h"

#include <sys/mman.h>
#include <sys/resource.h>

#define REGION_MOST (1UL << 40)
#define REGION_LEAST (1UL << 26)
#define REGION_ALIGN (1UL << 21)
#define STEP_LEAST (64UL << 10)        /* of metadata */
#define STEP_LEAST_OBJECTS (1UL << 20) /* an untouched tracked page costs a marker: 6 us a MiB */
#define STEP_MOST (64UL << 20)

struct region region __attribute__((aligned(64)));

static void (*drop_hook)(uintptr_t, size_t);
static void (*grow_hook)(uintptr_t, size_t);

/* Half of what RLIMIT_AS allows, so that the program's stacks and mappings find room as well. */
static size_t largest_size(void)
{
    struct rlimit limit = {RLIM_INFINITY, RLIM_INFINITY};
    sys(SYS_prlimit64, 0, RLIMIT_AS, NULL, &limit);
    size_t bytes = REGION_MOST;
    while (bytes > REGION_LEAST && limit.rlim_cur != RLIM_INFINITY && bytes > limit.rlim_cur / 2)
        bytes /= 2;
    return bytes;
}

/* 64 to 80 TiB: free on every kernel with 47 bits of addresses, away from programs, libraries and
 * the window (32 to 64 TiB). */
static uintptr_t random_place(void)
{
    uint64_t random = 0;
    sys(SYS_getrandom, &random, sizeof random, 0);
    return (1UL << 46) + (random % (1UL << 23)) * REGION_ALIGN;
}

static long reserve(uintptr_t at, size_t bytes)
{
    return sys(SYS_mmap, at, bytes, PROT_NONE,
               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (at ? MAP_FIXED_NOREPLACE : 0), -1, 0);
}

/* Shares the reservation out: one span a page is the worst case. */
static void lay_out(uintptr_t base, size_t bytes)
{
    const size_t heaps = HEAPS * sizeof(struct heap);
    const size_t share[REGION_STRETCHES] = {
        [REGION_HEAPS] = heaps < bytes / 64 ? heaps : bytes / 64,
        [REGION_MAP] = bytes / PAGE_BYTES * sizeof(uint32_t),
        [REGION_SPANS] = bytes / PAGE_BYTES * sizeof(struct span),
        [REGION_RESTS] = bytes / PAGE_BYTES * sizeof(struct rest),
    };
    uintptr_t at = base;
    for (int i = 0; i < REGION_STRETCHES; i++) {
        struct region_extent *e = &region.extent[i];
        e->start = e->end = at;
        e->limit = i == REGION_OBJECTS ? base + bytes : at + PAGE_UP(share[i]);
        at = e->limit;
    }
    region.objects = region.extent[REGION_OBJECTS].start;
    region.map = (uint32_t *)region.extent[REGION_MAP].start;
    region.spans = (void *)region.extent[REGION_SPANS].start;
    region.bytes = bytes;
    region.base = base;
}

int region_open(void)
{
    if (region.base)
        return 0;
    long at = -ENOMEM;
    size_t bytes = largest_size();
    for (; bytes >= REGION_LEAST; bytes /= 2) {
        for (int attempt = 0; attempt < 4; attempt++) {
            at = reserve(attempt < 3 ? random_place() : 0, bytes);
            if (!sys_failed(at))
                break;
        }
        if (!sys_failed(at))
            break;
    }
    if (sys_failed(at))
        return (int)at;
    /* A huge page would be dirtied, compared and kept resident as a whole. */
    sys(SYS_madvise, at, bytes, MADV_NOHUGEPAGE);
    lay_out((uintptr_t)at, bytes);
    return 0;
}

int region_grow(enum region_stretch stretch, size_t bytes)
{
    struct region_extent *e = &region.extent[stretch];
    size_t have = e->end - e->start;
    if (bytes <= have)
        return 0;
    if (bytes > e->limit - e->start)
        return -ENOMEM;
    size_t least = stretch == REGION_OBJECTS ? STEP_LEAST_OBJECTS : STEP_LEAST;
    size_t step = have / 8;
    step = step < least ? least : step > STEP_MOST ? STEP_MOST : PAGE_UP(step);
    size_t want = PAGE_UP(bytes);
    if (want < have + step)
        want = have + step;
    if (want > e->limit - e->start)
        want = e->limit - e->start;
    long result = sys(SYS_mprotect, e->end, want - have, PROT_READ | PROT_WRITE);
    if (sys_failed(result) && want > PAGE_UP(bytes)) {
        want = PAGE_UP(bytes);
        result = sys(SYS_mprotect, e->end, want - have, PROT_READ | PROT_WRITE);
    }
    if (sys_failed(result))
        return -ENOMEM;
    uintptr_t start = e->end;
    __atomic_store_n(&e->end, e->start + want, __ATOMIC_RELEASE);
    if (stretch == REGION_OBJECTS)
        __atomic_store_n(&region.objects_bytes, want, __ATOMIC_RELAXED);
    if (grow_hook)
        grow_hook(start, want - have);
    return 0;
}

bool region_drop(uintptr_t start, size_t bytes)
{
    long result = sys(SYS_madvise, start, bytes, MADV_DONTNEED);
    if (sys_failed(result)) /* mlocked pages: they stay as they are */
        return false;
    region_dropped(start, bytes);
    return !region.file_backed;
}

uintptr_t region_high_water(void)
{
    return __atomic_load_n(&region.extent[REGION_OBJECTS].end, __ATOMIC_ACQUIRE);
}

bool region_holds(uintptr_t address)
{
    return region.base && address - region.base < region.bytes;
}

void region_set_file_backed(void)
{
    region.file_backed = true;
}

void region_on_drop(void (*hook)(uintptr_t, size_t))
{
    drop_hook = hook;
}

void region_on_grow(void (*hook)(uintptr_t, size_t))
{
    grow_hook = hook;
}

void region_dropped(uintptr_t start, size_t bytes)
{
    if (drop_hook)
        drop_hook(start, bytes);
}
