/* KEN_PEERS: which addresses beyond this network namespace belong to processes under libken.
 *
 *   KEN_PEERS="10.1.0.0/16, fd00::/8  10.2.0.7  db.example:7001 [fd01::5]:7001 web"
 *
 *   list     entries, separated by commas or white space
 *   entry    ADDRESS/BITS | ADDRESS | ADDRESS:PORT | [ADDRESS]:PORT | NAME | NAME:PORT
 *   ADDRESS  as `10.1.2.3` or `fd00::1`;  BITS: bits beyond them in the address must be 0
 *   NAME     of letters, digits, `-`, `_` and `.`, not ending in a number
 *
 * What is listed speaks Ken and nothing else; what is not listed never gets a handshake. Both only hold when the list
 * is known whole: a list with a wrong entry, or with a name that nobody can resolve, is no list, and the caller does
 * not start (see address_resolve.h for the names).
 * The struct is plain data without pointers: it lies in the window, and is read anew by each incarnation, so that a name
 * which resolves elsewhere after a restart is followed. Pure. Reading is thread-safe.
 */
#ifndef KEN_NET_ADDRESS_LIST_H
#define KEN_NET_ADDRESS_LIST_H

#include "net/wire.h"

#define ADDRESS_LIST_MAX 256  /* entries, an entry for each address of a name */
#define ADDRESS_NAMES_MAX 64  /* names */
#define ADDRESS_NAME_BYTES 256

struct address_list {
    uint32_t entries, names;
    struct address_entry {
        struct wire_address address; /* port: network order; 0: any */
        uint16_t bits;               /* of the 128 that count */
        uint16_t name;               /* 1 + the name that has this address; 0: listed as an address */
    } entry[ADDRESS_LIST_MAX];
    struct {
        char text[ADDRESS_NAME_BYTES];
        uint16_t port; /* network order; 0: any */
        uint16_t resolved;
    } name[ADDRESS_NAMES_MAX];
};

/* Reads the list. 0; or -EINVAL (an entry is malformed), -E2BIG (too many): `wrong` and *wrong_length tell the entry
 * within the text. */
int address_list_read(struct address_list *, const char *text, const char **wrong, size_t *wrong_length);

/* One address of the n-th name (the address's port does not count). 0 or -E2BIG. */
int address_list_resolve(struct address_list *, unsigned name, const struct wire_address *);

/* The first name without an address, or -1: the list is complete. */
int address_list_unresolved(const struct address_list *);

/* The name that the address was listed by, or NULL. */
const char *address_list_name_of(const struct address_list *, const struct wire_address *);

/* A name resolved elsewhere than before: *a, an address of then, becomes one of now, with its port. Of the same family, if
 * there is one; itself, if the name still has it. False: the name is not listed; nothing was changed. */
bool address_list_follow(const struct address_list *, const char *name, struct wire_address *a);

enum listed {
    LISTED_NO,   /* plain: it is never sent a handshake */
    LISTED_HOST, /* the host is listed, at other ports than this */
    LISTED_YES,  /* under libken: it is never sent anything else */
};

/* Where the program connects or sends to. */
enum listed address_list_match(const struct address_list *, const struct wire_address *to);

/* Who connects to the program: its port is a passing one, so that an entry with a port says only LISTED_HOST: the first
 * bytes decide (auth_begins()). LISTED_YES: of a host that is listed whole, the handshake must come. */
enum listed address_list_match_source(const struct address_list *, const struct wire_address *from);

#endif
