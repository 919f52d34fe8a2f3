#include "net/peers.h"
#include "net/address.h"
#include "net/datagram.h"
#include "net/former.h"
#include "net/peers_far.h"
#include "net/peers_inner.h"
#include "net/host.h"
#include "net/pool.h"
#include "net/stream.h"
#include "net/unsent.h"
#include "heap/proc.h"
#include "heap/say.h"
#include "net/trouble.h"
#include "heap/sys.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <time.h>

#define RETRY_LATER_MS 500   /* when it did not come for long */
#define RETRIES 1000
#define LOOK_EVERY 16        /* retries, before it is looked who has the addresses of a peer now */
#define LOOKED_AT 8
#define FINISHED_KEPT 256
#define PROBES 10
#define PROBE_MS 5000        /* how long a peer may take to say who it is */

struct peers peers;

/* Where the store lies: its directory's parent and its name. A fresh run in the same place replaces the one before. */
static uint64_t place_of(int directory)
{
    char path[1100];
    struct stat s;
    long n = trouble_none(proc_fd_path(directory, path, sizeof path), "learn where the store is");
    if (n <= 0 || trouble_none(sys(SYS_newfstatat, directory, "..", &s, 0), "learn where the store is") < 0)
        return 0;
    struct utsname u;
    uint64_t h = (s.st_ino + s.st_dev * 1099511628211u) ^ 14695981039346656037u;
    if (sys(SYS_uname, &u) == 0) /* hosts made from one image have the same inodes */
        for (const char *p = u.nodename; *p; p++)
            h = (h ^ (uint8_t)*p) * 1099511628211u;
    for (const char *p = strrchr(path, '/'); p && *p; p++)
        h = (h ^ (uint8_t)*p) * 1099511628211u;
    return h | 1;
}

bool peers_know_self(void)
{
    const uint8_t *id = peers.on ? NULL : session_identity();
    if (!id)
        return peers.on;
    memcpy(peers.self.bytes, id, sizeof peers.self.bytes);
    peers.place = place_of(session_store_dirfd());
    return peers.on = true;
}

static void id_name(char *to, const struct wire_id *id)
{
    memcpy(to, "ken/id/", 7);
    to += 7;
    for (size_t i = 0; i < sizeof id->bytes; i++) {
        *to++ = "0123456789abcdef"[id->bytes[i] >> 4];
        *to++ = "0123456789abcdef"[id->bytes[i] & 15];
    }
    *to = '\0';
}

void peers_listen(void)
{
    char name[TRANSPORT_NAME];
    if (!peers_know_self())
        return;
    id_name(name, &peers.self);
    transport_listen(name);
}

struct channel *peers_channel(const struct wire_id *id)
{
    for (struct channel *c = peers.channels; c; c = c->next)
        if (wire_same_id(&c->peer, id))
            return c;
    return NULL;
}

struct channel *peers_make_channel(const struct wire_id *id)
{
    struct channel *c = pool_take(sizeof *c);
    if (!c)
        return NULL;
    channel_open(c, id);
    c->next = peers.channels;
    peers.channels = c;
    peers_listen();
    return c;
}

/* The peer's run is over: nothing is to be sent to it, and its addresses may be somebody else's. */
void peers_retire(struct channel *c)
{
    c->finished = true;
    stream_peer_gone(c);
    peers_forget(c);
    datagram_orphan(c);
}

/* The latest of those that finished are remembered: one that is killed in its last moments comes back to ask whether
 * everything arrived. */
void peers_remove_finished(void)
{
    unsigned kept = 0;
    for (struct channel **link = &peers.channels; *link;) {
        struct channel *c = *link;
        if (!c->finished || c->durable != c->expected || transport_pending(c) || ++kept <= FINISHED_KEPT) {
            link = &c->next;
            continue;
        }
        *link = c->next;
        far_forget(c);
        channel_close(c);
        pool_give(c);
    }
}

/* --- greetings ----------------------------------------------------------------------------------- */

