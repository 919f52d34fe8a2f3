#include "net/landing.h"
#include "net/pool.h"
#include "heap/fault.h"
#include "heap/say.h"
#include "heap/sys.h"
#include "heap/window.h"

#include <stdint.h>
#include <string.h>

#define LANDING_BYTES (4UL << 20)
#define POOL_SPARE (4 * LANDING_BYTES) /* more than settling may take */

/* What lies in the window, one behind the other in the order of its coming. */
struct item {
    char **owner; /* NULL: dropped */
    uint32_t length, step;
    char bytes[];
};

static struct landing {
    size_t used;
    uint32_t kept;
    char at[LANDING_BYTES] __attribute__((aligned(16)));
} *landing; /* in the window; NULL: not made yet */

void landing_boot(void)
{
    landing = NULL;
}

static struct item *item_at(size_t at)
{
    return (struct item *)(landing->at + at);
}

static bool is_landed(const char *bytes)
{
    return landing && bytes >= landing->at && bytes < landing->at + sizeof landing->at;
}

static struct item *land(size_t length)
{
    size_t step = (sizeof(struct item) + length + 15) & ~15UL;
    if (!landing)
        landing = window_alloc(sizeof *landing);
    if (!landing || step > sizeof landing->at - landing->used || pool_room() < POOL_SPARE)
        return NULL;
    struct item *i = item_at(landing->used);
    *i = (struct item){.length = (uint32_t)length, .step = (uint32_t)step};
    landing->used += step;
    landing->kept++;
    return i;
}

bool landing_keep(char **owner, const void *bytes, size_t length)
{
    struct item *i = land(length);
    char *to = i ? i->bytes : pool_take(length);
    if (!to)
        return false;
    memcpy(to, bytes, length);
    *owner = to;
    if (i)
        i->owner = owner;
    FAULT("landing.kept");
    return true;
}

/* Nothing but what was dropped is in front of the next one: it begins at the front again. */
void landing_drop(char *bytes)
{
    if (!is_landed(bytes)) {
        pool_give(bytes);
        return;
    }
    struct item *i = (struct item *)(bytes - offsetof(struct item, bytes));
    i->owner = NULL;
    if (!--landing->kept)
        landing->used = 0;
}

void landing_settle(void)
{
    if (!landing || MUTANT("landing.left_in_the_window", true, !landing->kept))
        return;
    for (size_t at = 0; at < landing->used; at += item_at(at)->step) {
        struct item *i = item_at(at);
        if (!i->owner)
            continue;
        char *to = pool_copy(i->bytes, i->length);
        if (!to)
            say_die_of(-ENOMEM, "no memory for what peers have sent; what was committed before is safe, start the same command again");
        *i->owner = to;
        FAULT("landing.moved");
    }
    landing->kept = 0;
    landing->used = 0;
    FAULT("landing.settled");
}
