/* The file of what peers had not taken: what was put in comes out, and no byte of it can be wrong unnoticed. */
#include "net_host.h"
#include "net/former.h"
#include "net/pool.h"

static char directory[] = "/tmp/ken-unsent-XXXXXX";
static const struct wire_id self = {{1, 2}}, peer = {{3, 4}};
static const struct wire_address far = {{[10] = 255, 255, 10, 0, 0, 7}, 4711, 0}, door = {{[10] = 255, 255, 10, 0, 0, 7}, 4712, 1};
static const struct unsent_address known[] = {{{{1}, 80, 0}, 1}, {{{2}, 53, 0}, 0}};

static void setup(void)
{
    cr_assert(mkdtemp(directory));
    host_directory = open(directory, O_RDONLY | O_DIRECTORY);
    cr_assert(host_directory >= 0);
}

static void teardown(void)
{
    unlinkat(host_directory, UNSENT_FILE, 0);
    unlinkat(host_directory, UNSENT_FILE ".tmp", 0);
    close(host_directory);
    rmdir(directory);
}

TestSuite(unsent, .init = setup, .fini = teardown);

/* A channel that has forgotten some frames, and holds these. */
static void fill(struct channel *c, unsigned frames)
{
    struct wire_head dropped = {.kind = WIRE_SHUTDOWN, .stream = 9};
    channel_open(c, &peer);
    c->place = 77;
    c->expected = c->durable = 12;
    for (int i = 0; i < 5; i++)
        cr_assert_eq(channel_produce(c, dropped, NULL, 0, NULL, 0, 0, 0), 0);
    for (unsigned i = 0; i < frames; i++) {
        char text[3000];
        struct iovec v = {text, 1 + i * 7 % sizeof text};
        memset(text, (int)i, sizeof text);
        cr_assert_eq(channel_produce(c, (struct wire_head){.kind = WIRE_DATA, .stream = i}, NULL, 0, &v, 1, 0, v.iov_len), 0);
    }
    channel_committed(c);
    struct wire_head ack = {.kind = WIRE_ACK, .value = 6, .body = 8};
    uint64_t datagrams = 0;
    cr_assert_eq(channel_receive(c, &ack, &datagrams), CHANNEL_DROP);
}

static void put(unsigned channels)
{
    struct unsent_writer w;
    int r = unsent_begin(&w, host_directory);
    for (unsigned i = 0; i < channels; i++) {
        struct channel c;
        fill(&c, 3 * i + 1);
        cr_assert_eq(r, 0);
        r = unsent_put(&w, &c, &self, i ? &far : NULL, i ? &door : NULL, known, i ? 2 : 0);
        channel_close(&c);
    }
    cr_assert_eq(unsent_end(&w, host_directory, r), 0);
}

Test(unsent, none)
{
    const void *at;
    size_t bytes;
    cr_assert_eq(unsent_map(host_directory, &at, &bytes), 0);
    cr_assert_eq(unsent_remove(host_directory), 0);
}

Test(unsent, comes_back)
{
    const void *at, *cursor = NULL;
    size_t bytes;
    const struct unsent_channel *u;
    put(3);
    cr_assert_eq(unsent_map(host_directory, &at, &bytes), 1);
    for (unsigned i = 0; i < 3; i++) {
        cr_assert((u = unsent_next(at, &cursor)));
        cr_assert_eq(former_inherit(u), 0);
        cr_assert_eq(u->addresses, i ? 2 : 0);
        cr_assert(!i || !memcmp(unsent_addresses(u), known, sizeof known));
    }
    cr_assert_null(unsent_next(at, &cursor));
    const struct channel *c = former_first();
    for (unsigned i = 0; i < 3; i++, c = c->next) {
        struct channel right;
        fill(&right, 3 * i + 1);
        cr_assert(c && c->former && wire_same_id(&c->peer, &peer) && wire_same_id(former_self(c), &self));
        cr_assert_eq(former_far(c) != NULL, i > 0);
        cr_assert(i ? wire_same_address(former_door(c), &door) : !former_door(c));
        cr_assert(c->acked == right.acked && c->ready == right.ready && c->produced == right.produced &&
                  c->expected == right.expected && c->durable == right.durable && c->place == 77);
        for (uint64_t n = c->acked; n < c->produced; n++) {
            const struct frame *f = channel_frame(c, n), *g = channel_frame(&right, n);
            cr_assert(f && g && f->length == g->length && !memcmp(f->wire, g->wire, f->length), "frame %lu", n);
        }
        channel_close(&right);
        cr_assert_eq(former_waits(&peer, c), i > 0, "those before it come first");
    }
    cr_assert_null(c);
    while (former_first())
        former_drop(former_first(), "the test");
    cr_assert_not(former_waits(&peer, NULL));
}

Test(unsent, a_new_one_replaces_the_old)
{
    const void *at, *cursor = NULL;
    size_t bytes;
    put(3);
    put(1);
    cr_assert_eq(unsent_map(host_directory, &at, &bytes), 1);
    cr_assert(unsent_next(at, &cursor));
    cr_assert_null(unsent_next(at, &cursor));
    cr_assert_eq(unsent_remove(host_directory), 0);
    cr_assert_eq(unsent_map(host_directory, &at, &bytes), 0);
}

Test(unsent, no_byte_can_be_wrong)
{
    const void *at;
    size_t bytes;
    static unsigned char whole[1 << 16];
    put(2);
    int fd = openat(host_directory, UNSENT_FILE, O_RDWR);
    long length = read(fd, whole, sizeof whole);
    cr_assert(length > 500 && length < (long)sizeof whole);
    for (long i = 0; i < length; i++) {
        unsigned char wrong = whole[i] ^ (unsigned char)(1 << i % 8);
        cr_assert_eq(pwrite(fd, &wrong, 1, i), 1);
        int r = unsent_map(host_directory, &at, &bytes);
        cr_assert(r == -EBADMSG || (r == -EPROTO && i >= 16 && i < 24), "byte %ld: %d", i, r);
        cr_assert_eq(pwrite(fd, &whole[i], 1, i), 1);
    }
    for (long cut = length - 1; cut >= 0; cut -= 13) {
        cr_assert_eq(ftruncate(fd, cut), 0);
        cr_assert_eq(unsent_map(host_directory, &at, &bytes), -EBADMSG, "cut to %ld", cut);
        cr_assert_eq(pwrite(fd, whole, (size_t)length, 0), length);
    }
    cr_assert_eq(unsent_map(host_directory, &at, &bytes), 1);
    close(fd);
}

/* The checksum holds, and the contents are still nonsense: a writer that is broken, not a disk. */
Test(unsent, frames_must_follow_each_other)
{
    const void *at;
    size_t bytes;
    struct unsent_writer w;
    struct channel c;
    cr_assert_eq(unsent_begin(&w, host_directory), 0);
    fill(&c, 4);
    struct frame *f = c.frames[(c.acked + 1) & c.mask];
    struct wire_head h;
    memcpy(&h, f->wire, sizeof h);
    h.sequence++;
    memcpy(f->wire, &h, sizeof h);
    int r = unsent_put(&w, &c, &self, NULL, NULL, NULL, 0);
    channel_close(&c);
    cr_assert_eq(unsent_end(&w, host_directory, r), 0);
    cr_assert_eq(unsent_map(host_directory, &at, &bytes), -EBADMSG);
}