void peers_fill_hello(const struct channel *c, struct wire_hello *h)
{
    if (c)
        channel_hello(c, h);
    peers_know_self();
    h->magic = WIRE_MAGIC;
    h->version = WIRE_VERSION;
    h->door = far_own_door();
    const struct wire_id *former = former_self(c);
    h->id = former ? *former : peers.self;
    /* Who hears that this run came in the place of a former one takes that for over. */
    h->place = former || (!c && former_first()) ? 0 : peers.place;
}

/* Nothing was ever heard of it but hellos: as far as anybody knows, it has taken in nothing yet. */
static bool was_mute(const struct channel *c)
{
    return c->acked == 1 && c->expected == 1 && !c->former && !c->finished;
}

static void replace_old(const struct wire_hello *h)
{
    for (struct channel *c = peers.channels; c; c = c->next) {
        if (c->finished || !h->place || c->place != h->place || wire_same_id(&c->peer, &h->id))
            continue;
        if (was_mute(c) && !peers_channel(&h->id)) { /* killed in its first turn: what waits for it is the new one's */
            transport_drop(c);
            c->peer = h->id;
            c->epoch = 0;
            continue;
        }
        if (c->produced > 1 || c->expected > 1) /* else it was killed before it said a word */
            say("a peer began anew with a fresh store; connections with its former run read as reset");
        peers_retire(c);
        c->gone = true;
        channel_abandon(c, c->produced);
        transport_drop(c);
    }
    for (struct channel *c = former_first(), *next; c; c = next) {
        next = c->next;
        if (!h->place || c->place != h->place || wire_same_id(&c->peer, &h->id))
            continue;
        transport_drop(c);
        former_drop(c, "a peer began anew with a fresh store");
    }
}

/* A process that died may have left a hello behind that is older than what came since: the second time counts. */
static struct channel *misfit(struct channel *c, const struct wire_hello *h)
{
    if (peers.suspect == h->epoch && c->former) {
        transport_drop(c);
        former_drop(c, "a peer lost its state");
    } else if (peers.suspect == h->epoch) {
        say("a peer and this process have no common past (a store was put back?); connections with it read as reset");
        stream_peer_gone(c);
        channel_renew(c);
    }
    peers.suspect = h->epoch;
    return NULL;
}

struct channel *peers_greeted(const struct wire_hello *h, struct channel *wanted, uint64_t *from)
{
    if (!peers_know_self() || h->magic != WIRE_MAGIC || h->version != WIRE_VERSION || wire_same_id(&h->id, &peers.self))
        return NULL;
    const struct wire_id *self = former_self(wanted) ? former_self(wanted) : &peers.self;
    if (!wire_no_id(&h->to) && !wire_same_id(&h->to, self))
        return NULL;
    bool right = !wanted || wire_same_id(&wanted->peer, &h->id);
    replace_old(h);
    if (!right || former_waits(&h->id, wanted))
        return NULL;
    struct channel *c = wanted ? wanted : peers_channel(&h->id);
    if (!c && !(c = peers_make_channel(&h->id)))
        return NULL;
    if (c->finished && !channel_busy(c))
        channel_abandon(c, h->durable);
    int r = channel_connected(c, h, from);
    if (r == CHANNEL_REPLACED)
        return misfit(c, h);
    if (r == 0 && peers.retries)
        peers.retries = 0;
    return r < 0 ? NULL : c;
}

long peers_now_ms(void)
{
    return sys_clock_ns(CLOCK_MONOTONIC) / 1000000;
}

/* Waits for the answer to a probe; serves the others meanwhile, who may be waiting for ours. */
static long await_hello(int fd, unsigned char *answer, size_t length)
{
    size_t got = 0;
    long until = peers_now_ms() + PROBE_MS;
    while (got < length) {
        struct pollfd p[2] = {{fd, POLLIN, 0}, {transport_fd(), POLLIN, 0}};
        long left = until - peers_now_ms();
        if (left <= 0 || sys(SYS_poll, p, 2, left) == 0)
            return -ETIMEDOUT;
        if (p[1].revents) {
            transport_wake();
            transport_pump();
        }
        if (!p[0].revents)
            continue;
        long n = sys(SYS_read, fd, answer + got, length - got);
        if (n <= 0 && n != -EAGAIN && n != -EINTR)
            return n ? trouble_none(n, "hear who a peer is") : -ECONNRESET;
        got += n > 0 ? (size_t)n : 0;
    }
    return 0;
}

