/* The channel against a model: two sides, up to two transports between them at a time, crashes that take a side back to
 * its last commit, connections that break with bytes on the way. What must hold: each side takes in exactly what the
 * other one committed, once, in order, and nothing that was not committed. */
#include "net_host.h"
#include "net/bulk.h"
#include "net/channel.h"
#include "net/pool.h"

#include <time.h>

#define WIRES 2
#define PIPE_BYTES (1 << 17)

/* What a program keeps: rolled back by a crash. */
struct side {
    struct channel channel;
    uint64_t said, heard;
};

struct pipe {
    unsigned char bytes[PIPE_BYTES];
    size_t used;
};

struct transport {
    bool up;
    struct pipe to[2];      /* to[i]: what side i has not read yet */
    bool greeted[2];        /* side i has seen the other's hello */
    uint64_t cursor[2];     /* the next frame that side i sends */
};

static struct side sides[2], saved[2];
static struct transport wires[WIRES];
static uint64_t *salts[2], committed[2]; /* what side i committed: salts[i][0, committed) */
static uint64_t *fresh[2];               /* what it said, by number; valid for the turn */
static uint64_t room[2];
static long crashes, drops, deliveries, duplicates;
static uint64_t seed, epochs[2];

static uint64_t random_bits(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    return seed ^= seed << 17;
}

static unsigned chance(unsigned n)
{
    return (unsigned)(random_bits() % n);
}

static void copy_channel(struct channel *to, const struct channel *from)
{
    *to = *from;
    if (!from->frames)
        return;
    to->frames = pool_take((from->mask + 1) * sizeof *to->frames);
    for (uint64_t n = from->acked; n < from->produced; n++) {
        const struct frame *f = from->frames[n & from->mask];
        struct frame *g = pool_take(sizeof *g + f->capacity);
        memcpy(g, f, sizeof *f + f->length);
        to->frames[n & to->mask] = g;
    }
}

static void assign(struct side *to, const struct side *from)
{
    channel_close(&to->channel);
    *to = *from;
    copy_channel(&to->channel, &from->channel);
}

static void say_something(int i)
{
    struct side *s = &sides[i];
    if (channel_room(&s->channel) < 4 || s->channel.produced - s->channel.acked > 200)
        return;
    if (s->said == room[i]) {
        room[i] = room[i] ? room[i] * 2 : 1024;
        fresh[i] = realloc(fresh[i], room[i] * 8);
        salts[i] = realloc(salts[i], room[i] * 8);
    }
    uint64_t message[2] = {s->said, random_bits()};
    unsigned char filler[300] = {0};
    struct iovec v[2] = {{message, sizeof message}, {filler, chance(sizeof filler)}};
    struct wire_head h = {.kind = chance(2) ? WIRE_DATA : WIRE_DATAGRAM, .stream = 1000 + chance(3)};
    struct wire_route route = {0};
    bool datagram = h.kind == WIRE_DATAGRAM;
    if (!datagram)
        v[1].iov_len = 0; /* joined pieces are told apart by their length */
    cr_assert_eq(channel_produce(&s->channel, h, &route, datagram ? sizeof route : 0, v, 2, 0,
                                 v[0].iov_len + v[1].iov_len), 0);
    fresh[i][s->said++] = message[1];
}

static void break_wire(struct transport *w)
{
    w->up = false;
    w->to[0].used = w->to[1].used = 0;
    drops++;
}

static void commit(int i)
{
    assign(&saved[i], &sides[i]);
    for (; committed[i] < sides[i].said; committed[i]++)
        salts[i][committed[i]] = fresh[i][committed[i]];
    channel_committed(&sides[i].channel);
}

static void crash(int i)
{
    for (int k = 0; k < WIRES; k++)
        break_wire(&wires[k]);
    assign(&sides[i], &saved[i]);
    channel_committed(&sides[i].channel); /* as turn.c does when commit() returns in a new process */
    epochs[i]++;
    crashes++;
}

static bool put(struct pipe *p, const void *bytes, size_t length)
{
    if (p->used + length > PIPE_BYTES)
        return false;
    memcpy(p->bytes + p->used, bytes, length);
    p->used += length;
    return true;
}

static struct wire_id id_of(int i)
{
    struct wire_id id = {{(uint8_t)(i + 1)}};
    return id;
}

