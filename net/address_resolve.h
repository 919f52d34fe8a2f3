/* The names in KEN_PEERS, resolved once at each start by getent(1), a process of its own.
 *
 * A preloaded object cannot ask the program's own getaddrinfo: it reads files, opens sockets and loads modules (nss,
 * mDNS, LDAP) into the program, before its constructors have run. A resolver of our own would see /etc/hosts and
 * DNS and nothing of the rest of nsswitch.conf. getent, which belongs to libc, sees exactly what the program sees.
 * An address that changes later is found at the next start; until then the old one is used.
 */
#ifndef KEN_NET_ADDRESS_RESOLVE_H
#define KEN_NET_ADDRESS_RESOLVE_H

#include "net/address_list.h"

#define ADDRESS_GETENT "/usr/bin/getent"

/* Resolves all names of the list, in `within_ms` altogether. Returns -1 when each has an address, else the number of
 * a name that has none: the list is not known whole, and the caller does not start. *error says why it was not even asked
 * for (-errno); 0: it was.
 * Before the program runs: it makes and reaps children, and each leaves a SIGCHLD that is ignored while nobody
 * handles it. */
int address_resolve(struct address_list *, const char *getent, unsigned within_ms, long *error);

/* The addresses at the beginnings of lines, as `getent ahosts` prints them, each once. Others are passed over. */
int address_resolve_text(struct address_list *, unsigned name, const char *text, size_t length);

#endif
