/* Numbers in the kernel's texts. */
#ifndef KEN_HEAP_DIGITS_H
#define KEN_HEAP_DIGITS_H

#include <stdint.h>

/* Reads up to `most` hexadecimal digits, of either case, and moves on behind them. */
static inline uint64_t digits_hex(const char **at, unsigned most)
{
    uint64_t value = 0;
    for (; most; most--, ++*at) {
        unsigned c = (unsigned char)**at, low = c | 32;
        if (c >= '0' && c <= '9')
            value = value << 4 | (c - '0');
        else if (low >= 'a' && low <= 'f')
            value = value << 4 | (low - 'a' + 10);
        else
            break;
    }
    return value;
}

#endif