/* Asks who listens at a name. */
static long probe(const char *name, struct wire_hello *h)
{
    struct {
        struct wire_head head;
        struct wire_hello hello;
    } ask = {.head = {.kind = WIRE_HELLO, .body = sizeof ask.hello}}, answer;
    /* Who cannot be asked for lack of memory is not known to be a plain process. */
    long fd;
    while ((fd = transport_dial(name)) == -EAGAIN || fd == -EINTR)
        sys(SYS_poll, NULL, 0, 1); /* many dial it at this moment */
    if (trouble_none(fd, "ask who a peer is") < 0)
        return fd;
    peers_fill_hello(NULL, &ask.hello);
    ask.hello.epoch = transport_epoch();
    long r;
    while ((r = sys(SYS_sendto, fd, &ask, sizeof ask, MSG_NOSIGNAL, NULL, 0)) == -EINTR || r == -EAGAIN)
        sys(SYS_poll, NULL, 0, 1);
    trouble_none(r, "ask who a peer is");
    r = r == sizeof ask || r < 0 ? r : -ECONNRESET;
    if (r > 0)
        r = await_hello((int)fd, (unsigned char *)&answer, sizeof answer);
    sys(SYS_close, fd);
    if (r < 0)
        return r;
    if (answer.head.kind != WIRE_HELLO || answer.hello.magic != WIRE_MAGIC)
        return -EPROTO;
    *h = answer.hello;
    return 0;
}

/* On another host by its address, in this network namespace by its name. */
static int dial(struct channel *c)
{
    char name[TRANSPORT_NAME];
    const struct wire_address *far = c->former ? former_next(c) : far_next(c);
    if (far)
        return transport_connect_far(far, c);
    id_name(name, &c->peer);
    return transport_connect(name, c);
}

/* Who was killed before its first commit has another name when it is back. */
static void look_for_next(const struct channel *c)
{
    static bool looking;
    struct unsent_address a;
    if (looking || !was_mute(c) || !peers_addresses(c, &a, 1) || peers_is_far(&a.at))
        return;
    looking = true;
    peers_ask_at((enum protocol)a.protocol, &a.at);
    looking = false;
}

void peers_reach(struct channel *c)
{
    if (former_waits(&c->peer, c) || transport_pending(c) || dial(c) >= 0)
        return;
    look_for_next(c);
    if (!transport_pending(c))
        transport_alarm(peers.retries < RETRIES ? RETRY_MS : RETRY_LATER_MS);
}

struct channel *peers_ask(const char *name)
{
    struct wire_hello h;
    if (!peers_know_self())
        return NULL;
    /* Who listens there and hangs up is a peer in trouble, or on its way out: it answers in its next incarnation, or as the child that
     * has its place, or is gone. */
    long r = -ECONNRESET;
    for (int attempt = 0; attempt < PROBES && (r == -ECONNRESET || r == -EPIPE || (r == -ECONNREFUSED && attempt > 1)); attempt++) {
        if (attempt)
            sys(SYS_poll, NULL, 0, RETRY_MS);
        r = probe(name, &h);
    }
    if (r < 0 || wire_same_id(&h.id, &peers.self))
        return NULL;
    replace_old(&h);
    struct channel *c = peers_channel(&h.id);
    if (!c && (c = peers_make_channel(&h.id)))
        c->place = h.place;
    if (c)
        peers_reach(c);
    return c;
}

