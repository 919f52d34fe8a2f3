#include "heap/window.h"
#include "heap/sys.h"

#include <sys/mman.h>
#include <sys/random.h>

static uintptr_t base_address;

/* Kept in the window itself: the image's copy of a static would be the last incarnation's. */
static size_t *bump(void)
{
    return (size_t *)base_address;
}

static long map_at(size_t offset, size_t bytes)
{
    return sys(SYS_mmap, base_address + offset, bytes, PROT_READ | PROT_WRITE,
               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
}

static long reserve(uintptr_t at)
{
    return sys(SYS_mmap, at, WINDOW_BYTES, PROT_NONE,
               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
}

/* 32 to 64 TiB lies between where the kernel puts non-PIE/PIE programs and its mmap area. */
static uintptr_t random_place(void)
{
    uint64_t random = 0;
    sys(SYS_getrandom, &random, sizeof random, 0);
    return (1UL << 45) + (random % (1UL << 24)) * (1UL << 21);
}

long window_open(uintptr_t base)
{
    long at = -ENOMEM;
    for (int attempt = 0; attempt < 16; attempt++) {
        at = reserve(base ? base : random_place());
        if (!sys_failed(at) || base)
            break;
    }
    if (sys_failed(at))
        return at;
    base_address = (uintptr_t)at;
    if (sys_failed(map_at(0, PAGE_BYTES)))
        return -ENOMEM;
    *bump() = PAGE_BYTES;
    return at;
}

uintptr_t window_base(void)
{
    return base_address;
}

bool window_holds(uintptr_t address)
{
    return base_address && address - base_address < WINDOW_BYTES;
}

void *window_alloc(size_t bytes)
{
    bytes = PAGE_UP(bytes);
    if (!base_address || *bump() + bytes > WINDOW_TWIN_OFFSET)
        return NULL;
    long at = map_at(*bump(), bytes);
    if (sys_failed(at))
        return NULL;
    *bump() += bytes;
    return (void *)at;
}