static void connect_wire(struct transport *w)
{
    *w = (struct transport){.up = true};
    for (int i = 0; i < 2; i++) {
        struct wire_head head = {.kind = WIRE_HELLO, .body = sizeof(struct wire_hello)};
        struct wire_hello hello = {.id = id_of(i), .epoch = 1 + epochs[i]};
        channel_hello(&sides[i].channel, &hello);
        put(&w->to[!i], &head, sizeof head);
        put(&w->to[!i], &hello, sizeof hello);
    }
}

static void send_some(struct transport *w, int i)
{
    if (!w->up || !w->greeted[i])
        return;
    for (unsigned n = chance(8); n; n--) {
        if (w->cursor[i] < sides[i].channel.acked)
            w->cursor[i] = sides[i].channel.acked; /* acknowledged over the other transport */
        const struct frame *f = channel_frame(&sides[i].channel, w->cursor[i]);
        if (!f || !put(&w->to[!i], f->wire, f->length))
            break;
        w->cursor[i]++;
    }
    if (chance(2)) {
        struct wire_head head;
        uint64_t body;
        channel_ack(&sides[i].channel, &head, &body);
        if (w->to[!i].used + 64 < PIPE_BYTES) {
            put(&w->to[!i], &head, sizeof head);
            put(&w->to[!i], &body, sizeof body);
        }
    }
}

static void hear(int i, const struct wire_head *h, const unsigned char *body)
{
    size_t at = h->kind == WIRE_DATAGRAM ? sizeof(struct wire_route) : 0;
    for (; at + 16 <= h->body; at += h->kind == WIRE_DATAGRAM ? h->body : 16) {
        uint64_t message[2];
        memcpy(message, body + at, sizeof message);
        cr_assert_eq(message[0], sides[i].heard, "%lu instead of %lu", message[0], sides[i].heard);
        cr_assert_lt(message[0], committed[!i], "an output of a turn that is not durable");
        cr_assert_eq(message[1], salts[!i][message[0]], "an output of a turn that never was");
        sides[i].heard++;
        deliveries++;
    }
    if (h->kind == WIRE_DATAGRAM)
        sides[i].channel.datagrams_taken += h->body;
}

static void take(struct transport *w, int i, const struct wire_head *h, const unsigned char *body)
{
    struct channel *c = &sides[i].channel;
    if (h->kind == WIRE_HELLO) {
        struct wire_hello hello;
        memcpy(&hello, body, sizeof hello);
        cr_assert_eq(channel_connected(c, &hello, &w->cursor[i]), 0);
        w->greeted[i] = true;
        return;
    }
    cr_assert(w->greeted[i]);
    int r = channel_receive(c, h, body);
    cr_assert(r == CHANNEL_DELIVER || r == CHANNEL_DROP, "frame %lu, expected %lu", h->sequence, c->expected);
    duplicates += r == CHANNEL_DROP && h->kind != WIRE_ACK;
    if (r == CHANNEL_DELIVER)
        hear(i, h, body);
}

/* Side i reads whole frames, sometimes only a few of them. */
static void read_some(struct transport *w, int i)
{
    struct pipe *p = &w->to[i];
    size_t at = 0;
    for (unsigned n = chance(12); w->up && n; n--) {
        struct wire_head h;
        long length = wire_parse(p->bytes + at, p->used - at, &h);
        cr_assert_geq(length, 0);
        if (!length)
            break;
        take(w, i, &h, p->bytes + at + sizeof h);
        at += (size_t)length;
    }
    memmove(p->bytes, p->bytes + at, p->used - at);
    p->used -= at;
}

static void step(unsigned crash_one_in)
{
    int i = (int)chance(2);
    struct transport *w = &wires[chance(WIRES)];
    switch (chance(6)) {
    case 0:
        say_something(i);
        break;
    case 1:
        if (chance(4) == 0)
            commit(i);
        break;
    case 2:
        send_some(w, i);
        break;
    case 3:
    case 4:
        read_some(w, i);
        break;
    default:
        if (!w->up)
            connect_wire(w);
        else if (chance(crash_one_in) == 0)
            break_wire(w);
        else if (chance(crash_one_in) == 0)
            crash(i);
    }
}

