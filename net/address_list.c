#include "net/address_list.h"
#include "net/address_text.h"

#include <arpa/inet.h>

static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};

static bool is_separator(char c)
{
    return c == ',' || c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* Bits beyond the prefix that are set: a typing error in the address or in its length. */
static bool has_stray_bits(const struct wire_address *a, unsigned bits)
{
    for (unsigned i = bits; i < 128; i++)
        if (a->bytes[i / 8] & 0x80 >> i % 8)
            return true;
    return false;
}

static int add_entry(struct address_list *l, const struct wire_address *a, unsigned bits)
{
    if (l->entries == ADDRESS_LIST_MAX)
        return -E2BIG;
    l->entry[l->entries++] = (struct address_entry){.address = *a, .bits = (uint16_t)bits};
    return 0;
}

static int add_network(struct address_list *l, const char *text, size_t length, const char *slash)
{
    struct wire_address a;
    unsigned bits, most;
    if (!address_scan(&a, text, (size_t)(slash - text)))
        return -EINVAL;
    most = memchr(text, ':', (size_t)(slash - text)) ? 128 : 32;
    if (!address_scan_number(&bits, slash + 1, length - (size_t)(slash + 1 - text), most))
        return -EINVAL;
    bits += 128 - most;
    return has_stray_bits(&a, bits) ? -EINVAL : add_entry(l, &a, bits);
}

static bool is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

/* A last label that is a number makes it a mistyped address. Source: RFC 1123, section 2.1. */
static bool is_name(const char *text, size_t length)
{
    bool label = false, letters = false;
    if (!length || length >= ADDRESS_NAME_BYTES || text[0] == '-')
        return false;
    for (size_t i = 0; i < length; i++) {
        char c = text[i];
        if (c == '.') {
            if (!label)
                return false;
            label = letters = false;
            continue;
        }
        if (!is_letter(c) && c != '-' && !(c >= '0' && c <= '9'))
            return false;
        label = true;
        letters |= is_letter(c);
    }
    return label && letters;
}

static int add_name(struct address_list *l, const char *text, size_t length, uint16_t port)
{
    if (!is_name(text, length))
        return -EINVAL;
    if (l->names == ADDRESS_NAMES_MAX)
        return -E2BIG;
    memcpy(l->name[l->names].text, text, length);
    l->name[l->names].text[length] = '\0';
    l->name[l->names].port = port;
    l->name[l->names++].resolved = 0;
    return 0;
}

static int add_host(struct address_list *l, const char *text, size_t length, uint16_t port)
{
    struct wire_address a;
    if (!address_scan(&a, text, length))
        return add_name(l, text, length, port);
    a.port = port;
    return add_entry(l, &a, 128);
}

static int add_bracketed(struct address_list *l, const char *text, size_t length)
{
    struct wire_address a;
    unsigned port;
    const char *end = memchr(text, ']', length);
    size_t inner = end ? (size_t)(end - text) - 1 : 0;
    if (!end || !memchr(text + 1, ':', inner) || !address_scan(&a, text + 1, inner))
        return -EINVAL;
    if (inner + 2 == length)
        return add_entry(l, &a, 128);
    if (end[1] != ':' || !address_scan_number(&port, end + 2, length - inner - 3, 65535) || !port)
        return -EINVAL;
    a.port = htons((uint16_t)port);
    return add_entry(l, &a, 128);
}

static int add(struct address_list *l, const char *text, size_t length)
{
    unsigned port;
    const char *slash = memchr(text, '/', length), *colon = memchr(text, ':', length);
    if (slash)
        return add_network(l, text, length, slash);
    if (text[0] == '[')
        return add_bracketed(l, text, length);
    size_t host = colon ? (size_t)(colon - text) : length;
    if (!colon || memchr(colon + 1, ':', length - host - 1))
        return add_host(l, text, length, 0); /* without a port, or IPv6 */
    if (!address_scan_number(&port, colon + 1, length - host - 1, 65535) || !port)
        return -EINVAL;
    return add_host(l, text, host, htons((uint16_t)port));
}

int address_list_read(struct address_list *l, const char *text, const char **wrong, size_t *wrong_length)
{
    l->entries = l->names = 0;
    while (*text) {
        size_t n = 0;
        if (is_separator(*text)) {
            text++;
            continue;
        }
        while (text[n] && !is_separator(text[n]))
            n++;
        int r = add(l, text, n);
        if (r < 0) {
            *wrong = text;
            *wrong_length = n;
            l->entries = l->names = 0;
            return r;
        }
        text += n;
    }
    return 0;
}

int address_list_resolve(struct address_list *l, unsigned name, const struct wire_address *to)
{
    struct wire_address a = *to;
    a.port = l->name[name].port;
    int r = add_entry(l, &a, 128);
    if (r < 0)
        return r;
    l->entry[l->entries - 1].name = (uint16_t)(name + 1);
    l->name[name].resolved++;
    return 0;
}

int address_list_unresolved(const struct address_list *l)
{
    for (uint32_t i = 0; i < l->names; i++)
        if (!l->name[i].resolved)
            return (int)i;
    return -1;
}

static bool covers(const struct address_entry *e, const struct wire_address *a)
{
    unsigned whole = e->bits / 8, rest = e->bits % 8;
    if (memcmp(e->address.bytes, a->bytes, whole) != 0)
        return false;
    return !rest || !((e->address.bytes[whole] ^ a->bytes[whole]) >> (8 - rest));
}

/* `::/0` and the like are meant for IPv6: IPv4 addresses are in it only by the way that we write them. */
static bool same_family(const struct address_entry *e, const struct wire_address *a)
{
    bool v4 = e->bits >= 96 && !memcmp(e->address.bytes, mapped, sizeof mapped);
    return v4 == !memcmp(a->bytes, mapped, sizeof mapped);
}

static enum listed match(const struct address_list *l, const struct wire_address *a, uint16_t port)
{
    enum listed found = LISTED_NO;
    for (uint32_t i = 0; i < l->entries; i++) {
        const struct address_entry *e = &l->entry[i];
        if (!same_family(e, a) || !covers(e, a))
            continue;
        if (!e->address.port || e->address.port == port)
            return LISTED_YES;
        found = LISTED_HOST;
    }
    return found;
}

enum listed address_list_match(const struct address_list *l, const struct wire_address *to)
{
    return match(l, to, to->port);
}

enum listed address_list_match_source(const struct address_list *l, const struct wire_address *from)
{
    return match(l, from, 0);
}

const char *address_list_name_of(const struct address_list *l, const struct wire_address *a)
{
    for (uint32_t i = 0; i < l->entries; i++) {
        const struct address_entry *e = &l->entry[i];
        if (e->name && covers(e, a) && (!e->address.port || e->address.port == a->port))
            return l->name[e->name - 1].text;
    }
    return NULL;
}

bool address_list_follow(const struct address_list *l, const char *name, struct wire_address *a)
{
    const struct address_entry *found = NULL;
    for (uint32_t i = 0; i < l->entries; i++) {
        const struct address_entry *e = &l->entry[i];
        if (!e->name || strcmp(l->name[e->name - 1].text, name) != 0 || (e->address.port && e->address.port != a->port))
            continue;
        if (covers(e, a))
            return true;
        if (!found || (same_family(e, a) && !same_family(found, a)))
            found = e;
    }
    if (found)
        memcpy(a->bytes, found->address.bytes, sizeof a->bytes);
    return found;
}
