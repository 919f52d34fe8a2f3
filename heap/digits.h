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

/* Decimal ones. */
static inline uint64_t digits_decimal(const char **at)
{
    uint64_t value = 0;
    for (; **at >= '0' && **at <= '9'; ++*at)
        value = value * 10 + (uint64_t)(**at - '0');
    return value;
}

#endif