void peers_introduced(unsigned protocol, const struct wire_address *a, const struct wire_hello *h)
{
    if (!peers_know_self() || h->magic != WIRE_MAGIC || h->version != WIRE_VERSION || wire_no_id(&h->id) ||
        wire_same_id(&h->id, &peers.self))
        return;
    replace_old(h);
    struct channel *c = peers_channel(&h->id);
    if (!c && (c = peers_make_channel(&h->id)))
        c->place = h->place;
    if (!c)
        return;
    far_note(c, a);
    peers_learn((enum protocol)protocol, a, c);
    peers_reach(c);
    stream_call_again();
}

void peers_met_far(struct channel *c, const struct wire_address *other, uint16_t door)
{
    struct wire_address at = *other;
    if (c->former)
        return;
    at.port = door;
    at.door = door != 0;
    far_note_door(c, &at);
}

/* --- keeping in touch ---------------------------------------------------------------------------- */

bool peers_wants_transport(const struct channel *c)
{
    if (c->former)
        return channel_busy(c);
    return !c->finished && (channel_busy(c) || c->durable != c->expected || stream_any(c) || far_address(c));
}

/* Nobody answers by the peer's identity: who has its addresses now? A fresh run in its place means that it is gone. */
static bool look_for_successor(const struct channel *c)
{
    struct unsent_address at[LOOKED_AT];
    unsigned n = peers_addresses(c, at, LOOKED_AT);
    for (unsigned i = 0; i < n; i++) {
        char name[TRANSPORT_NAME];
        struct wire_hello h;
        address_name(name, (enum protocol)at[i].protocol, &at[i].at);
        if (peers_is_far(&at[i].at))
            transport_ask_far(at[i].protocol, &at[i].at);
        else if (probe(name, &h) == 0 && !wire_same_id(&h.id, &c->peer) && h.place && h.place == c->place) {
            replace_old(&h);
            return true;
        }
    }
    return false;
}

void peers_tick(void)
{
    if (stream_any_pending() && stream_pass_on())
        transport_alarm(RETRY_MS);
    if (stream_call_again())
        transport_alarm(peers.retries < RETRIES ? RETRY_MS : RETRY_LATER_MS);
    bool look = ++peers.retries % LOOK_EVERY == 0;
    for (struct channel *c = former_first(); c; c = c->next)
        peers_reach(c);
    for (struct channel *c = peers.channels; c; c = c->next) {
        if (!peers_wants_transport(c) && !former_waits(&c->peer, NULL))
            continue;
        peers_reach(c);
        if (look && !transport_pending(c) && look_for_successor(c)) {
            transport_alarm(RETRY_MS); /* the lists have changed */
            return;
        }
    }
}

void peers_lost(struct channel *c)
{
    if (peers_wants_transport(c))
        transport_alarm(RETRY_MS);
}

void peers_gone(struct channel *c)
{
    if (c->former) {
        c->finished = true; /* for peers_pumped() */
        return;
    }
    if (!c->finished)
        peers_retire(c);
    c->gone = true;
    channel_abandon(c, c->produced);
}

static void publish_all(void)
{
    for (int fd = 0; fd <= fd_highest; fd++) {
        struct description *d = fd_peek(fd);
        if (!d || d->kind != FD_SOCKET || !d->socket || !d->socket->published)
            continue;
        d->socket->published = 0;
        peers_publish(fd, d);
    }
}

static void resume(bool committed)
{
    transport_inherit(true);
    publish_all();
    far_resume();
    transport_inherit(false);
    peers_reach_for_formers();
    if (stream_call_again())
        transport_alarm(RETRY_MS);
    if (!peers.channels)
        return;
    peers_listen();
    far_follow();
    for (struct channel *c = peers.channels; c; c = c->next) {
        if (committed)
            channel_committed(c); /* what came back with the image is durable */
        if (!c->finished)
            peers_reach(c);
    }
}

void peers_resume(void)
{
    resume(true);
}

void peers_inherit_all(void)
{
    resume(false);
}

bool peers_any(void)
{
    return peers.channels || stream_any_uncalled();
}