/* No more failures: everything arrives and is forgotten. */
static void settle(void)
{
    for (int k = 0; k < WIRES; k++)
        break_wire(&wires[k]);
    connect_wire(&wires[0]);
    for (int round = 0; round < 3000; round++)
        for (int i = 0; i < 2; i++) {
            commit(i);
            send_some(&wires[0], i);
            read_some(&wires[0], i);
        }
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(sides[i].heard, sides[!i].said);
        cr_assert_not(channel_busy(&sides[i].channel), "frames are still retained");
        cr_assert_eq(sides[i].channel.datagrams_acked, sides[i].channel.datagrams_sent);
    }
}

static void run(long steps, unsigned crash_one_in)
{
    const char *given = getenv("KEN_SEED");
    seed = given ? strtoull(given, NULL, 0) : (uint64_t)time(NULL) * 2654435761u + crash_one_in;
    printf("repeat with KEN_SEED=%lu\n", seed);
    for (int i = 0; i < 2; i++) {
        struct wire_id other = id_of(!i);
        channel_open(&sides[i].channel, &other);
        commit(i);
    }
    for (long n = 0; n < steps; n++)
        step(crash_one_in);
    settle();
    printf("%ld steps: %ld crashes, %ld broken connections, %ld deliveries, %ld duplicates dropped\n", steps, crashes,
                drops, deliveries, duplicates);
    cr_assert(crashes > 1000 && duplicates > 1000 && deliveries > 10000);
}

Test(channel, exactly_once_in_order_with_rare_failures, .timeout = 50)
{
    run(3000000, 60);
}

Test(channel, exactly_once_in_order_with_failures_all_the_time, .timeout = 50)
{
    run(3000000, 3);
}

static const struct wire_id one = {{1}}, two = {{2}};

static int produce(struct channel *c, const char *text)
{
    struct iovec v = {(void *)text, strlen(text)};
    return channel_produce(c, (struct wire_head){.kind = WIRE_DATA, .stream = 5}, NULL, 0, &v, 1, 0, v.iov_len);
}

Test(channel, pieces_join_while_they_are_kept_back)
{
    struct channel c;
    channel_open(&c, &one);
    produce(&c, "abc");
    produce(&c, "def");
    cr_assert_eq(c.produced, 2);
    cr_assert_null(channel_frame(&c, 1), "kept back until the turn is durable");
    channel_committed(&c);
    produce(&c, "ghi");
    cr_assert_eq(c.produced, 3);
    const struct frame *f = channel_frame(&c, 1);
    cr_assert_eq(f->length, sizeof(struct wire_head) + 6);
    cr_assert_eq(memcmp(f->wire + sizeof(struct wire_head), "abcdef", 6), 0);
}

/* Writes of any length fill blocks to the last byte; what a turn gave back is taken again when that is durable. */
Test(channel, bulk_lies_in_blocks_of_its_own, .init = host_open, .fini = host_close)
{
    static const size_t lengths[] = {40000, 20000, 70000, 16384, 50};
    static char bytes[70000], got[200000];
    struct wire_id id = {{1}};
    struct channel c;
    size_t sent = 0, taken = 0;
    channel_open(&c, &id);
    for (unsigned i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        for (size_t k = 0; k < lengths[i]; k++)
            bytes[k] = (char)((sent + k) % 251);
        struct wire_head head = {.kind = WIRE_DATA, .stream = 1};
        for (size_t done = 0, n; done < lengths[i]; done += n) {
            n = channel_piece(&c, &head);
            n = n < lengths[i] - done ? n : lengths[i] - done;
            cr_assert_eq(channel_produce(&c, head, NULL, 0, &(struct iovec){bytes, lengths[i]}, 1, done, n), 0);
        }
        sent += lengths[i];
    }
    cr_assert_eq(c.produced - c.acked, (sent + CHANNEL_PIECE - 1) / CHANNEL_PIECE);
    channel_committed(&c);
    bulk_committed();
    const void *first = channel_frame(&c, c.acked);
    for (uint64_t n = c.acked; n < c.produced; n++) {
        const struct frame *f = channel_frame(&c, n);
        cr_assert(bulk_holds(f) && (uintptr_t)f % BULK_BLOCK % 4096 == 0);
        memcpy(got + taken, f->wire + sizeof(struct wire_head), f->length - sizeof(struct wire_head));
        taken += f->length - sizeof(struct wire_head);
    }
    cr_assert_eq(taken, sent);
    for (size_t k = 0; k < sent; k++)
        cr_assert_eq(got[k], (char)(k % 251), "byte %zu", k);
    uint64_t ack = 0;
    struct wire_head head = {.kind = WIRE_ACK, .body = sizeof ack, .value = c.produced};
    cr_assert_eq(channel_receive(&c, &head, &ack), CHANNEL_DROP);
    void *other = bulk_take();
    cr_assert(other && (uintptr_t)other - (uintptr_t)first >= taken, "it may be wanted again after a crash");
    bulk_committed();
    cr_assert_lt((uintptr_t)bulk_take() - (uintptr_t)first, taken);
}

