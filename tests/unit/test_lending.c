/* Frames that are lent to the socket: they come as they were, whatever is written to their blocks behind the acknowledgement. */
#include "transport_fixture.h"
#include "net/bulk.h"

#include <sys/resource.h>

#define PIECES 4u

static struct channel *channels[2];

static void setup(void)
{
    open_transports();
    for (uint8_t i = 0; i < 2; i++)
        channels[i] = make_channel(i + 1);
}

TestSuite(lending, .init = setup, .fini = host_close, .timeout = 20);

/* A committed turn that says PIECES frames, all full of the same byte. */
static void produce(struct channel *c, char byte)
{
    static char piece[CHANNEL_PIECE];
    memset(piece, byte, sizeof piece);
    for (unsigned i = 0; i < PIECES; i++)
        cr_assert_eq(channel_produce(c, (struct wire_head){.kind = WIRE_DATA}, NULL, 0, &(struct iovec){piece, sizeof piece}, 1, 0,
                                     sizeof piece),
                     0);
    channel_committed(c);
    bulk_committed();
}

/* The peer has all frames. */
static void acknowledge(struct channel *c)
{
    struct wire_head ack = {.kind = WIRE_ACK, .body = 8, .value = c->ready};
    uint64_t taken = 0;
    cr_assert_eq(channel_receive(c, &ack, &taken), CHANNEL_DROP);
    bulk_committed();
}

static void expect_frame(struct transport *t, int fd, char byte)
{
    static char frame[sizeof(struct wire_head) + CHANNEL_PIECE];
    for (size_t got = 0; got < sizeof frame;) {
        ssize_t n = recv(fd, frame + got, sizeof frame - got, MSG_DONTWAIT);
        cr_assert(n > 0 || (n < 0 && errno == EAGAIN), "the other side has closed");
        got += n > 0 ? (size_t)n : 0;
        if (n < 0 && t)
            transport_send(t);
    }
    for (size_t i = sizeof(struct wire_head); i < sizeof frame; i++)
        cr_assert_eq(frame[i], byte, "byte %zu is %d, not %c", i, frame[i], byte);
}

/* Reads the next turn's frames, while `t` (may be NULL) goes on. */
static void expect_frames(struct transport *t, int fd, char byte)
{
    for (unsigned i = 0; i < PIECES; i++)
        expect_frame(t, fd, byte);
}

/* A newer one sends what the older one has sent already. */
static struct transport *take_over(struct transport *older, int *other)
{
    older->retired = true;
    struct transport *newer = make_transport(older->channel, other);
    transport_send(newer);
    return newer;
}

Test(lending, more_than_the_socket_holds)
{
    int other;
    struct transport *t = make_transport(channels[0], &other);
    for (char c = 'a'; c <= 'z'; c++)
        produce(channels[0], c);
    transport_send(t);
    cr_assert_eq(transport_table->lending.to, t, "all of it went at once");
    for (char c = 'a'; c <= 'z'; c++)
        expect_frames(t, other, c);
    cr_assert_eq(transport_table->lending.to, NULL);
}

/* The acknowledgement comes over the newer one, while the older one's bytes are unread. */
static void lend_twice(bool locked)
{
    int older, newer;
    struct transport *first = make_transport(channels[0], &older);
    produce(channels[0], 'a');
    const void *block = channel_frame(channels[0], first->cursor);
    transport_send(first);
    cr_assert(transport_table->lending.open);
    cr_assert(!locked || !mlock(block, PIECES * BULK_BLOCK));
    take_over(first, &newer);
    expect_frames(NULL, newer, 'a');
    acknowledge(channels[0]);
    bool same = false;
    produce(channels[0], 'b');
    for (uint64_t n = channels[0]->acked; n < channels[0]->ready; n++)
        same |= channel_frame(channels[0], n) == block;
    cr_assert(same, "the block was not taken again");
    expect_frames(NULL, older, 'a');
}

Test(lending, what_went_again_over_another)
{
    lend_twice(false);
}

Test(lending, what_went_again_is_locked)
{
    lend_twice(true);
}

/* The same the other way round: what the older one copied is acknowledged, while the newer one's bytes are unread. */
Test(lending, what_another_may_have_sent_is_copied)
{
    int older, newer;
    struct transport *first = make_transport(channels[0], &older);
    produce(channels[0], 'a');
    transport_table->lending.refused = true;
    transport_send(first);
    transport_table->lending.refused = false;
    struct transport *second = take_over(first, &newer);
    expect_frames(NULL, older, 'a');
    acknowledge(channels[0]);
    produce(channels[0], 'b');
    expect_frames(NULL, newer, 'a');
    transport_send(second);
    expect_frames(NULL, newer, 'b');
}

/* A channel that is given up may have a reader still. */
Test(lending, what_is_dropped_unread)
{
    int other;
    struct transport *t = make_transport(channels[0], &other);
    produce(channels[0], 'a');
    transport_send(t);
    channel_abandon(channels[0], channels[0]->ready);
    bulk_committed();
    produce(channels[1], 'b');
    expect_frames(NULL, other, 'a');
}

Test(lending, one_that_waits_keeps_nobody_waiting)
{
    int other[2];
    struct transport *slow = make_transport(channels[0], &other[0]), *quick = make_transport(channels[1], &other[1]);
    for (char c = 'a'; c <= 'z'; c++)
        produce(channels[0], c);
    transport_send(slow);
    cr_assert_eq(transport_table->lending.to, slow);
    produce(channels[1], '1');
    transport_send(quick);
    expect_frames(NULL, other[1], '1');
    transport_hang_up(slow);
    cr_assert(!transport_table->lending.open, "its bytes are in the pipe");
    produce(channels[1], '2');
    transport_send(quick);
    cr_assert(transport_table->lending.open);
    expect_frames(NULL, other[1], '2');
}

/* Who has many pipes gets short ones; copying is faster than those. */
Test(lending, of_a_user_with_many_pipes)
{
    int other, ends[2];
    struct rlimit many = {8000, 8000};
    struct transport *t = make_transport(channels[0], &other);
    if (setrlimit(RLIMIT_NOFILE, &many) || setresuid(65534, 65534, 0))
        cr_skip_test("root may have other users' pipes");
    do
        cr_assert_eq(pipe(ends), 0);
    while (fcntl(ends[0], F_GETPIPE_SZ) >= 65536);
    produce(channels[0], 'a');
    transport_send(t);
    cr_assert(transport_table->lending.refused && !transport_table->lending.open);
    expect_frames(NULL, other, 'a');
    cr_assert_eq(setresuid(0, 0, 0), 0);
}

/* The test would end by SIGPIPE. One that the program has pending already stays so. */
Test(lending, nobody_reads)
{
    sigset_t pending;
    for (int held = 0; held < 2; held++) {
        int other;
        struct transport *t = make_transport(channels[held], &other);
        if (held) {
            sigset_t set;
            sigemptyset(&set);
            sigaddset(&set, SIGPIPE);
            sigprocmask(SIG_BLOCK, &set, NULL);
            raise(SIGPIPE);
        }
        close(other);
        produce(channels[held], 'a');
        transport_send(t);
        cr_assert_eq(t->state, STATE_FREE);
        sigpending(&pending);
        cr_assert_eq(sigismember(&pending, SIGPIPE), held);
    }
}
