/* Who has an address, as the kernel's lists tell: each kind of socket, many sockets, and none. */
#include "net_host.h"
#include "net/address.h"

#include <arpa/inet.h>

static int open_at(int domain, int type, const char *text, bool ready, struct wire_address *a)
{
    struct sockaddr_in in = {.sin_family = AF_INET};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};
    struct sockaddr_storage got;
    socklen_t length = sizeof got;
    int fd = socket(domain, type | SOCK_CLOEXEC, 0);
    if (fd < 0)
        cr_skip_test("no such sockets here");
    inet_pton(domain, text, domain == AF_INET ? (void *)&in.sin_addr : (void *)&in6.sin6_addr);
    if (bind(fd, domain == AF_INET ? (void *)&in : (void *)&in6, domain == AF_INET ? sizeof in : sizeof in6) < 0)
        cr_skip_test("no such address here");
    if (ready && type == SOCK_STREAM)
        cr_assert_eq(listen(fd, 1), 0);
    cr_assert_eq(getsockname(fd, (void *)&got, &length), 0);
    cr_assert(address_read(a, &got, length));
    return fd;
}

static struct wire_address at(const char *text, in_port_t port)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = port};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = port};
    struct wire_address a;
    bool v6 = strchr(text, ':');
    inet_pton(v6 ? AF_INET6 : AF_INET, text, v6 ? (void *)&in6.sin6_addr : (void *)&in.sin_addr);
    cr_assert(v6 ? address_read(&a, &in6, sizeof in6) : address_read(&a, &in, sizeof in));
    return a;
}

static void try(int domain, int type, const char *where, const char *same, const char *other)
{
    enum protocol p = type == SOCK_STREAM ? PROTOCOL_TCP : PROTOCOL_UDP;
    struct wire_address a, b;
    int fd = open_at(domain, type, where, true, &a);
    b = at(same, a.port);
    cr_assert(address_is_held(p, &b), "%s has %s", where, same);
    b.port = htons((uint16_t)(ntohs(b.port) ^ 1));
    int twin = open_at(domain, type, where, false, &(struct wire_address){0}); /* somebody is always there */
    if (other) {
        b = at(other, a.port);
        cr_assert(!address_is_held(p, &b), "%s has not %s", where, other);
    }
    close(twin);
    close(fd);
    b = at(same, a.port);
    cr_assert(!address_is_held(p, &b), "%s is gone", where);
}

Test(address_held, each_family_and_protocol)
{
    for (int i = 0; i < 2; i++) {
        int type = i ? SOCK_STREAM : SOCK_DGRAM;
        try(AF_INET, type, "127.0.0.1", "127.0.0.1", "127.0.0.2");
        try(AF_INET, type, "0.0.0.0", "127.0.0.3", NULL);
        try(AF_INET6, type, "::1", "::1", "127.0.0.1");
        try(AF_INET6, type, "::", "::1", NULL);
    }
}

Test(address_held, who_is_bound_but_does_not_listen_has_nothing)
{
    struct wire_address a;
    int fd = open_at(AF_INET, SOCK_STREAM, "127.0.0.1", false, &a);
    cr_assert(!address_is_held(PROTOCOL_TCP, &a));
    cr_assert_eq(listen(fd, 1), 0);
    cr_assert(address_is_held(PROTOCOL_TCP, &a));
}

/* The list is longer than one read. */
Test(address_held, among_many)
{
    enum { MANY = 300 };
    struct wire_address a[MANY];
    int fds[MANY];
    for (int i = 0; i < MANY; i++)
        fds[i] = open_at(AF_INET, SOCK_STREAM, "127.0.0.1", true, &a[i]);
    for (int i = 0; i < MANY; i++)
        cr_assert(address_is_held(PROTOCOL_TCP, &a[i]), "%d", i);
    for (int i = 0; i < MANY; i += 2)
        close(fds[i]);
    for (int i = 0; i < MANY; i++)
        cr_assert_eq(address_is_held(PROTOCOL_TCP, &a[i]), i % 2, "%d", i);
}
