/* Peers on other hosts: the settings, and connections within 127.0.0.0/8, whose addresses stand for hosts. */
#include "net_host.h"
#include "net/address.h"
#include "net/address_text.h"
#include "net/remote.h"
#include "heap/say.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/stat.h>

static struct remote us, them;
static char why[400], key_path[64];
static int stderr_pipe[2];

static void setup(void)
{
    snprintf(key_path, sizeof key_path, "/tmp/ken-remote-%d", (int)getpid());
    int fd = open(key_path, O_CREAT | O_TRUNC | O_WRONLY, 0600);
    cr_assert(fd >= 0 && write(fd, "0123456789abcdef0123456789abcdef", 32) == 32);
    close(fd);
    cr_assert_eq(pipe2(stderr_pipe, O_NONBLOCK), 0);
    say_to(stderr_pipe[1]);
}

static void teardown(void)
{
    unlink(key_path);
}

TestSuite(remote, .init = setup, .fini = teardown);

static const char *lines(void)
{
    static char text[2000];
    ssize_t n = read(stderr_pipe[0], text, sizeof text - 1);
    text[n > 0 ? n : 0] = '\0';
    return text;
}

static struct wire_address address(const char *text, unsigned port)
{
    struct wire_address a;
    cr_assert(address_scan(&a, text, strlen(text)));
    a.port = htons((uint16_t)port);
    return a;
}

static int set_up(struct remote *r, const char *peers, const char *key)
{
    memset(r, 0, sizeof *r);
    return remote_open(r, peers, key, "/bin/false", why, sizeof why);
}

static unsigned port_of(long fd)
{
    struct sockaddr_in6 in;
    socklen_t length = sizeof in;
    cr_assert_eq(getsockname((int)fd, (struct sockaddr *)&in, &length), 0);
    return ntohs(in.sin6_port);
}

Test(remote, settings)
{
    cr_assert(set_up(&us, NULL, NULL) == 0 && !remote_any(&us) && !us.has_key);
    cr_assert(set_up(&us, "", "") == 0 && !remote_any(&us));
    cr_assert(set_up(&us, "10.0.0.0/8", key_path) == 0 && remote_any(&us) && us.has_key, "%s", why);
    cr_assert_eq(set_up(&us, "10.0.0.0/8 10.0.0.1/8", key_path), -EINVAL);
    cr_assert(strstr(why, "KEN_PEERS: '10.0.0.1/8' is none of") && !remote_any(&us), "%s", why);
    cr_assert_eq(set_up(&us, "10.0.0.0/8 nobody.example:80", key_path), -ENOENT);
    cr_assert(strstr(why, "'nobody.example' has no address") && !remote_any(&us), "%s", why);
    cr_assert_eq(set_up(&us, "10.0.0.0/8", "/no/such/key"), -ENOENT);
    cr_assert(strstr(why, "KEN_KEY_FILE /no/such/key"), "%s", why);
    chmod(key_path, 0640);
    cr_assert_eq(set_up(&us, NULL, key_path), -EACCES);
}

Test(remote, without_a_key_nothing_leaves_the_host_and_the_line_says_what_to_set)
{
    static struct link l;
    struct wire_address far = address("192.0.2.1", 7001);
    cr_assert_eq(set_up(&us, "192.0.2.0/24", NULL), 0);
    for (int i = 0; i < 10; i++)
        cr_assert_eq(remote_dial(&us, &far, &l), -ENOKEY);
    const char *text = lines();
    cr_assert(strstr(text, "192.0.2.1:7001") && strstr(text, "KEN_KEY_FILE"), "%s", text);
    cr_assert_eq(strchr(text, '\n') + 1, strchr(text, '\0'), "more than one line: %s", text);
}

static long listener;
static struct wire_address home;

static void listen_here(void)
{
    struct wire_address at = address("127.0.0.1", 0);
    listener = remote_listen(&at, false, false);
    cr_assert_geq(listener, 0);
    home = address("127.0.0.1", port_of(listener));
}

static int accept_one(struct link *l, struct wire_address *from, long *ticket)
{
    struct pollfd p = {(int)listener, POLLIN, 0};
    poll(&p, 1, 1000);
    return remote_accept(&us, (int)listener, false, l, from, ticket);
}

static struct link a, b;
static unsigned char got[100000];

static void settle(long *ra, long *rb)
{
    *ra = *rb = -EAGAIN;
    for (int i = 0; i < 100 && !(link_ready(&a) && link_ready(&b)); i++) {
        struct pollfd p[2] = {{a.fd, POLLIN, 0}, {b.fd, POLLIN, 0}};
        link_push(&a);
        poll(p, 2, 10);
        *rb = link_receive(&b, got, sizeof got);
        *ra = link_receive(&a, got, sizeof got);
        if ((*ra < 0 && *ra != -EAGAIN) || (*rb < 0 && *rb != -EAGAIN))
            return;
    }
}

