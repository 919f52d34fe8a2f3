/* How a run takes leave of its peers, and how the next one stands in for it (former.h). */
#include "net/former.h"
#include "net/host.h"
#include "net/peers_far.h"
#include "net/peers_inner.h"
#include "net/stream.h"
#include "heap/say.h"
#include "heap/sys.h"

#include <poll.h>

#define ADDRESSES 64

void peers_farewell(void)
{
    stream_close_all();
    for (struct channel *c = peers.channels; c; c = c->next)
        if (!c->gone && (c->epoch || channel_busy(c))) /* one that was never spoken to hears nothing */
            peers_produce(c, (struct wire_head){.kind = WIRE_BYE}, NULL, 0, NULL, 0, 0, 0);
}

/* A peer that said good-bye as well is waited for until it is gone: killed in its last moments it comes back, and has to
 * find out that all of its frames are here. Neither leaves before the other has its good-bye for good. */
static bool lingers(bool *more_than_bye)
{
    bool any = false;
    for (const struct channel *c = peers.channels; c; c = c->next) {
        if (!channel_busy(c))
            continue;
        any = true;
        *more_than_bye |= !c->finished && c->produced - c->acked > 1;
    }
    /* A former run was waited for when it ended: now only as long as its peer is there. */
    for (const struct channel *c = former_first(); c; c = c->next)
        any |= channel_busy(c) && transport_pending(c);
    return any;
}

/* A peer whose run is over takes nothing any more. */
static bool is_left(const struct channel *c)
{
    return channel_busy(c) && !c->finished;
}

bool peers_leaves(void)
{
    bool any = former_first() != NULL;
    for (const struct channel *c = peers.channels; c && !any; c = c->next)
        any = is_left(c);
    peers.unsent |= any;
    return any;
}

static int put(struct unsent_writer *w, const struct channel *c)
{
    static struct unsent_address addresses[ADDRESSES];
    const struct channel *own = c->former ? peers_channel(&c->peer) : c;
    unsigned count = own ? peers_addresses(own, addresses, ADDRESSES) : 0;
    return unsent_put(w, c, c->former ? former_self(c) : &peers.self, c->former ? former_far(c) : far_address(c),
                      c->former ? former_door(c) : far_door(c), addresses, count);
}

static int write_unsent(int directory)
{
    struct unsent_writer w;
    int r = unsent_begin(&w, directory);
    for (const struct channel *c = former_first(); c && !r; c = c->next)
        r = channel_busy(c) ? put(&w, c) : 0;
    for (const struct channel *c = peers.channels; c && !r; c = c->next)
        r = is_left(c) ? put(&w, c) : 0;
    return unsent_end(&w, directory, r);
}

int peers_leave(unsigned linger_ms)
{
    bool much = false;
    if (!peers.unsent)
        return 0;
    if (!peers_leaves())
        return unsent_remove(session_store_dirfd());
    lingers(&much);
    if (much)
        say("a peer did not take everything within %u ms (KEN_LINGER); the rest stays in the store, the next run "
            "delivers it first", linger_ms);
    return write_unsent(session_store_dirfd());
}

bool peers_linger(long *until, unsigned linger_ms)
{
    bool much = false;
    if (!*until)
        *until = peers_now_ms() + (long)linger_ms;
    if (!lingers(&much))
        return false;
    struct pollfd p = {transport_fd(), POLLIN, 0};
    long left = *until - peers_now_ms();
    if (left <= 0)
        return false;
    sys(SYS_poll, &p, p.fd >= 0, left < RETRY_MS ? left : RETRY_MS);
    transport_wake();
    transport_pump();
    return true;
}

/* --- the next run --------------------------------------------------------------------------------- */

void peers_reach_for_formers(void)
{
    for (struct channel *c = former_first(); c; c = c->next) {
        channel_committed(c);
        peers_reach(c);
    }
}

/* What the program knew of the peer: this run knows it as well, so that it waits for it where the former one did. */
static int inherit(const struct unsent_channel *u)
{
    struct channel *c = peers_channel(&u->peer);
    int r = former_inherit(u);
    if (r || (!c && !(c = peers_make_channel(&u->peer))))
        return -ENOMEM;
    c->place = u->place;
    if (u->far.port)
        far_note(c, &u->far);
    if (u->door.port)
        far_note_door(c, &u->door);
    for (uint32_t i = 0; i < u->addresses; i++)
        peers_learn((enum protocol)unsent_addresses(u)[i].protocol, &unsent_addresses(u)[i].at, c);
    return 0;
}

int peers_inherit(const void *unsent)
{
    const void *cursor = NULL;
    const struct unsent_channel *u;
    int r = peers_know_self() ? 0 : -ENOMEM;
    while (!r && (u = unsent_next(unsent, &cursor)))
        r = inherit(u);
    peers.unsent = true;
    peers_reach_for_formers();
    return r;
}

void peers_pumped(void)
{
    for (struct channel *c = former_first(), *next; c; c = next) {
        struct wire_id peer = c->peer;
        struct channel *own = peers_channel(&peer);
        bool ended = c->finished;
        next = c->next;
        if (channel_busy(c) && !ended)
            continue;
        transport_dismiss(c);
        former_drop(c, "a peer ended");
        for (struct channel *later = next; later; later = later->next)
            if (wire_same_id(&later->peer, &peer))
                peers_reach(later);
        if (own && ended && !own->finished)
            peers_retire(own);
        if (own && peers_wants_transport(own))
            peers_reach(own);
    }
}
