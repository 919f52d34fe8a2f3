/* Which interface has an address. */
#include "net/address.h"
#include "net/trouble.h"
#include "heap/digits.h"
#include "heap/proc.h"
#include "heap/room.h"
#include "heap/sys.h"

#include <asm/ioctls.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <net/if.h>

#define INTERFACES 64

static unsigned index_of(long fd, const char name[IFNAMSIZ])
{
    struct ifreq r = {0};
    memcpy(r.ifr_name, name, IFNAMSIZ);
    return sys(SYS_ioctl, fd, SIOCGIFINDEX, &r) == 0 ? (unsigned)r.ifr_ifindex : 0;
}

static unsigned find_v4(const struct wire_address *a)
{
    struct ifreq all[INTERFACES];
    struct ifconf c = {.ifc_len = sizeof all, .ifc_req = all};
    unsigned found = 0;
    long fd = trouble_none(sys_fd(SYS_socket, AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), "ask for the addresses of interfaces");
    if (fd < 0)
        return 0;
    if (sys(SYS_ioctl, fd, SIOCGIFCONF, &c) < 0)
        c.ifc_len = 0;
    for (int i = 0; i < c.ifc_len / (int)sizeof *all && !found; i++) {
        struct sockaddr_in in;
        memcpy(&in, &all[i].ifr_addr, sizeof in);
        if (!memcmp(&in.sin_addr, a->bytes + 12, 4))
            found = index_of(fd, all[i].ifr_name);
    }
    sys(SYS_close, fd);
    return found;
}

/* "fd770000000000000000000000000001 02 40 00 80     ken0": 32 digits, then the interface, in lines of less than 64. */
static unsigned find_v6(const struct wire_address *a)
{
    static const char digits[] = "0123456789abcdef";
    char text[4096], wanted[33];
    for (int i = 0; i < 32; i++)
        wanted[i] = digits[a->bytes[i / 2] >> (i % 2 ? 0 : 4) & 15];
    wanted[32] = '\0';
    trouble_none(proc_read("net/if_inet6", text, sizeof text), "read the addresses of interfaces");
    const char *at = strstr(text, wanted);
    at = at ? at + 33 : "";
    return (unsigned)digits_hex(&at, 8);
}

unsigned address_interface(const struct wire_address *a)
{
    if (address_is_loopback(a))
        return 1;
    return address_is_v4(a) ? find_v4(a) : find_v6(a);
}
