/* Internet addresses, in the one form that frames carry. */
#include "net/address.h"

static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};

static bool is_v4(const struct wire_address *a)
{
    return !memcmp(a->bytes, mapped, sizeof mapped);
}

bool address_read(struct wire_address *to, const void *sockaddr, size_t length)
{
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
    sa_family_t family;
    *to = (struct wire_address){0};
    if (length < sizeof family)
        return false;
    memcpy(&family, sockaddr, sizeof family);
    if (family == AF_INET && length >= sizeof in) {
        memcpy(&in, sockaddr, sizeof in);
        memcpy(to->bytes, mapped, sizeof mapped);
        memcpy(to->bytes + 12, &in.sin_addr, 4);
        to->port = in.sin_port;
        return true;
    }
    if (family == AF_INET6 && length >= sizeof in6 - sizeof in6.sin6_scope_id) {
        memcpy(&in6, sockaddr, offsetof(struct sockaddr_in6, sin6_scope_id));
        memcpy(to->bytes, &in6.sin6_addr, 16);
        to->port = in6.sin6_port;
        return true;
    }
    return false;
}

size_t address_write(const struct wire_address *a, int domain, void *to, size_t room)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = a->port};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = a->port};
    bool short_form = domain == AF_INET;
    memcpy(&in.sin_addr, a->bytes + 12, 4);
    memcpy(&in6.sin6_addr, a->bytes, 16);
    size_t length = short_form ? sizeof in : sizeof in6;
    memcpy(to, short_form ? (void *)&in : (void *)&in6, room < length ? room : length);
    return length;
}

static bool all_zero(const uint8_t *p, size_t n)
{
    while (n && !*p)
        p++, n--;
    return !n;
}

bool address_is_wildcard(const struct wire_address *a)
{
    return all_zero(is_v4(a) ? a->bytes + 12 : a->bytes, is_v4(a) ? 4 : 16);
}

bool address_is_group(const struct wire_address *a)
{
    if (is_v4(a))
        return a->bytes[12] >= 224;
    return a->bytes[0] == 0xff;
}

bool address_is_loopback(const struct wire_address *a)
{
    return is_v4(a) ? a->bytes[12] == 127 : all_zero(a->bytes, 15) && a->bytes[15] == 1;
}

/* Sending to the wildcard means this host. */
struct wire_address address_target(const struct wire_address *a)
{
    struct wire_address to = *a;
    if (!address_is_wildcard(a))
        return to;
    if (is_v4(a)) {
        to.bytes[12] = 127;
    }
    to.bytes[15] = 1;
    return to;
}

struct wire_address address_source(const struct wire_address *local, const struct wire_address *to)
{
    struct wire_address from = *local;
    if (!address_is_wildcard(local))
        return from;
    struct wire_address target = address_target(to);
    memcpy(from.bytes, target.bytes, sizeof from.bytes);
    if (is_v4(&target) && target.bytes[12] == 127) {
        from.bytes[13] = from.bytes[14] = 0;
        from.bytes[15] = 1;
    }
    return from;
}

static char *put_number(char *at, unsigned value, unsigned base)
{
    char digits[12];
    int n = 0;
    do
        digits[n++] = "0123456789abcdef"[value % base];
    while (value /= base);
    while (n)
        *at++ = digits[--n];
    return at;
}

void address_name(char *to, enum protocol p, const struct wire_address *a)
{
    memcpy(to, p == PROTOCOL_TCP ? "ken/tcp/" : "ken/udp/", 8);
    to += 8;
    if (is_v4(a)) {
        for (int i = 12; i < 16; i++) {
            to = put_number(to, a->bytes[i], 10);
            *to++ = i < 15 ? '.' : ':';
        }
    } else {
        *to++ = '[';
        for (int i = 0; i < 16; i += 2) {
            to = put_number(to, (unsigned)(a->bytes[i] << 8 | a->bytes[i + 1]), 16);
            *to++ = i < 14 ? ':' : ']';
        }
        *to++ = ':';
    }
    to = put_number(to, ntohs(a->port), 10);
    *to = '\0';
}

/* The wildcard of either family at the same port. */
struct wire_address address_any(const struct wire_address *a, bool v4)
{
    struct wire_address any = {.port = a->port};
    if (v4)
        memcpy(any.bytes, mapped, sizeof mapped);
    return any;
}

bool address_is_v4(const struct wire_address *a)
{
    return is_v4(a);
}
