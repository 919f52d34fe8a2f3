/* Size classes: 16 to 128 in steps of 16, then four for each doubling, up to 32 KiB. */
#ifndef KEN_HEAP_ALLOC_CLASS_H
#define KEN_HEAP_ALLOC_CLASS_H

#include <stddef.h>
#include <stdint.h>

#define CLASSES 40
#define CLASS_LARGEST 32768UL
#define CLASS_MOST_OBJECTS 256 /* in one span: four words of bitmap */

/* For sizes up to CLASS_LARGEST. */
static inline unsigned class_of(size_t bytes)
{
    size_t last = bytes - (bytes != 0);
    if (last < 128)
        return (unsigned)(last >> 4);
    unsigned power = 63U - (unsigned)__builtin_clzl(last);
    return 8 + (power - 7) * 4 + ((last >> (power - 2)) & 3);
}

static inline uint32_t class_size(unsigned class)
{
    if (class < 8)
        return (class + 1) * 16;
    unsigned power = 7 + (class - 8) / 4;
    return (4 + (class - 8) % 4 + 1) << (power - 2);
}

/* How many pages a span of that class has: up to 256 objects or 64 KiB, but at least 8 objects;
 * chosen so that hardly anything is left over at the end. */
static inline uint32_t class_pages(unsigned class)
{
    uint32_t size = class_size(class);
    if (size <= 256)
        return size * CLASS_MOST_OBJECTS / 4096;
    if (size <= 4096)
        return 16;
    return size * (size <= 8192 ? 16 : 8) / 4096;
}

static inline uint32_t class_objects(unsigned class)
{
    return class_pages(class) * 4096 / class_size(class);
}

#endif
