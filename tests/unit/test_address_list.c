/* Addresses as text, and KEN_PEERS. */
#include "net/address_list.h"
#include "net/address_text.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <stdio.h>

static struct address_list list;
static const char *wrong;
static size_t wrong_length;

static uint64_t seed = 0x9e3779b97f4a7c15;

static uint64_t random_bits(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    return seed ^= seed << 17;
}

static struct wire_address address(const char *text, unsigned port)
{
    struct wire_address a;
    cr_assert(address_scan(&a, text, strlen(text)), "%s", text);
    a.port = htons((uint16_t)port);
    return a;
}

static int parse(const char *text)
{
    return address_list_read(&list, text, &wrong, &wrong_length);
}

static void expect(const char *text, unsigned port, enum listed to, enum listed from)
{
    struct wire_address a = address(text, port);
    cr_assert_eq(address_list_match(&list, &a), to, "to %s:%u", text, port);
    cr_assert_eq(address_list_match_source(&list, &a), from, "from %s:%u", text, port);
}

/* --- text ---------------------------------------------------------------------------------------- */

/* Our reader and libc's agree, on good and on bad texts. */
static void agree(const char *text)
{
    struct wire_address a;
    uint8_t theirs[16] = {[10] = 0xff, 0xff};
    bool v6 = strchr(text, ':');
    bool want = inet_pton(v6 ? AF_INET6 : AF_INET, text, v6 ? theirs : theirs + 12) == 1;
    bool got = address_scan(&a, text, strlen(text));
    cr_assert_eq(got, want, "\"%s\": %d, not %d", text, got, want);
    if (got)
        cr_assert(!memcmp(a.bytes, theirs, 16), "%s", text);
}

