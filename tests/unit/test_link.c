/* Links over real sockets: raw and sealed look alike to the transport, with full buffers, cut and mixed pieces. */
#include "net/link.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define TOTAL (3u << 20)

static struct auth_key key, other_key;
static struct link a, b; /* a connects */
static unsigned char bytes[TOTAL], got[TOTAL + 200000];
static uint64_t seed = 0x9e3779b97f4a7c15;

static uint64_t random_bits(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    return seed ^= seed << 17;
}

static void setup(void)
{
    auth_make_key(&key, "0123456789abcdef0123456789abcdef", 32);
    auth_make_key(&other_key, "0123456789abcdef0123456789abcdeg", 32);
    for (size_t i = 0; i < TOTAL; i++)
        bytes[i] = (unsigned char)(i * 31 + i / 251);
}

TestSuite(link, .init = setup);

static void open_pair(bool sealed, const struct auth_key *theirs)
{
    int fd[2], small = 4096;
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
    for (int i = 0; i < 2; i++)
        setsockopt(fd[i], SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    if (!sealed) {
        link_open_raw(&a, fd[0]);
        link_open_raw(&b, fd[1]);
        return;
    }
    cr_assert_eq(link_open_sealed(&a, fd[0], AUTH_CONNECTS, &key), 0);
    cr_assert_eq(link_open_sealed(&b, fd[1], AUTH_ACCEPTS, theirs), 0);
}

/* Sends bytes[*sent..] in a vector of random pieces. */
static long send_some(struct link *l, size_t *sent)
{
    struct iovec v[8];
    size_t at = *sent;
    int n = 0;
    for (; n < 8 && at < TOTAL; n++) {
        size_t length = random_bits() % 6000;
        if (length > TOTAL - at)
            length = TOTAL - at;
        v[n] = (struct iovec){bytes + at, length};
        at += length;
    }
    long r = n ? link_send(l, v, n) : link_push(l);
    if (n && r > 0)
        *sent += (size_t)r;
    return r;
}

static void exchange(bool sealed)
{
    struct link *ends[] = {&a, &b};
    size_t sent[2] = {0}, taken[2] = {0};
    open_pair(sealed, &key);
    for (long rounds = 0; taken[0] < TOTAL || taken[1] < TOTAL; rounds++) {
        cr_assert_lt(rounds, 10000000);
        int i = (int)(random_bits() & 1);
        long r = send_some(ends[i], &sent[i]);
        cr_assert(r >= 0 || r == -EAGAIN, "%ld", r);
        r = link_receive(ends[i], got, LINK_ROOM_LEAST + random_bits() % 100000);
        cr_assert(r > 0 || r == -EAGAIN, "%ld after %zu", r, taken[i]);
        if (r < 0)
            continue;
        cr_assert(!memcmp(got, bytes + taken[i], (size_t)r));
        taken[i] += (size_t)r;
    }
    cr_assert(link_ready(&a) && link_ready(&b) && !link_pending(&a) && !link_pending(&b));
    link_close(&a);
    cr_assert_eq(link_receive(&b, got, sizeof got), 0);
    long r = link_send(&b, &(struct iovec){bytes, 10}, 1);
    cr_assert(r == -EPIPE || r == -ECONNRESET, "%ld", r);
}

Test(link, raw_both_ways_through_small_buffers)
{
    exchange(false);
}

Test(link, sealed_both_ways_through_small_buffers)
{
    exchange(true);
}

/* What has come stays available to the kernel's readiness, and nothing is stuck in the link: poll before each call. */
Test(link, readable_means_something_to_take_and_not_readable_nothing)
{
    size_t sent = 0, taken = 0;
    open_pair(true, &key);
    while (taken < TOTAL) {
        send_some(&a, &sent);
        struct pollfd p[2] = {{a.fd, POLLIN | (link_pending(&a) ? POLLOUT : 0), 0}, {b.fd, POLLIN, 0}};
        cr_assert_gt(poll(p, 2, 1000), 0, "stuck at %zu of %zu", taken, sent);
        if (p[0].revents & POLLIN)
            cr_assert_eq(link_receive(&a, got, sizeof got), -EAGAIN);
        if (p[0].revents & POLLOUT)
            link_push(&a);
        if (!p[1].revents)
            continue;
        long r = link_receive(&b, got, LINK_ROOM_LEAST);
        cr_assert(r > 0 || r == -EAGAIN);
        cr_assert(r < 0 || !memcmp(got, bytes + taken, (size_t)r));
        taken += r > 0 ? (size_t)r : 0;
    }
}

static void settle(void)
{
    for (int i = 0; i < 4; i++) {
        link_receive(&b, got, sizeof got);
        link_receive(&a, got, sizeof got);
        link_push(&a);
        link_push(&b);
    }
}

Test(link, a_wrong_key_breaks_both_and_nothing_passes)
{
    open_pair(true, &other_key);
    cr_assert_eq(link_push(&a), 0);
    cr_assert_eq(link_send(&a, &(struct iovec){bytes, 10}, 1), -EAGAIN);
    cr_assert_eq(link_receive(&b, got, sizeof got), AUTH_E_KEY);
    cr_assert_eq(link_receive(&b, got, sizeof got), AUTH_E_KEY);
    cr_assert_eq(link_send(&b, &(struct iovec){bytes, 10}, 1), AUTH_E_KEY);
    link_close(&b);
    cr_assert_eq(link_receive(&a, got, sizeof got), AUTH_E_TRUNCATED);
}

Test(link, a_plain_client_is_noticed_at_its_first_bytes)
{
    open_pair(true, &key);
    cr_assert_eq(write(a.fd, "GET / HTTP/1.1\r\n\r\n", 18), 18);
    cr_assert_eq(link_receive(&b, got, sizeof got), AUTH_E_MALFORMED);
}

Test(link, what_was_good_before_a_forged_record_is_taken_first)
{
    unsigned char noise[100] = {80};
    open_pair(true, &key);
    link_push(&a);
    settle();
    cr_assert(link_ready(&a) && link_ready(&b));
    cr_assert_eq(link_send(&a, &(struct iovec){bytes, 300}, 1), 300);
    cr_assert_eq(write(a.fd, noise, sizeof noise), (ssize_t)sizeof noise);
    cr_assert_eq(link_receive(&b, got, sizeof got), 300);
    cr_assert(!memcmp(got, bytes, 300));
    struct pollfd p = {b.fd, POLLIN, 0};
    cr_assert_eq(poll(&p, 1, 0), 1); /* the owner is told to ask again */
    cr_assert_eq(link_receive(&b, got, sizeof got), AUTH_E_FORGED);
}

Test(link, an_end_within_a_record_is_an_error_and_between_two_it_is_not)
{
    for (int cut = 0; cut < 2; cut++) {
        unsigned char half[10] = {80};
        open_pair(true, &key);
        link_push(&a);
        settle();
        if (cut)
            cr_assert_eq(write(a.fd, half, sizeof half), (ssize_t)sizeof half);
        shutdown(a.fd, SHUT_WR);
        if (cut)
            cr_assert_eq(link_receive(&b, got, sizeof got), -EAGAIN);
        cr_assert_eq(link_receive(&b, got, sizeof got), cut ? AUTH_E_TRUNCATED : 0);
    }
}

Test(link, garbage_ahead_of_the_handshake_is_bounded)
{
    open_pair(true, &key);
    int big = 1 << 20;
    setsockopt(a.fd, SOL_SOCKET, SO_SNDBUF, &big, sizeof big);
    link_push(&a);
    memset(got, 'x', 100000);
    long n = write(a.fd, got, 100000);
    cr_assert_gt(n, 40000);
    long r = link_receive(&b, got, sizeof got);
    cr_assert(r == AUTH_E_MALFORMED, "%ld", r);
}

/* Over TCP that is still connecting, one byte at a time in one direction. */
Test(link, tcp_that_connects_meanwhile)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof in;
    int listener = socket(AF_INET, SOCK_STREAM, 0), fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    cr_assert(bind(listener, (struct sockaddr *)&in, sizeof in) == 0 && listen(listener, 5) == 0);
    getsockname(listener, (struct sockaddr *)&in, &length);
    connect(fd, (struct sockaddr *)&in, sizeof in);
    cr_assert_eq(link_open_sealed(&a, fd, AUTH_CONNECTS, &key), 0);
    int taken = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
    cr_assert_eq(link_open_sealed(&b, taken, AUTH_ACCEPTS, &key), 0);
    for (int i = 0; i < 1000 && !(link_ready(&a) && link_ready(&b)); i++) {
        struct pollfd p[2] = {{a.fd, POLLIN, 0}, {b.fd, POLLIN, 0}};
        link_push(&a);
        poll(p, 2, 10);
        settle();
    }
    cr_assert(link_ready(&a) && link_ready(&b));
    for (int i = 0; i < 300; i++)
        cr_assert_eq(link_send(&a, &(struct iovec){bytes + i, 1}, 1), 1);
    size_t have = 0;
    while (have < 300) {
        struct pollfd p = {b.fd, POLLIN, 0};
        cr_assert_eq(poll(&p, 1, 1000), 1);
        long r = link_receive(&b, got + have, LINK_ROOM_LEAST);
        cr_assert(r > 0 || r == -EAGAIN);
        have += r > 0 ? (size_t)r : 0;
    }
    cr_assert(!memcmp(got, bytes, 300));
}

Test(link, tcp_that_nobody_answers)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof in;
    int closed = socket(AF_INET, SOCK_STREAM, 0), fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    cr_assert_eq(bind(closed, (struct sockaddr *)&in, sizeof in), 0); /* bound, not listening */
    getsockname(closed, (struct sockaddr *)&in, &length);
    connect(fd, (struct sockaddr *)&in, sizeof in);
    cr_assert_eq(link_open_sealed(&a, fd, AUTH_CONNECTS, &key), 0);
    struct pollfd p = {fd, POLLIN, 0};
    cr_assert_eq(poll(&p, 1, 1000), 1);
    cr_assert_eq(link_receive(&a, got, sizeof got), -ECONNREFUSED);
    link_close(&a);
}
