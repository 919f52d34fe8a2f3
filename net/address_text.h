/* Internet addresses as text: `10.1.2.3`, `fd00::1`, and with a port `10.1.2.3:80`, `[fd00::1]:80`.
 *
 * Pure; no locale, no names, no system calls.
 */
#ifndef KEN_NET_ADDRESS_TEXT_H
#define KEN_NET_ADDRESS_TEXT_H

#include "net/wire.h"

#define ADDRESS_TEXT 56 /* the longest one, with its port and terminator */

/* Reads an address without a port, which must be all of the text. IPv4 is mapped into IPv6; the port is 0. */
bool address_scan(struct wire_address *, const char *text, size_t length);

/* Reads a decimal number of at most `most`, without sign or leading zeros. */
bool address_scan_number(unsigned *, const char *text, size_t length, unsigned most);

/* Writes it; the port too, unless it is 0. Returns the length. */
size_t address_print(char to[ADDRESS_TEXT], const struct wire_address *);

#endif