Test(address_text, reads_what_libc_reads)
{
    static const char *const texts[] = {
        "", "0", "1.2.3.4", "255.255.255.255", "256.1.1.1", "1.2.3", "1.2.3.4.5", "1.2.3.", ".1.2.3", "1..2.3", "01.2.3.4",
        "1.2.3.4 ", " 1.2.3.4", "1.2.3.-4", "::", "::1", "1::", "1::2", "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7",
        "1:2:3:4:5:6:7:8:9", "1:2:3:4:5:6:7::", "::2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8::", ":1:2:3:4:5:6:7", "1:2:3:4:5:6:7:",
        ":", ":::", "::1::", "1::2::3", "12345::", "fFfF::AbC", "g::", "::1.2.3.4", "::ffff:1.2.3.4", "1:2:3:4:5:6:1.2.3.4",
        "1:2:3:4:5:6:7:1.2.3.4", "1.2.3.4::", "::1.2.3", "::1.2.3.4:5", "::1.2.3.256", "1:::2", "::00001", "::0001",
        "fe80::1%eth0", "1.2.3.4:80", "999999999999.1.1.1",
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        agree(texts[i]);
    for (int n = 0; n < 200000; n++) {
        char text[24];
        size_t length = random_bits() % sizeof text;
        for (size_t i = 0; i < length; i++)
            text[i] = "012:::.5af:"[random_bits() % 11];
        text[length] = '\0';
        agree(text);
    }
}

Test(address_text, writes_what_libc_writes)
{
    for (int n = 0; n < 100000; n++) {
        struct wire_address a = {0}, back;
        char ours[ADDRESS_TEXT], theirs[INET6_ADDRSTRLEN];
        for (int i = 0; i < 16; i++)
            a.bytes[i] = random_bits() % 3 ? 0 : (uint8_t)random_bits();
        a.bytes[0] |= 1; /* libc writes ::1.2.3.4 for the deprecated IPv4-compatible ones */
        inet_ntop(AF_INET6, a.bytes, theirs, sizeof theirs);
        size_t length = address_print(ours, &a);
        cr_assert_str_eq(ours, theirs);
        cr_assert_eq(length, strlen(ours));
        cr_assert(address_scan(&back, ours, length) && wire_same_address(&a, &back));
    }
}

Test(address_text, with_ports)
{
    char text[ADDRESS_TEXT];
    struct wire_address a = address("10.1.2.3", 65535);
    address_print(text, &a);
    cr_assert_str_eq(text, "10.1.2.3:65535");
    a = address("fd00::1", 80);
    address_print(text, &a);
    cr_assert_str_eq(text, "[fd00::1]:80");
    a = address("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 65535);
    cr_assert_lt(address_print(text, &a), ADDRESS_TEXT);
}

/* --- the list ------------------------------------------------------------------------------------ */

Test(address_list, an_empty_list_lists_nobody)
{
    cr_assert_eq(parse(""), 0);
    expect("10.1.2.3", 80, LISTED_NO, LISTED_NO);
    cr_assert_eq(parse(" ,, \t\n"), 0);
    expect("::1", 80, LISTED_NO, LISTED_NO);
    cr_assert_eq(address_list_unresolved(&list), -1);
}

Test(address_list, networks_hosts_and_ports)
{
    cr_assert_eq(parse("10.1.0.0/16,192.168.1.128/25 10.2.0.7 10.3.0.1:7001\tfd00::/8 fe80::1 [2001:db8::5]:53 [2001:db8::6]"), 0);
    cr_assert_eq(list.entries, 8);
    expect("10.1.0.0", 1, LISTED_YES, LISTED_YES);
    expect("10.1.255.255", 65535, LISTED_YES, LISTED_YES);
    expect("10.0.255.255", 80, LISTED_NO, LISTED_NO);
    expect("10.2.0.0", 80, LISTED_NO, LISTED_NO);
    expect("192.168.1.128", 80, LISTED_YES, LISTED_YES);
    expect("192.168.1.127", 80, LISTED_NO, LISTED_NO);
    expect("10.2.0.7", 80, LISTED_YES, LISTED_YES);
    expect("10.2.0.6", 80, LISTED_NO, LISTED_NO);
    expect("10.3.0.1", 7001, LISTED_YES, LISTED_HOST);
    expect("10.3.0.1", 7002, LISTED_HOST, LISTED_HOST);
    expect("10.3.0.2", 7001, LISTED_NO, LISTED_NO);
    expect("fdff::1", 80, LISTED_YES, LISTED_YES);
    expect("fe00::1", 80, LISTED_NO, LISTED_NO);
    expect("fe80::1", 80, LISTED_YES, LISTED_YES);
    expect("2001:db8::5", 53, LISTED_YES, LISTED_HOST);
    expect("2001:db8::5", 54, LISTED_HOST, LISTED_HOST);
    expect("2001:db8::6", 54, LISTED_YES, LISTED_YES);
}

Test(address_list, the_whole_of_one_family_is_not_the_other)
{
    cr_assert_eq(parse("0.0.0.0/0"), 0);
    expect("1.2.3.4", 80, LISTED_YES, LISTED_YES);
    expect("::1", 80, LISTED_NO, LISTED_NO);
    cr_assert_eq(parse("::/0"), 0);
    expect("1.2.3.4", 80, LISTED_NO, LISTED_NO);
    expect("fd00::1", 80, LISTED_YES, LISTED_YES);
    cr_assert_eq(parse("::ffff:10.0.0.0/104"), 0);
    expect("10.9.9.9", 80, LISTED_YES, LISTED_YES);
}

/* Each prefix length, against a comparison bit by bit. */
Test(address_list, prefixes)
{
    for (int n = 0; n < 20000; n++) {
        unsigned bits = (unsigned)(random_bits() % 129);
        struct wire_address net = {0}, a;
        for (int i = 0; i < 16; i++)
            net.bytes[i] = (uint8_t)random_bits();
        net.bytes[0] |= 0x20;
        a = net;
        for (unsigned i = bits; i < 128; i++)
            net.bytes[i / 8] &= (uint8_t) ~(0x80 >> i % 8);
        char text[ADDRESS_TEXT + 8];
        size_t length = address_print(text, &net);
        snprintf(text + length, 8, "/%u", bits);
        cr_assert_eq(parse(text), 0, "%s", text);
        cr_assert_eq(address_list_match(&list, &a), LISTED_YES, "%s", text);
        if (!bits)
            continue;
        unsigned flip = (unsigned)(random_bits() % bits);
        a.bytes[flip / 8] ^= 0x80 >> flip % 8;
        cr_assert_eq(address_list_match(&list, &a), LISTED_NO, "%s bit %u", text, flip);
    }
}

Test(address_list, names)
{
    cr_assert_eq(parse("db.example:7001 web-1 a_b.c 3com.com"), 0);
    cr_assert_eq(list.names, 4);
    cr_assert_eq(list.entries, 0);
    cr_assert_str_eq(list.name[0].text, "db.example");
    cr_assert_eq(ntohs(list.name[0].port), 7001);
    cr_assert_eq(list.name[1].port, 0);
    cr_assert_eq(address_list_unresolved(&list), 0);
    expect("10.0.0.1", 7001, LISTED_NO, LISTED_NO);
    struct wire_address a = address("10.0.0.1", 9), b = address("fd00::1", 9);
    cr_assert_eq(address_list_resolve(&list, 0, &a), 0);
    cr_assert_eq(address_list_resolve(&list, 0, &b), 0);
    cr_assert_eq(address_list_unresolved(&list), 1);
    expect("10.0.0.1", 7001, LISTED_YES, LISTED_HOST);
    expect("fd00::1", 7001, LISTED_YES, LISTED_HOST);
    expect("10.0.0.1", 9, LISTED_HOST, LISTED_HOST);
    for (unsigned i = 1; i < 4; i++)
        address_list_resolve(&list, i, &a);
    cr_assert_eq(address_list_unresolved(&list), -1);
    expect("10.0.0.1", 9, LISTED_YES, LISTED_YES);
}

Test(address_list, wrong_entries_are_named_and_nothing_is_listed)
{
    static const char *const entries[] = {
        "10.1.0.0/33", "10.1.0.0/", "10.1.0.0/-1", "10.1.0.0/16x", "10.1.0.0/016", "10.1.2.3/16", "10.1/16", "/16", "fd00::/129",
        "fd00::1/8", "10.1.2", "10.1.2.3.4", "10.1.2.256", "10.1.2.3:", "10.1.2.3:0", "10.1.2.3:65536", "10.1.2.3:http",
        "10.1.2.3:-1", "[10.1.2.3]:80", "[fd00::1", "[fd00::1]:", "[fd00::1]:0", "[fd00::1]80", "[]", "[]:80", "[", "]", "fd00:::1",
        "name:0", "name:", ":80", ":", "-name", "na me!", "name/16", "name..de", ".name", "name.", "*", "10.1.*.*", "www.123",
        "n\xc3\xa4me", "tcp://10.1.2.3", "10.1.0.0/16:80", "fe80::1%eth0",
    };
    for (size_t i = 0; i < sizeof entries / sizeof *entries; i++) {
        char text[100];
        const char *bad = strcmp(entries[i], "na me!") == 0 ? "me!" : entries[i];
        snprintf(text, sizeof text, "10.9.0.0/16, %s ,10.8.0.0/16", entries[i]);
        cr_assert_eq(parse(text), -EINVAL, "%s was taken", entries[i]);
        cr_assert(wrong_length == strlen(bad) && !memcmp(wrong, bad, wrong_length), "%s: %.*s", entries[i], (int)wrong_length, wrong);
        expect("10.9.0.1", 80, LISTED_NO, LISTED_NO);
        cr_assert_eq(list.names, 0);
    }
}

Test(address_list, too_many)
{
    static char text[ADDRESS_LIST_MAX * 20 + 100];
    size_t at = 0;
    for (unsigned i = 0; i < ADDRESS_LIST_MAX; i++)
        at += (size_t)snprintf(text + at, sizeof text - at, "10.0.%u.%u ", i / 256, i % 256);
    cr_assert_eq(parse(text), 0);
    struct wire_address a = address("10.5.5.5", 0);
    snprintf(text + at, sizeof text - at, "10.5.5.5");
    cr_assert_eq(parse(text), -E2BIG);
    snprintf(text + at, sizeof text - at, "name");
    cr_assert_eq(parse(text), 0);
    cr_assert_eq(address_list_resolve(&list, 0, &a), -E2BIG);
    cr_assert_eq(address_list_unresolved(&list), 0);
    for (at = 0; at < 2 * (ADDRESS_NAMES_MAX + 1);)
        at += (size_t)snprintf(text + at, sizeof text - at, "n ");
    cr_assert_eq(parse(text), -E2BIG);
    memset(text, 'n', 300);
    text[300] = '\0';
    cr_assert_eq(parse(text), -EINVAL);
}

static void leads(const char *name, const char *from, unsigned port, const char *to)
{
    struct wire_address a = address(from, port), b = to ? address(to, port) : a;
    cr_assert_eq(address_list_follow(&list, name, &a), to != NULL, "%s", name);
    cr_assert(wire_same_address(&a, &b), "%s from %s", name, from);
}

/* A name that resolves elsewhere after a restart: same family if there is one, itself if it still has the address. */
Test(address_list, names_are_followed)
{
    cr_assert_eq(parse("10.1.0.0/16 moves stays:7001"), 0);
    struct wire_address a = address("10.2.0.1", 0), b = address("fd00::1", 0), c = address("10.2.0.2", 0);
    address_list_resolve(&list, 0, &a);
    address_list_resolve(&list, 0, &b);
    address_list_resolve(&list, 1, &c);
    leads("moves", "10.9.0.9", 80, "10.2.0.1");
    leads("moves", "fd09::9", 80, "fd00::1");
    leads("moves", "10.2.0.1", 80, "10.2.0.1");
    leads("stays", "10.2.0.2", 7001, "10.2.0.2");
    leads("stays", "fd09::9", 7001, "10.2.0.2");
    leads("stays", "10.9.0.9", 7002, NULL); /* it is listed for another port */
    leads("else", "10.9.0.9", 80, NULL);
    c.port = htons(7001);
    cr_assert_str_eq(address_list_name_of(&list, &a), "moves");
    cr_assert_str_eq(address_list_name_of(&list, &c), "stays");
    c = address("10.1.0.1", 80);
    cr_assert_null(address_list_name_of(&list, &c));
}
