#include "net/remote.h"
#include "net/address.h"
#include "net/address_resolve.h"
#include "net/key_file.h"
#include "heap/room.h"
#include "heap/say.h"
#include "heap/sys.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <time.h>

#define RESOLVE_MS 10000
#define GIVE_UP_MS 20000 /* a connection whose other end does not answer; the next one may go another way */
#define BACKLOG 64

uint64_t remote_now_ms(void)
{
    return (uint64_t)sys_clock_ns(CLOCK_MONOTONIC) / 1000000 + 1;
}

static int explain_list(int error, const char *wrong, size_t length, char *why, size_t why_size)
{
    char entry[64];
    size_t n = length < sizeof entry - 1 ? length : sizeof entry - 1;
    memcpy(entry, wrong, n);
    entry[n] = '\0';
    if (error == -E2BIG)
        say_format(why, why_size, "KEN_PEERS has too many entries (at most %d, of which %d names), from '%s' on",
                   ADDRESS_LIST_MAX, ADDRESS_NAMES_MAX, entry);
    else
        say_format(why, why_size,
                   "KEN_PEERS: '%s' is none of ADDRESS/BITS, ADDRESS, ADDRESS:PORT, [ADDRESS]:PORT, NAME, NAME:PORT", entry);
    return error;
}

int remote_open(struct remote *r, const char *peers, const char *key_file, const char *getent, char *why, size_t why_size)
{
    const char *wrong = NULL;
    size_t length = 0;
    if (key_file && *key_file) {
        int e = key_file_load(key_file, &r->key, why, why_size);
        if (e < 0)
            return e;
        r->has_key = true;
    }
    int e = peers ? address_list_read(&r->list, peers, &wrong, &length) : 0;
    if (e < 0)
        return explain_list(e, wrong, length, why, why_size);
    long error;
    int name = address_resolve(&r->list, getent, RESOLVE_MS, &error);
    if (name < 0)
        return 0;
    bool unasked = sys_in_trouble(error);
    if (unasked)
        say_format(why, why_size, "KEN_PEERS: cannot ask for the address of '%s' (%s)", r->list.name[name].text, say_error(error));
    else
        say_format(why, why_size, "KEN_PEERS: the name '%s' has no address now; mend it, or list its addresses",
                   r->list.name[name].text);
    r->list.entries = r->list.names = 0;
    return unasked ? (int)error : -ENOENT;
}

/* Without a key, only within this host. */
static bool allowed(struct remote *r, const struct wire_address *other)
{
    if (r->has_key || address_is_loopback(other))
        return true;
    complaint_say(&r->complaints, other, remote_now_ms(),
                  "there is no key for peers on other hosts; set KEN_KEY_FILE (32 random bytes or more, mode 0600), the "
                  "same for both");
    return false;
}

static void set(long fd, int level, int option, int value)
{
    sys(SYS_setsockopt, fd, level, option, &value, sizeof value);
}

/* Frames do not wait for each other, and a peer that is gone is noticed though nobody sends. */
static void tune(long fd)
{
    set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, GIVE_UP_MS);
    set(fd, IPPROTO_TCP, TCP_SYNCNT, 2); /* each waits twice as long; beginning anew comes through sooner */
    set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    set(fd, IPPROTO_TCP, TCP_KEEPIDLE, GIVE_UP_MS / 2000);
    set(fd, IPPROTO_TCP, TCP_KEEPINTVL, GIVE_UP_MS / 4000);
    set(fd, IPPROTO_TCP, TCP_KEEPCNT, 2);
}

static int open_link(struct remote *r, struct link *l, int fd, enum auth_role role)
{
    if (r->has_key)
        return link_open_sealed(l, fd, role, &r->key);
    link_open_raw(l, fd);
    return 0;
}

static int domain_of(const struct wire_address *a)
{
    return address_is_v4(a) ? AF_INET : AF_INET6;
}

int remote_dial(struct remote *r, const struct wire_address *to, struct link *l)
{
    struct sockaddr_storage at;
    if (!allowed(r, to))
        return -ENOKEY;
    long fd = sys_fd(SYS_socket, domain_of(to), SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return (int)fd;
    fd = fd_move_high((int)fd);
    tune(fd);
    long e = sys(SYS_connect, fd, &at, address_write(to, domain_of(to), &at, sizeof at));
    if (e == 0 || e == -EINPROGRESS)
        e = open_link(r, l, (int)fd, to->door ? AUTH_ACCEPTS : AUTH_CONNECTS);
    if (e < 0)
        sys(SYS_close, fd);
    return (int)e;
}

long remote_listen(const struct wire_address *at, bool v6_only, bool beside)
{
    struct sockaddr_storage name;
    int domain = domain_of(at);
    long fd = sys_fd(SYS_socket, domain, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return fd;
    fd = fd_move_high((int)fd);
    set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    if (beside)
        set(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    if (domain == AF_INET6)
        set(fd, IPPROTO_IPV6, IPV6_V6ONLY, v6_only);
    long e = sys(SYS_bind, fd, &name, address_write(at, domain, &name, sizeof name));
    if (e == 0)
        e = sys(SYS_listen, fd, BACKLOG);
    if (e == 0)
        return fd;
    sys(SYS_close, fd);
    return e;
}

/* As from a port where nobody listens: not a byte is sent. */
static int reset(long fd, int error)
{
    struct linger now = {.l_onoff = 1};
    sys(SYS_setsockopt, fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    sys(SYS_close, fd);
    return error;
}

int remote_accept(struct remote *r, int listener, bool door, struct link *l, struct wire_address *from, long *ticket)
{
    struct sockaddr_storage name;
    socklen_t length = sizeof name;
    long fd = sys_fd(SYS_accept4, listener, &name, &length, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return (int)fd;
    fd = fd_move_high((int)fd);
    if (!address_read(from, &name, length) || address_list_match_source(&r->list, from) == LISTED_NO)
        return reset(fd, -EACCES);
    if (!allowed(r, from))
        return reset(fd, -ENOKEY);
    *ticket = auth_gate_enter(&r->gate, from, remote_now_ms());
    if (*ticket < 0) {
        complaint_say(&r->complaints, from, remote_now_ms(), "too many handshakes at a time");
        return reset(fd, (int)*ticket);
    }
    tune(fd);
    int e = open_link(r, l, (int)fd, door ? AUTH_CONNECTS : AUTH_ACCEPTS);
    if (e == 0)
        return 0;
    auth_gate_leave(&r->gate, *ticket);
    return reset(fd, e);
}

void remote_complain(struct remote *r, const struct wire_address *about, long error)
{
    switch (error) {
    case AUTH_E_MALFORMED:
    case AUTH_E_VERSION:
    case AUTH_E_KEY:
    case AUTH_E_REFLECTED:
    case AUTH_E_OVERSIZED:
    case AUTH_E_FORGED:
        complaint_say(&r->complaints, about, remote_now_ms(), auth_error(error));
        break;
    default: /* the network's doing: another connection will do */
        break;
    }
}