static void connect_and_talk(bool sealed)
{
    struct wire_address from;
    long ticket, ra, rb;
    listen_here();
    cr_assert_eq(remote_dial(&them, &home, &a), 0);
    cr_assert_eq(accept_one(&b, &from, &ticket), 0);
    cr_assert(a.sealed == sealed && b.sealed == sealed && address_is_loopback(&from));
    settle(&ra, &rb);
    cr_assert(link_ready(&a) && link_ready(&b), "%ld %ld", ra, rb);
    cr_assert(auth_gate_admits(&us.gate, ticket, remote_now_ms()));
    cr_assert_eq(link_send(&a, &(struct iovec){(void *)"hello", 5}, 1), 5);
    struct pollfd p = {b.fd, POLLIN, 0};
    poll(&p, 1, 1000);
    cr_assert(link_receive(&b, got, sizeof got) == 5 && !memcmp(got, "hello", 5));
    cr_assert_eq(remote_accept(&us, (int)listener, false, &b, &from, &ticket), -EAGAIN);
}

Test(remote, with_a_key_links_are_sealed_even_here)
{
    cr_assert(set_up(&us, "127.0.0.0/8", key_path) == 0 && set_up(&them, "127.0.0.0/8", key_path) == 0);
    connect_and_talk(true);
}

Test(remote, within_the_host_a_key_is_not_needed)
{
    cr_assert(set_up(&us, "127.0.0.0/8", NULL) == 0 && set_up(&them, "127.0.0.0/8", NULL) == 0);
    connect_and_talk(false);
}

Test(remote, another_key_is_dropped_with_one_line)
{
    struct wire_address from;
    long ticket, ra, rb;
    cr_assert(set_up(&us, "127.0.0.0/8", key_path) == 0 && set_up(&them, "127.0.0.0/8", key_path) == 0);
    them.key.bytes[5] ^= 1;
    listen_here();
    for (int i = 0; i < 5; i++) {
        cr_assert_eq(remote_dial(&them, &home, &a), 0);
        cr_assert_eq(accept_one(&b, &from, &ticket), 0);
        settle(&ra, &rb);
        cr_assert_eq(rb, AUTH_E_KEY);
        remote_complain(&us, &from, rb);
        auth_gate_leave(&us.gate, ticket);
        link_close(&b);
        link_close(&a);
    }
    const char *text = lines();
    cr_assert(strstr(text, "KEN_KEY_FILE") && strchr(text, '\n')[1] == '\0', "%s", text);
}

/* Plain programs that come to libken's own port: reset, and not one byte. */
Test(remote, who_is_not_listed_gets_no_byte)
{
    struct wire_address from;
    struct sockaddr_storage to;
    long ticket;
    char byte;
    cr_assert_eq(set_up(&us, "10.0.0.0/8", key_path), 0);
    listen_here();
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    cr_assert_eq(connect(fd, (struct sockaddr *)&to, (socklen_t)address_write(&home, AF_INET, &to, sizeof to)), 0);
    cr_assert_eq(accept_one(&b, &from, &ticket), -EACCES);
    cr_assert(read(fd, &byte, 1) == -1 && errno == ECONNRESET);
    cr_assert_str_eq(lines(), "");
}

Test(remote, a_flood_is_bounded_and_told_once)
{
    enum { MANY = AUTH_PLACES_OF_ONE + 20 };
    static struct link links[MANY];
    struct wire_address from;
    struct sockaddr_storage to;
    long ticket;
    int taken = 0, refused = 0;
    cr_assert_eq(set_up(&us, "127.0.0.0/8", key_path), 0);
    listen_here();
    for (int i = 0; i < MANY; i++) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        connect(fd, (struct sockaddr *)&to, (socklen_t)address_write(&home, AF_INET, &to, sizeof to));
        int e = accept_one(&links[i], &from, &ticket);
        taken += e == 0;
        refused += e == -EDQUOT;
    }
    cr_assert(taken == AUTH_PLACES_OF_ONE && refused == MANY - taken, "%d %d", taken, refused);
    const char *text = lines();
    cr_assert(strstr(text, "too many handshakes") && strchr(text, '\n')[1] == '\0', "%s", text);
}

Test(remote, ipv6_and_a_port_that_is_taken)
{
    struct wire_address at = address("::1", 0);
    long fd = remote_listen(&at, true, false);
    if (fd == -EADDRNOTAVAIL || fd == -EAFNOSUPPORT)
        cr_skip_test("no IPv6 here");
    cr_assert_geq(fd, 0);
    at.port = htons((uint16_t)port_of(fd));
    cr_assert_eq(remote_listen(&at, true, false), -EADDRINUSE);
    cr_assert_eq(set_up(&them, "::1", key_path), 0);
    cr_assert_eq(remote_dial(&them, &at, &a), 0);
}
