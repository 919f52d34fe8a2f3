#include "net/address_text.h"

#include <arpa/inet.h>

static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};

bool address_scan_number(unsigned *value, const char *text, size_t length, unsigned most)
{
    unsigned long v = 0;
    if (!length || length > 9 || (length > 1 && text[0] == '0'))
        return false;
    for (size_t i = 0; i < length; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        v = v * 10 + (unsigned)(text[i] - '0');
    }
    *value = (unsigned)v;
    return v <= most;
}

static bool scan_v4(uint8_t to[4], const char *text, size_t length)
{
    for (int i = 0; i < 4; i++) {
        const char *dot = i < 3 ? memchr(text, '.', length) : text + length;
        unsigned v;
        if (!dot || !address_scan_number(&v, text, (size_t)(dot - text), 255))
            return false;
        to[i] = (uint8_t)v;
        length -= (size_t)(dot - text) + (i < 3);
        text = dot + (i < 3);
    }
    return true;
}

static int digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* One group of up to four digits; its length, 0 when there is none. */
static size_t scan_group(unsigned *value, const char *text, size_t length)
{
    size_t n = 0;
    *value = 0;
    for (; n < length && n < 5 && digit(text[n]) >= 0; n++)
        *value = *value << 4 | (unsigned)digit(text[n]);
    return n <= 4 ? n : 0;
}

/* Groups of a part without `::`, to[0] on. Returns the bytes that it makes, -1 when it is malformed. */
static int scan_groups(uint8_t *to, int room, const char *text, size_t length)
{
    int made = 0;
    while (length) {
        unsigned v;
        size_t n = scan_group(&v, text, length);
        if (n < length && text[n] == '.' && room - made >= 4)
            return scan_v4(to + made, text, length) ? made + 4 : -1;
        if (!n || room - made < 2)
            return -1;
        to[made++] = (uint8_t)(v >> 8);
        to[made++] = (uint8_t)v;
        text += n;
        length -= n;
        if (length && (*text != ':' || length == 1))
            return -1;
        text += length > 0;
        length -= length > 0;
    }
    return made;
}

static const char *find_gap(const char *text, size_t length)
{
    for (size_t i = 0; i + 1 < length; i++)
        if (text[i] == ':' && text[i + 1] == ':')
            return text + i;
    return NULL;
}

static bool scan_v6(uint8_t to[16], const char *text, size_t length)
{
    uint8_t behind[16];
    const char *gap = find_gap(text, length);
    if (!gap)
        return scan_groups(to, 16, text, length) == 16;
    size_t before = (size_t)(gap - text);
    int head = memchr(text, '.', before) ? -1 : scan_groups(to, 14, text, before);
    int tail = head < 0 ? -1 : scan_groups(behind, 14 - head, gap + 2, length - before - 2);
    if (tail < 0)
        return false;
    memset(to + head, 0, 16 - (size_t)head);
    memcpy(to + 16 - tail, behind, (size_t)tail);
    return true;
}

bool address_scan(struct wire_address *a, const char *text, size_t length)
{
    *a = (struct wire_address){0};
    if (length && memchr(text, ':', length))
        return scan_v6(a->bytes, text, length);
    memcpy(a->bytes, mapped, sizeof mapped);
    return length && scan_v4(a->bytes + 12, text, length);
}

static char *put_number(char *at, unsigned value, unsigned base)
{
    char digits[12];
    int n = 0;
    do
        digits[n++] = "0123456789abcdef"[value % base];
    while (value /= base);
    while (n)
        *at++ = digits[--n];
    return at;
}

/* The longest run of zero groups, which is left out; one group alone is not. Source: RFC 5952, section 4.2. */
static int find_zeros(const uint8_t *b, int *groups)
{
    int best = -1;
    *groups = 1;
    for (int i = 0; i < 8; i++) {
        int n = 0;
        while (i + n < 8 && !b[2 * (i + n)] && !b[2 * (i + n) + 1])
            n++;
        if (n > *groups) {
            best = i;
            *groups = n;
        }
    }
    return best;
}

static char *put_v6(char *at, const uint8_t *b)
{
    int groups, gap = find_zeros(b, &groups);
    for (int i = 0; i < 8; i++) {
        if (i == gap) {
            *at++ = ':';
            i += groups - 1;
            if (i == 7)
                *at++ = ':';
            continue;
        }
        if (i)
            *at++ = ':';
        at = put_number(at, (unsigned)(b[2 * i] << 8 | b[2 * i + 1]), 16);
    }
    return at;
}

size_t address_print(char to[ADDRESS_TEXT], const struct wire_address *a)
{
    char *at = to;
    bool v4 = !memcmp(a->bytes, mapped, sizeof mapped);
    if (!v4 && a->port)
        *at++ = '[';
    if (!v4)
        at = put_v6(at, a->bytes);
    for (int i = 12; v4 && i < 16; i++) {
        at = put_number(at, a->bytes[i], 10);
        *at = '.';
        at += i < 15;
    }
    if (!v4 && a->port)
        *at++ = ']';
    if (a->port) {
        *at++ = ':';
        at = put_number(at, ntohs(a->port), 10);
    }
    *at = '\0';
    return (size_t)(at - to);
}