Test(channel, a_full_channel_says_so_and_empties_again)
{
    struct channel c;
    channel_open(&c, &one);
    long n = 0;
    for (; channel_room(&c); n++) {
        cr_assert_eq(produce(&c, "x"), 0);
        channel_committed(&c);
    }
    cr_assert_eq(n, CHANNEL_FRAMES - 1024);
    while (produce(&c, "control") == 0)
        channel_committed(&c);
    cr_assert_eq(c.produced - 1, CHANNEL_FRAMES);
    uint64_t none = 0;
    struct wire_head ack = {.kind = WIRE_ACK, .body = 8, .value = c.ready};
    cr_assert_eq(channel_receive(&c, &ack, &none), CHANNEL_DROP);
    cr_assert_not(channel_busy(&c));
    cr_assert_eq(produce(&c, "y"), 0);
}

Test(channel, a_gap_and_an_acknowledgement_of_nothing_are_faults)
{
    struct channel c;
    uint64_t none = 0;
    channel_open(&c, &one);
    struct wire_head h = {.kind = WIRE_DATA, .body = 1, .sequence = 2};
    cr_assert_eq(channel_receive(&c, &h, "x"), -EPROTO);
    h.sequence = 1;
    cr_assert_eq(channel_receive(&c, &h, "x"), CHANNEL_DELIVER);
    cr_assert_eq(channel_receive(&c, &h, "x"), CHANNEL_DROP);
    h = (struct wire_head){.kind = WIRE_ACK, .body = 8, .value = 2};
    cr_assert_eq(channel_receive(&c, &h, &none), -EPROTO);
}

/* A store that was put back from a copy: both sides begin anew after two handshakes at most, whoever notices first. */
Test(channel, a_peer_that_lost_its_past_is_noticed_and_both_begin_anew)
{
    struct channel a, b;
    struct wire_hello from_a = {.id = one, .epoch = 7}, from_b = {.id = two, .epoch = 8};
    uint64_t cursor;
    channel_open(&a, &two);
    channel_open(&b, &one);
    for (int n = 0; n < 5; n++) {
        produce(&a, "lost");
        channel_committed(&a);
    }
    struct wire_head ack = {.kind = WIRE_ACK, .body = 8, .value = 4};
    cr_assert_eq(channel_receive(&a, &ack, &(uint64_t){0}), CHANNEL_DROP);
    for (int round = 0; round < 2; round++) {
        channel_hello(&a, &from_a);
        channel_hello(&b, &from_b);
        int at_a = channel_connected(&a, &from_b, &cursor), at_b = channel_connected(&b, &from_a, &cursor);
        if (round == 0)
            cr_assert(at_a == CHANNEL_REPLACED || at_b == CHANNEL_REPLACED);
        else
            cr_assert(at_a == 0 && at_b == 0);
        if (at_a)
            channel_renew(&a);
        if (at_b)
            channel_renew(&b);
    }
}

Test(channel, another_peer_or_another_protocol_is_refused)
{
    struct channel c;
    uint64_t cursor;
    channel_open(&c, &one);
    struct wire_hello h = {.id = one};
    channel_hello(&c, &h);
    cr_assert_eq(channel_connected(&c, &h, &cursor), 0);
    struct wire_hello bad = h;
    bad.id = two;
    cr_assert_eq(channel_connected(&c, &bad, &cursor), -EPROTO);
    bad = h;
    bad.version++;
    cr_assert_eq(channel_connected(&c, &bad, &cursor), -EPROTO);
    bad = h;
    bad.magic++;
    cr_assert_eq(channel_connected(&c, &bad, &cursor), -EPROTO);
}
