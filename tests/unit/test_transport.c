/* Transports of one channel, over socketpairs whose other ends the test holds, and listeners without descriptors. */
#include "transport_fixture.h"

#include <sys/resource.h>
#include <sys/un.h>

static struct channel *channel;

static void setup(void)
{
    open_transports();
    channel = make_channel(1);
}

TestSuite(transport, .init = setup, .fini = host_close);

static struct transport *make_ready(bool retired, int *other)
{
    struct transport *t = make_transport(channel, other);
    t->retired = retired;
    return t;
}

static void produce(const char *text)
{
    struct iovec v = {(void *)text, strlen(text)};
    cr_assert_eq(channel_produce(channel, (struct wire_head){.kind = WIRE_DATA}, NULL, 0, &v, 1, 0, v.iov_len), 0);
    channel_committed(channel);
}

/* What has come: the bodies of the frames, one behind the other. */
static void expect(int fd, const char *text)
{
    char bytes[4096], bodies[4096] = "";
    ssize_t n = recv(fd, bytes, sizeof bytes, 0), at = 0;
    while (at < n) {
        struct wire_head head;
        memcpy(&head, bytes + at, sizeof head);
        strncat(bodies, bytes + at + sizeof head, head.body);
        at += (ssize_t)sizeof head + head.body;
    }
    cr_assert_str_eq(bodies, text);
}

/* Within this turn: nobody commits any more. */
static void pump(void)
{
    struct pollfd p = {transport_fd(), POLLIN, 0};
    if (poll(&p, 1, 0) == 1)
        transport_pump();
}

Test(transport, a_retired_one_takes_over_at_once)
{
    int older, newer;
    make_ready(true, &older);
    struct transport *t = make_ready(false, &newer);
    produce("first ");
    transport_send(t);
    expect(newer, "first ");
    produce("second");
    transport_hang_up(t);
    pump();
    expect(older, "first second");
}

Test(transport, a_retired_one_stays_so_beside_another)
{
    int oldest, older, newest;
    struct transport *first = make_ready(true, &oldest), *second = make_ready(true, &older);
    make_ready(false, &newest);
    transport_hang_up(second);
    cr_assert(first->retired);
    produce("text");
    transport_flush();
    pump();
    expect(newest, "text");
    expect(oldest, "");
}

/* Frames that are begun on the newer one have come over the older one meanwhile, and are acknowledged. */
Test(transport, one_that_cannot_end_a_frame_hangs_up)
{
    int newer;
    struct transport *t = make_ready(false, &newer);
    char big[60000];
    cr_assert_eq(setsockopt(t->fd, SOL_SOCKET, SO_SNDBUF, &(int){30000}, sizeof(int)), 0);
    memset(big, 'x', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    while (!t->done) {
        produce(big);
        transport_send(t);
    }
    struct wire_head ack = {.kind = WIRE_ACK, .body = 8, .value = t->cursor + 1};
    uint64_t taken = 0;
    cr_assert_eq(channel_receive(channel, &ack, &taken), CHANNEL_DROP);
    produce("more");
    transport_send(t);
    cr_assert_eq(t->state, STATE_FREE, "it waits for ever to send what is gone");
    cr_assert(transport_alarmed(), "nobody dials again");
}

static int knock(const char *name)
{
    struct sockaddr_un un;
    socklen_t length = transport_abstract(&un, name);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    cr_assert_eq(connect(fd, (struct sockaddr *)&un, length), 0);
    return fd;
}

static bool told(int ms)
{
    struct pollfd p = {transport_fd(), POLLIN, 0};
    return poll(&p, 1, ms) == 1;
}

/* Neither does epoll tell of who waits again and again, nor is he forgotten. */
Test(transport, a_listener_without_descriptors_rests)
{
    char name[TRANSPORT_NAME];
    struct rlimit low;
    snprintf(name, sizeof name, "ken/test/%d", getpid());
    cr_assert_eq(transport_listen(name), 0);
    knock(name);
    int last = dup(0);
    low.rlim_cur = low.rlim_max = (rlim_t)last + 1; /* libken's own may go beyond the soft limit */
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &low), 0);
    for (int k = 0; k < 3; k++) {
        cr_assert(told(2000)); /* who knocks, or the alarm */
        transport_wake();
        transport_pump();
        cr_assert_eq(transport_table->open, 0);
        cr_assert(k % 2 || !told(0), "it is told of again at once");
    }
    close(last);
    for (int k = 0; k < 100 && !transport_table->open; k++) {
        cr_assert(told(2000), "it is forgotten");
        transport_wake();
        transport_pump();
    }
    cr_assert_eq(transport_table->open, 1);
}
