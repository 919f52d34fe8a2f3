/* Who has an address, asked of the kernel's own lists. To try to bind it would tell as well, but stand in the way of a program
 * that binds it at that moment. */
#include "net/address.h"
#include "net/trouble.h"
#include "heap/digits.h"
#include "heap/proc.h"
#include "heap/say.h"
#include "heap/sys.h"

#include <fcntl.h>

#define LISTENS 0x0a     /* TCP_LISTEN */
#define UNCONNECTED 0x07 /* TCP_CLOSE: a datagram socket that takes from all */

/* "  12: 0100007F:1F90 00000000:0000 0A ...": words of an address as this machine has them, its port, the other one's, a state. */
static bool is_it(const char *line, bool v6, unsigned state, const struct wire_address *a)
{
    struct wire_address local = {.bytes = {[10] = 0xff, [11] = 0xff}};
    const char *at = strchr(line, ':');
    if (!at || at[1] != ' ')
        return false;
    at += 2;
    for (unsigned i = v6 ? 0 : 3; i < 4; i++) {
        uint32_t word = (uint32_t)digits_hex(&at, 8);
        memcpy(local.bytes + 4 * i, &word, sizeof word);
    }
    if (*at++ != ':')
        return false;
    local.port = htons((uint16_t)digits_hex(&at, 4));
    if (local.port != a->port || *at != ' ' || !(at = strchr(at + 1, ' ')))
        return false;
    at++;
    return digits_hex(&at, 2) == state && (address_is_wildcard(&local) || !memcmp(local.bytes, a->bytes, sizeof a->bytes));
}

static bool listed(const char *path, bool v6, unsigned state, const struct wire_address *a)
{
    char text[4097];
    size_t used = 0;
    bool found = false;
    long fd = trouble_none(proc_open(path, O_RDONLY), "read who listens"), n = 1;
    if (fd < 0)
        return !v6 || fd != -ENOENT; /* IPv6 may not be there at all */
    while (!found && n > 0) {
        while ((n = sys(SYS_read, fd, text + used, sizeof text - 1 - used)) == -EINTR)
            ;
        trouble_none(n, "read who listens");
        used += n > 0 ? (size_t)n : 0;
        text[used] = '\0';
        char *line = text;
        for (char *end; !found && (end = strchr(line, '\n')); line = end + 1) {
            *end = '\0';
            found = is_it(line, v6, state, a);
        }
        used = line == text && used == sizeof text - 1 ? 0 : used - (size_t)(line - text);
        memmove(text, line, used);
    }
    sys(SYS_close, fd);
    return found || n < 0;
}

bool address_is_held(enum protocol p, const struct wire_address *a)
{
    if (p == PROTOCOL_TCP)
        return listed("net/tcp", false, LISTENS, a) || listed("net/tcp6", true, LISTENS, a);
    return listed("net/udp", false, UNCONNECTED, a) || listed("net/udp6", true, UNCONNECTED, a);
}
