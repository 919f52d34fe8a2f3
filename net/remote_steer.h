/* Which of two listening sockets a TCP connection comes to: listed peers to libken's, all others to the program's.
 *
 * Both listen at the same address and port (SO_REUSEPORT), the program's first. The kernel asks a classic BPF program
 * by whose source address it chooses (SO_ATTACH_REUSEPORT_CBPF, Linux >= 4.5, no privilege). A socket filter at the
 * program's end drops what a peer sends while libken's socket is not there yet: the peer's kernel tries again.
 * So nothing is sniffed or passed on, and no accept queue is ever shared.
 * Loopback addresses, and whoever connects from the address that it connects to, are of this host: never listed here.
 */
#ifndef KEN_NET_REMOTE_STEER_H
#define KEN_NET_REMOTE_STEER_H

#include "net/address_list.h"

#include <linux/filter.h>

#define STEER_MAX 4096 /* instructions that the kernel takes */

/* Writes the program; returns its length. It returns `listed` for sources of the list, else `other`. */
size_t steer_compile(const struct address_list *, uint32_t listed, uint32_t other, struct sock_filter to[STEER_MAX]);

/* Prepares the program's stream socket, before it is bound. 0 or -errno. */
int steer_prepare(const struct address_list *, int fd);

#endif
