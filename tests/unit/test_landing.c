/* Where bytes of peers wait: outside of the image until a turn is captured, in the pool from then on; nothing is lost or mixed up. */
#include "net_host.h"

#include "net/landing.h"
#include "net/pool.h"
#include "heap/window.h"

#define WINDOW_ROOM (4UL << 20) /* what the window holds, about */

static void set_up(void)
{
    host_open();
    cr_assert(window_open(0) > 0);
    landing_boot();
}

TestSuite(landing, .init = set_up, .fini = host_close);

static bool in_window(const char *bytes)
{
    return window_holds((uintptr_t)bytes);
}

static bool in_pool(const char *bytes)
{
    uintptr_t start, end;
    pool_span(&start, &end);
    return (uintptr_t)bytes >= start && (uintptr_t)bytes < end;
}

Test(landing, what_is_unread_moves_when_a_turn_is_captured)
{
    char *read, *unread;
    cr_assert(landing_keep(&read, "read", 5));
    cr_assert(landing_keep(&unread, "unread", 7));
    cr_assert(in_window(read) && in_window(unread));
    cr_assert_str_eq(read, "read");
    landing_drop(read);
    landing_settle();
    cr_assert(in_pool(unread));
    cr_assert_str_eq(unread, "unread");
    char *was = unread;
    landing_settle();
    cr_assert_eq(unread, was, "what is in the image stays where it is");
    landing_drop(unread);
    cr_assert_eq(pool_take(7), was, "the block is free again");
}

Test(landing, what_was_read_makes_room_again)
{
    static char bytes[60000];
    char *first;
    cr_assert(landing_keep(&first, bytes, sizeof bytes));
    char *at = first;
    landing_drop(first);
    for (size_t moved = 0; moved < 4 * WINDOW_ROOM; moved += sizeof bytes) {
        char *again;
        cr_assert(landing_keep(&again, bytes, sizeof bytes));
        cr_assert_eq(again, at);
        landing_drop(again);
    }
}

Test(landing, more_than_the_window_holds_goes_to_the_pool)
{
    static char bytes[32768], *kept[3 * WINDOW_ROOM / sizeof bytes];
    size_t count = sizeof kept / sizeof *kept, landed = 0, pooled = 0;
    for (size_t i = 0; i < count; i++) {
        memset(bytes, (int)i, sizeof bytes);
        cr_assert(landing_keep(&kept[i], bytes, sizeof bytes));
        landed += in_window(kept[i]);
        pooled += in_pool(kept[i]);
    }
    cr_assert(landed && pooled && landed + pooled == count);
    landing_settle();
    for (size_t i = 0; i < count; i++) {
        memset(bytes, (int)i, sizeof bytes);
        cr_assert(in_pool(kept[i]) && !memcmp(kept[i], bytes, sizeof bytes));
    }
}

Test(landing, datagrams_without_bytes)
{
    char *one, *other;
    cr_assert(landing_keep(&one, "", 0) && landing_keep(&other, "", 0));
    cr_assert(one && other);
    landing_drop(one);
    landing_settle();
    cr_assert(in_pool(other));
    landing_drop(other);
}

/* A new process finds in the image what was settled, and nothing else; its window is another one. */
Test(landing, a_new_process_has_what_was_settled)
{
    char *settled, *late;
    cr_assert(landing_keep(&settled, "settled", 8));
    landing_settle();
    cr_assert(landing_keep(&late, "late", 5));
    landing_boot();
    cr_assert_str_eq(settled, "settled");
    cr_assert(landing_keep(&late, "anew", 5));
    cr_assert(in_window(late));
    landing_drop(settled);
    landing_settle();
    cr_assert(in_pool(late));
    cr_assert_str_eq(late, "anew");
}

/* Against a model: random pieces are kept, read in any order, captured at any time. */
Test(landing, steps_in_any_order)
{
    enum { SLOTS = 64, STEPS = 200000 };
    static struct {
        char *bytes;
        size_t length;
        unsigned char mark;
    } slots[SLOTS];
    static char piece[50000];
    unsigned seed = 12345;
    for (int step = 0; step < STEPS; step++) {
        unsigned i = (unsigned)rand_r(&seed) % SLOTS;
        if (rand_r(&seed) % 97 == 0)
            landing_settle();
        if (slots[i].bytes) {
            for (size_t k = 0; k < slots[i].length; k += 1 + slots[i].length / 7)
                cr_assert_eq((unsigned char)slots[i].bytes[k], slots[i].mark, "step %d", step);
            landing_drop(slots[i].bytes);
            slots[i].bytes = NULL;
            continue;
        }
        slots[i].length = (size_t)rand_r(&seed) % (rand_r(&seed) % 8 ? 300 : sizeof piece);
        slots[i].mark = (unsigned char)rand_r(&seed);
        memset(piece, slots[i].mark, slots[i].length);
        cr_assert(landing_keep(&slots[i].bytes, piece, slots[i].length));
    }
}
