/* Size classes: 16 to 128 in steps of 16, then four for each doubling, up to 32 KiB. */
#ifndef KEN_HEAP_ALLOC_CLASS_H
#define KEN_HEAP_ALLOC_CLASS_H

#include <stddef.h>
#include <stdint.h>

#define CLASSES 40
#define CLASS_LARGEST 32768UL
#define CLASS_MOST_OBJECTS 256 /* in one span: four words of bitmap */
#define CLASS_MOST_CACHED 30

/* The class of an object whose last byte has this number. Without a branch: mixed sizes would
 * mispredict it. Below 128 the first doubling's steps of 16 go on downwards. A macro, so that
 * a table can be made of it. */
#define CLASS_POWER(last) (63U ^ (unsigned)__builtin_clzl((last) | 64UL))
#define CLASS_WITH(last)                                                                           \
    ((CLASS_POWER(last) - 6) * 4 + (unsigned)((last) >> (CLASS_POWER(last) - 2)))

/* For sizes up to CLASS_LARGEST. */
static inline unsigned class_of(size_t bytes)
{
    size_t last = bytes - (bytes != 0);
    return CLASS_WITH(last);
}

static inline uint32_t class_size(unsigned kind)
{
    if (kind < 8)
        return (kind + 1) * 16;
    unsigned power = 7 + (kind - 8) / 4;
    return (4 + (kind - 8) % 4 + 1) << (power - 2);
}

/* How many pages a span of that class has: up to 256 objects or 64 KiB, but at least 8 objects;
 * chosen so that hardly anything is left over at the end. */
static inline uint32_t class_pages(unsigned kind)
{
    uint32_t size = class_size(kind);
    if (size <= 256)
        return size * CLASS_MOST_OBJECTS / 4096;
    if (size <= 4096)
        return 16;
    return size * (size <= 8192 ? 16 : 8) / 4096;
}

/* How many freed ones a heap keeps at hand. */
static inline uint32_t class_cached(unsigned kind)
{
    uint32_t most = 16384 / class_size(kind);
    return most > CLASS_MOST_CACHED ? CLASS_MOST_CACHED : most < 2 ? 2 : most;
}

static inline uint32_t class_objects(unsigned kind)
{
    return class_pages(kind) * 4096 / class_size(kind);
}

#endif
