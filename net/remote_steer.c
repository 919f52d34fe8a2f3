#include "net/remote_steer.h"
#include "heap/sys.h"

#include <arpa/inet.h>
#include <sys/mman.h>
#include <sys/socket.h>

#define NET(offset) ((uint32_t)SKF_NET_OFF + (offset)) /* in the network header */

static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};

struct code {
    struct sock_filter *at;
    size_t n;
};

static void put(struct code *c, unsigned what, unsigned yes, unsigned no, uint32_t k)
{
    if (c->n < STEER_MAX)
        c->at[c->n++] = (struct sock_filter){(uint16_t)what, (uint8_t)yes, (uint8_t)no, k};
}

static void load(struct code *c, uint32_t offset)
{
    put(c, BPF_LD | BPF_W | BPF_ABS, 0, 0, NET(offset));
}

static void give(struct code *c, uint32_t value)
{
    put(c, BPF_RET | BPF_K, 0, 0, value);
}

static uint32_t word(const uint8_t *bytes)
{
    uint32_t w;
    memcpy(&w, bytes, sizeof w);
    return ntohl(w);
}

/* One entry: `words` words of the source from `offset` on; past its end when they do not match. */
static void put_entry(struct code *c, const uint8_t *bytes, unsigned bits, uint32_t offset, uint32_t listed)
{
    unsigned words = (bits + 31) / 32;
    for (unsigned i = 0; i < words; i++) {
        unsigned left = bits - 32 * i < 32 ? bits - 32 * i : 32;
        unsigned skip = (words - i - 1) * 3 + 1; /* the other words, and the return */
        load(c, offset + 4 * i);
        put(c, BPF_ALU | BPF_AND | BPF_K, 0, 0, (uint32_t)(~0UL << (32 - left)));
        put(c, BPF_JMP | BPF_JEQ | BPF_K, 0, skip, word(bytes + 4 * i));
    }
    give(c, listed);
}

static void put_entries(struct code *c, const struct address_list *l, bool v4, uint32_t listed)
{
    for (uint32_t i = 0; i < l->entries; i++) {
        const struct address_entry *e = &l->entry[i];
        bool is_v4 = e->bits >= 96 && !memcmp(e->address.bytes, mapped, sizeof mapped);
        if (is_v4 != v4)
            continue;
        if (v4)
            put_entry(c, e->address.bytes + 12, e->bits - 96, 12, listed);
        else
            put_entry(c, e->address.bytes, e->bits, 8, listed);
    }
}

static void put_v4(struct code *c, const struct address_list *l, uint32_t listed, uint32_t other)
{
    load(c, 16); /* who connects from where it connects to */
    put(c, BPF_MISC | BPF_TAX, 0, 0, 0);
    load(c, 12);
    put(c, BPF_JMP | BPF_JEQ | BPF_X, 0, 1, 0);
    give(c, other);
    put(c, BPF_ALU | BPF_RSH | BPF_K, 0, 0, 24);
    put(c, BPF_JMP | BPF_JEQ | BPF_K, 0, 1, 127);
    give(c, other);
    put_entries(c, l, true, listed);
    give(c, other);
}

static void put_v6(struct code *c, const struct address_list *l, uint32_t listed, uint32_t other)
{
    for (uint32_t i = 0; i < 4; i++) { /* past the return at the first word that differs */
        load(c, 24 + 4 * i);
        put(c, BPF_MISC | BPF_TAX, 0, 0, 0);
        load(c, 8 + 4 * i);
        put(c, BPF_JMP | BPF_JEQ | BPF_X, 0, (3 - i) * 4 + 1, 0);
    }
    give(c, other); /* ::1 too */
    put_entries(c, l, false, listed);
    give(c, other);
}

size_t steer_compile(const struct address_list *l, uint32_t listed, uint32_t other, struct sock_filter to[STEER_MAX])
{
    struct code c = {to, 0};
    put(&c, BPF_LD | BPF_B | BPF_ABS, 0, 0, NET(0));
    put(&c, BPF_ALU | BPF_RSH | BPF_K, 0, 0, 4);
    put(&c, BPF_JMP | BPF_JEQ | BPF_K, 1, 0, 4);
    size_t jump = c.n;
    put(&c, BPF_JMP | BPF_JA, 0, 0, 0);
    put_v4(&c, l, listed, other);
    to[jump].k = (uint32_t)(c.n - jump - 1);
    put_v6(&c, l, listed, other);
    return c.n;
}

int steer_prepare(const struct address_list *l, int fd)
{
    int on = 1;
    size_t bytes = STEER_MAX * sizeof(struct sock_filter);
    long at = sys(SYS_mmap, 0, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (sys_failed(at)) /* EAGAIN: no more memory may be locked */
        return at == -EAGAIN ? -ENOMEM : (int)at;
    struct sock_filter *code = (struct sock_filter *)at;
    struct sock_fprog choose = {(unsigned short)steer_compile(l, 1, 0, code), code};
    long r = sys(SYS_setsockopt, fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
    if (r == 0)
        r = sys(SYS_setsockopt, fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &choose, sizeof choose);
    struct sock_fprog drop = {(unsigned short)steer_compile(l, 0, 0xffffffff, code), code};
    if (r == 0)
        r = sys(SYS_setsockopt, fd, SOL_SOCKET, SO_ATTACH_FILTER, &drop, sizeof drop);
    sys(SYS_munmap, at, bytes);
    return (int)r;
}
