/* Two ends of an authenticated connection, and whoever the input says between them.
 *
 * The input is a program for the one in the middle: what to let through, cut, change, repeat, swap, invent. Whatever he
 * does, each side's text must be a beginning of what the other side sealed, in order, and nothing else.
 */
#include "net/auth.h"

#include <stdlib.h>
#include <string.h>

#define WAY 8192 /* bytes on their way to one side */

struct side {
    struct auth auth;
    unsigned char way[WAY];
    size_t used;
    unsigned sealed, opened; /* bytes of text: the n-th is pattern(n) */
    struct side *other;
};

struct input {
    const uint8_t *at;
    size_t left;
};

static struct side sides[2];
static unsigned char kept[WAY]; /* something that was seen earlier */
static size_t kept_used;

static unsigned next(struct input *in)
{
    if (!in->left)
        return 0;
    in->left--;
    return *in->at++;
}

static unsigned char pattern(const struct side *from, unsigned n)
{
    return (unsigned char)(n * 167 + (from == sides ? 1 : 77) + n / 256);
}

static void put(struct side *to, const void *bytes, size_t n)
{
    if (n > WAY - to->used)
        n = WAY - to->used;
    memcpy(to->way + to->used, bytes, n);
    to->used += n;
}

static void say(struct side *s)
{
    unsigned char m[AUTH_MESSAGE_MAX];
    put(s->other, m, auth_say(&s->auth, m));
}

static void seal(struct side *s, size_t n)
{
    unsigned char r[AUTH_OVERHEAD + 256];
    if (!auth_ready(&s->auth) || s->other->used + n + AUTH_OVERHEAD > WAY)
        return;
    for (size_t i = 0; i < n; i++)
        r[AUTH_LENGTH_BYTES + i] = pattern(s, s->sealed + (unsigned)i);
    long length = auth_seal(&s->auth, r, n);
    if (length != (long)n + AUTH_OVERHEAD)
        abort();
    s->sealed += (unsigned)n;
    put(s->other, r, (size_t)length);
}

/* Lets a side read what is on its way to it, up to `limit` bytes. */
static void hear(struct side *s, size_t limit)
{
    size_t plain = 0, seen = s->used < limit ? s->used : limit;
    bool records = auth_ready(&s->auth);
    long n = records ? auth_open(&s->auth, s->way, seen, &plain) : auth_hear(&s->auth, s->way, seen);
    if (n > (long)seen || (n < 0 && auth_ready(&s->auth)))
        abort();
    for (size_t i = 0; records && n > 0 && i < plain; i++, s->opened++)
        if (s->opened >= s->other->sealed || s->way[AUTH_LENGTH_BYTES + i] != pattern(s->other, s->opened))
            abort();
    if (n <= 0)
        return;
    s->used -= (size_t)n;
    memmove(s->way, s->way + n, s->used);
}

static void meddle(struct input *in, struct side *s, unsigned how)
{
    size_t at = s->used ? (next(in) | next(in) << 8) % s->used : 0, n = next(in);
    switch (how) {
    case 0: /* changes a byte */
        if (s->used)
            s->way[at] ^= (unsigned char)n;
        break;
    case 1: /* takes a piece out */
        n = n < s->used - at ? n : s->used - at;
        memmove(s->way + at, s->way + at + n, s->used - at - n);
        s->used -= n;
        break;
    case 2: /* remembers it */
        kept_used = s->used;
        memcpy(kept, s->way, kept_used);
        break;
    case 3: /* says again, to this side, what he remembers */
        put(s, kept, kept_used);
        break;
    case 4: /* invents */
        for (; n && in->left; n--) {
            unsigned char byte = (unsigned char)next(in);
            put(s, &byte, 1);
        }
        break;
    default: /* swaps the ways */
        n = s->used < s->other->used ? s->used : s->other->used;
        for (size_t i = 0; i < n; i++) {
            unsigned char c = s->way[i];
            s->way[i] = s->other->way[i];
            s->other->way[i] = c;
        }
    }
}

static void begin(unsigned keys)
{
    struct auth_key key, wrong;
    auth_make_key(&key, "the one key that both of them have", 34);
    auth_make_key(&wrong, "another", 7);
    memset(sides, 0, sizeof sides);
    kept_used = 0;
    sides[0].other = &sides[1];
    sides[1].other = &sides[0];
    auth_start(&sides[0].auth, keys & 4 ? AUTH_ACCEPTS : AUTH_CONNECTS, &key);
    auth_start(&sides[1].auth, keys & 8 ? AUTH_CONNECTS : AUTH_ACCEPTS, (keys & 3) == 3 ? &wrong : &key);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    unsigned keys = next(&in);
    begin(keys);
    while (in.left) {
        unsigned op = next(&in);
        struct side *s = &sides[op & 1];
        switch (op >> 1 & 7) {
        case 0:
            say(s);
            break;
        case 1:
        case 2:
            hear(s, WAY);
            break;
        case 3:
            hear(s, next(&in));
            break;
        case 4:
            seal(s, next(&in) + 1);
            break;
        default:
            meddle(&in, s, op >> 4 & 7);
        }
    }
    if ((keys & 3) == 3 && (auth_ready(&sides[0].auth) || auth_ready(&sides[1].auth)))
        abort(); /* somebody was convinced by another key */
    for (int i = 0; i < 2; i++)
        auth_end(&sides[i].auth, sides[i].used);
    return 0;
}
