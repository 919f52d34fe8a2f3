/* The program that tells peers' connections from others, run here as the kernel runs it, against the list itself. */
#include "net/address_text.h"
#include "net/remote_steer.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

static struct address_list list;
static struct sock_filter code[STEER_MAX];
static uint64_t seed = 0x9e3779b97f4a7c15;

static uint64_t random_bits(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    return seed ^= seed << 17;
}

static uint32_t run(size_t length, const uint8_t *header)
{
    uint32_t a = 0, x = 0, w;
    for (size_t pc = 0; pc < length; pc++) {
        struct sock_filter i = code[pc];
        uint32_t at = i.k - (uint32_t)SKF_NET_OFF;
        switch (i.code) {
        case BPF_LD | BPF_B | BPF_ABS:
            a = header[at];
            break;
        case BPF_LD | BPF_W | BPF_ABS:
            memcpy(&w, header + at, 4);
            a = ntohl(w);
            break;
        case BPF_MISC | BPF_TAX:
            x = a;
            break;
        case BPF_ALU | BPF_AND | BPF_K:
            a &= i.k;
            break;
        case BPF_ALU | BPF_RSH | BPF_K:
            a >>= i.k;
            break;
        case BPF_JMP | BPF_JA:
            pc += i.k;
            break;
        case BPF_JMP | BPF_JEQ | BPF_K:
            pc += a == i.k ? i.jt : i.jf;
            break;
        case BPF_JMP | BPF_JEQ | BPF_X:
            pc += a == x ? i.jt : i.jf;
            break;
        case BPF_RET | BPF_K:
            return i.k;
        default:
            cr_assert_fail("instruction %x", i.code);
        }
    }
    cr_assert_fail("it ran past its end");
    return 0;
}

static size_t compile(const char *text)
{
    const char *wrong;
    size_t n;
    cr_assert_eq(address_list_read(&list, text, &wrong, &n), 0, "%s", text);
    return steer_compile(&list, 1, 0, code);
}

static uint32_t ask(size_t length, const struct wire_address *from, const struct wire_address *to)
{
    static const uint8_t mapped[12] = {[10] = 0xff, 0xff};
    uint8_t header[40] = {0};
    bool v4 = !memcmp(from->bytes, mapped, 12);
    header[0] = v4 ? 0x45 : 0x60;
    memcpy(header + (v4 ? 12 : 8), from->bytes + (v4 ? 12 : 0), v4 ? 4 : 16);
    memcpy(header + (v4 ? 16 : 24), to->bytes + (v4 ? 12 : 0), v4 ? 4 : 16);
    return run(length, header);
}

static void expect(size_t length, const char *from, const char *to, uint32_t answer)
{
    struct wire_address a, b;
    cr_assert(address_scan(&a, from, strlen(from)) && address_scan(&b, to, strlen(to)));
    cr_assert_eq(ask(length, &a, &b), answer, "%s to %s", from, to);
}

Test(remote_steer, by_the_source)
{
    size_t n = compile("10.1.0.0/16 10.2.0.7:80 fd00::/8 [2001:db8::5]:53");
    expect(n, "10.1.2.3", "10.1.0.1", 1);
    expect(n, "10.2.0.7", "10.1.0.1", 1);
    expect(n, "10.2.0.8", "10.1.0.1", 0);
    expect(n, "fd12::1", "fd00::2", 1);
    expect(n, "2001:db8::5", "fd00::2", 1);
    expect(n, "2001:db8::6", "fd00::2", 0);
    expect(n, "fe00::1", "fd00::2", 0);
}

Test(remote_steer, this_host_is_not_another_one)
{
    size_t n = compile("0.0.0.0/0 ::/0");
    expect(n, "127.0.0.1", "10.1.0.1", 0);
    expect(n, "127.9.9.9", "127.0.0.1", 0);
    expect(n, "10.1.0.1", "10.1.0.1", 0);
    expect(n, "10.1.0.2", "10.1.0.1", 1);
    expect(n, "::1", "::1", 0);
    expect(n, "fd00::1", "fd00::1", 0);
    expect(n, "fd00::1", "fd00::2", 1);
    expect(n, "fd00:0:0:1::", "fd00::", 1);
}

Test(remote_steer, as_the_list_says)
{
    for (int round = 0; round < 300; round++) {
        char text[2000] = "";
        struct wire_address nets[8];
        for (int i = 0; i < 8; i++) {
            bool v4 = random_bits() & 1;
            unsigned most = v4 ? 32 : 128, bits = (unsigned)(random_bits() % (most + 1));
            struct wire_address a = {.bytes = {[10] = v4 ? 0xff : 0, v4 ? 0xff : 0}};
            for (int k = v4 ? 12 : 0; k < 16; k++)
                a.bytes[k] = (uint8_t)random_bits();
            if (!v4)
                a.bytes[0] |= 0x20;
            nets[i] = a;
            for (unsigned b = bits + 128 - most; b < 128; b++)
                a.bytes[b / 8] &= (uint8_t) ~(0x80 >> b % 8);
            char *at = text + strlen(text);
            at += address_print(at, &a);
            sprintf(at, "/%u ", bits);
        }
        size_t n = compile(text);
        for (int k = 0; k < 300; k++) {
            struct wire_address from = nets[random_bits() % 8], to = {.bytes = {[10] = 0xff, 0xff, 1, 2, 3, 4}};
            unsigned flip = (unsigned)(random_bits() % 128);
            if (from.bytes[10] == 0xff && from.bytes[11] == 0xff)
                flip = 96 + flip % 32;
            if (k & 1)
                from.bytes[flip / 8] ^= (uint8_t)(0x80 >> flip % 8);
            if (from.bytes[0] == 0 && from.bytes[12] == 127)
                continue;
            bool want = address_list_match_source(&list, &from) != LISTED_NO;
            cr_assert_eq(ask(n, &from, &to), want, "%s", text);
        }
    }
}

/* The longest list fits, and the kernel takes it, unprivileged or not. */
Test(remote_steer, the_kernel_takes_it)
{
    static char text[ADDRESS_LIST_MAX * 60];
    for (unsigned i = 0; i < ADDRESS_LIST_MAX; i++)
        sprintf(text + strlen(text), "2001:db8:1234:5678:9abc:def0:1234:%x ", i);
    size_t n = compile(text);
    cr_assert_lt(n, STEER_MAX);
    int fd = socket(AF_INET6, SOCK_STREAM, 0);
    cr_assert_eq(steer_prepare(&list, fd), 0);
    close(fd);
}
