/* The parser of frames: random bytes, every truncation, every bound. */
#include "net/wire.h"

#include <criterion/criterion.h>
#include <stdlib.h>

static uint64_t seed = 0x9e3779b97f4a7c15;

static uint64_t random_bits(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    return seed ^= seed << 17;
}

static struct wire_head valid(unsigned kind)
{
    uint32_t least, most;
    wire_limits(kind, &least, &most);
    struct wire_head h = {.kind = (uint16_t)kind, .body = least, .sequence = wire_sequenced(kind)};
    return h;
}

Test(wire, each_kind_is_taken_at_its_bounds_and_not_beyond)
{
    static unsigned char bytes[sizeof(struct wire_head) + WIRE_BODY_MAX + 1];
    for (unsigned kind = WIRE_HELLO; kind < WIRE_KINDS; kind++) {
        struct wire_head h = valid(kind), got;
        uint32_t least, most;
        wire_limits(kind, &least, &most);
        for (int side = 0; side < 4; side++) {
            h.body = side < 2 ? least - (side & 1) : most + (side & 1);
            bool fits = h.body >= least && h.body <= most;
            memcpy(bytes, &h, sizeof h);
            long r = wire_parse(bytes, sizeof bytes, &got);
            cr_assert_eq(r, fits ? (long)(sizeof h + h.body) : -EPROTO, "kind %u body %u: %ld", kind, h.body, r);
        }
    }
}

Test(wire, a_truncated_frame_is_waited_for)
{
    unsigned char bytes[sizeof(struct wire_head) + sizeof(struct wire_hello)];
    struct wire_head h = valid(WIRE_HELLO), got;
    memcpy(bytes, &h, sizeof h);
    for (size_t n = 0; n < sizeof bytes; n++)
        cr_assert_eq(wire_parse(bytes, n, &got), 0);
    cr_assert_eq(wire_parse(bytes, sizeof bytes, &got), (long)sizeof bytes);
}

Test(wire, sequence_and_reserved_bits_are_checked)
{
    struct wire_head h = valid(WIRE_SHUTDOWN), got;
    cr_assert_eq(wire_parse(&h, sizeof h, &got), (long)sizeof h);
    h.sequence = 0;
    cr_assert_eq(wire_parse(&h, sizeof h, &got), -EPROTO);
    h = valid(WIRE_SHUTDOWN);
    h.reserved = 1;
    cr_assert_eq(wire_parse(&h, sizeof h, &got), -EPROTO);
    h = valid(WIRE_SHUTDOWN);
    h.flags = 2;
    cr_assert_eq(wire_parse(&h, sizeof h, &got), -EPROTO);
    h = valid(WIRE_ACK);
    h.sequence = 1;
    cr_assert_eq(wire_parse(&h, sizeof h, &got), -EPROTO);
}

/* Whatever comes, the answer is a length within the buffer, 0, or an error; half of the bytes are zero so that some
 * heads are good. The copy ends where the allocation does: a sanitizer sees a read beyond it. */
Test(wire, random_bytes)
{
    long taken = 0;
    for (int round = 0; round < 2000000; round++) {
        size_t n = random_bits() % 160;
        unsigned char *bytes = malloc(n ? n : 1);
        for (size_t i = 0; i < n; i++)
            bytes[i] = random_bits() & 1 ? (unsigned char)random_bits() : 0;
        if (n > 5 && random_bits() & 1) {
            bytes[1] = bytes[2] = bytes[3] = bytes[5] = 0;
            bytes[4] %= WIRE_KINDS + 2;
        }
        struct wire_head h;
        long r = wire_parse(bytes, n, &h);
        cr_assert(r == 0 || r == -EPROTO || (r >= (long)sizeof h && r <= (long)n));
        taken += r > 0;
        free(bytes);
    }
    cr_assert_gt(taken, 100);
}
