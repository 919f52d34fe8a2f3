/* The exported malloc family: names, errno, nothing else. The work is done in heap/alloc.h. */
#define _GNU_SOURCE
#include "heap/alloc_fast.h"

#include <errno.h>
#include <malloc.h>
#include <stdlib.h>

#define EXPORT __attribute__((visibility("default")))

EXPORT void *reallocarray(void *p, size_t count, size_t bytes);

static __attribute__((noinline)) void *no_memory(void)
{
    errno = ENOMEM;
    return NULL;
}

static __attribute__((noinline)) void *malloc_slowly(size_t bytes)
{
    void *p = alloc_malloc(bytes);
    return p ? p : no_memory();
}

EXPORT void *malloc(size_t bytes)
{
    void *p = alloc_fast(bytes);
    return likely(p) ? p : malloc_slowly(bytes);
}

EXPORT void free(void *p)
{
    alloc_free_fast(p);
}

EXPORT void *calloc(size_t count, size_t bytes)
{
    void *p = alloc_calloc(count, bytes);
    return likely(p) ? p : no_memory();
}

EXPORT void *realloc(void *p, size_t bytes)
{
    void *moved = alloc_realloc(p, bytes);
    return likely(moved) || (p && !bytes) ? moved : no_memory();
}

EXPORT void *reallocarray(void *p, size_t count, size_t bytes)
{
    size_t total;
    if (__builtin_mul_overflow(count, bytes, &total))
        return no_memory();
    return realloc(p, total);
}

static bool is_power_of_two(size_t x)
{
    return x && !(x & (x - 1));
}

/* glibc rounds an alignment up to a power of two here, and only here. */
EXPORT void *memalign(size_t alignment, size_t bytes)
{
    if (alignment > PTRDIFF_MAX) {
        errno = EINVAL;
        return NULL;
    }
    size_t power = 16;
    while (power < alignment)
        power *= 2;
    void *p = alloc_aligned(power, bytes);
    return likely(p) ? p : no_memory();
}

EXPORT void *aligned_alloc(size_t alignment, size_t bytes)
{
    return memalign(alignment, bytes);
}

EXPORT int posix_memalign(void **result, size_t alignment, size_t bytes)
{
    if (!is_power_of_two(alignment) || alignment % sizeof(void *))
        return EINVAL;
    void *p = alloc_aligned(alignment, bytes);
    if (!p)
        return ENOMEM;
    *result = p;
    return 0;
}

EXPORT void *valloc(size_t bytes)
{
    return memalign(PAGE_BYTES, bytes);
}

EXPORT void *pvalloc(size_t bytes)
{
    if (bytes > PTRDIFF_MAX)
        return no_memory();
    return memalign(PAGE_BYTES, bytes ? PAGE_UP(bytes) : PAGE_BYTES);
}

EXPORT size_t malloc_usable_size(void *p)
{
    return alloc_usable(p);
}
