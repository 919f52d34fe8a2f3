#include "net/former.h"
#include "net/peers_far.h"
#include "net/pool.h"
#include "heap/say.h"
#include "heap/sys.h"

#define FORMER_MOST 1024 /* peers that never come back are given up, the oldest first */

static struct channel *formers; /* struct former; the oldest first */
static unsigned count;

struct channel *former_first(void)
{
    return formers;
}

static int take_frames(struct channel *c, const struct unsent_channel *u)
{
    const unsigned char *at = unsent_frames(u);
    c->acked = c->ready = c->produced = u->acked;
    while (c->produced < u->produced) {
        struct wire_head h;
        memcpy(&h, at, sizeof h);
        struct iovec body = {(void *)(at + sizeof h), h.body};
        if (channel_produce(c, h, NULL, 0, &body, 1, 0, h.body) < 0)
            return -ENOMEM;
        c->ready = c->produced; /* durable; and kept apart from the next one */
        at += sizeof h + h.body;
    }
    return 0;
}

int former_inherit(const struct unsent_channel *u)
{
    struct former *f = pool_take(sizeof *f);
    if (!f)
        return -ENOMEM;
    *f = (struct former){.self = u->self, .far = u->far, .door = u->door};
    struct channel *c = &f->channel;
    channel_open(c, &u->peer);
    int r = take_frames(c, u);
    c->former = true;
    c->place = u->place;
    c->expected = c->durable = u->expected;
    c->datagrams_sent = u->datagrams_sent;
    c->datagrams_acked = u->datagrams_acked;
    c->datagrams_taken = c->datagrams_taken_durable = u->datagrams_taken;
    struct channel **link = &formers;
    while (*link)
        link = &(*link)->next;
    *link = c;
    if (++count > FORMER_MOST)
        former_drop(formers, "too many peers never came back");
    return r;
}

const struct wire_id *former_self(const struct channel *c)
{
    return c && c->former ? &((const struct former *)c)->self : NULL;
}

const struct wire_address *former_far(const struct channel *c)
{
    const struct former *f = (const struct former *)c;
    return f->far.port ? &f->far : NULL;
}

const struct wire_address *former_door(const struct channel *c)
{
    const struct former *f = (const struct former *)c;
    return f->door.port ? &f->door : NULL;
}

const struct wire_address *former_next(struct channel *c)
{
    return far_choose(former_far(c), former_door(c), &((struct former *)c)->dials);
}

bool former_waits(const struct wire_id *peer, const struct channel *before)
{
    const struct channel *c = formers;
    for (; c && c != before; c = c->next)
        if (wire_same_id(&c->peer, peer))
            return true;
    return false;
}

void former_drop(struct channel *c, const char *why)
{
    if (c->produced - c->acked > 1) /* more than a good-bye */
        say("%s: what a former run had left for a peer is dropped", why);
    struct channel **link = &formers;
    while (*link != c)
        link = &(*link)->next;
    *link = c->next;
    channel_close(c);
    pool_give(c);
    count--;
}
