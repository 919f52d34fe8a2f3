/* What a run leaves behind for its peers: the file `unsent` of the store.
 *
 * Written by a run that ends while peers do not have everything yet, before the run is marked finished; taken in by
 * the next run, which stands in for the former one until each of these peers has what is left (former.h).
 *
 *   head, then for each channel: struct unsent_channel, its frames, zeros up to a multiple of 8 bytes, its addresses
 *
 * The file is valid if and only if size, magic, checksum and versions hold, and it consists of `channels` channels whose
 * frames wire_parse() takes, with the sequences from `acked` on. Little endian. It appears by rename, durable.
 */
#ifndef KEN_NET_UNSENT_H
#define KEN_NET_UNSENT_H

#include "net/channel.h"

#include <stdbool.h>

#define UNSENT_FILE "unsent"
#define UNSENT_MAGIC 0x544e53554e454bUL /* "KENUNST" */
#define UNSENT_VERSION 2u

struct unsent_head {
    uint64_t magic;
    uint64_t checksum; /* XXH3-64 of all that follows this field, to the end of the file */
    uint32_t version;
    uint32_t wire_version;
    uint64_t bytes; /* of the whole file */
    uint32_t channels;
    uint32_t reserved;
};

struct unsent_channel {
    struct wire_id self, peer;
    uint64_t place; /* the peer's */
    uint64_t acked, produced, expected;
    uint64_t datagrams_sent, datagrams_acked, datagrams_taken;
    struct wire_address far, door; /* where it is found on another host (peers_far.h); zero: in this network namespace */
    uint32_t addresses;      /* by which the program knew the peer */
    uint64_t bytes; /* of the frames [acked, produced) that follow */
};

struct unsent_address {
    struct wire_address at;
    uint32_t protocol; /* enum protocol */
};

_Static_assert(sizeof(struct unsent_address) == 24, "");
_Static_assert(sizeof(struct unsent_head) == 40, "");
_Static_assert(sizeof(struct unsent_channel) == 144, "");

/* A file in the making. */
struct unsent_writer {
    int fd;
    bool full; /* the disk is, and that was said */
    uint64_t at;
    uint32_t channels;
};

/* Writes the file anew: begin, each channel, end. 0 or -errno; after an error the old file, if any, is as it was, and
 * unsent_end() only tidies up and returns the error. A full disk is waited for. */
int unsent_begin(struct unsent_writer *, int directory);
int unsent_put(struct unsent_writer *, const struct channel *, const struct wire_id *self, const struct wire_address *far,
               const struct wire_address *door, const struct unsent_address *, uint32_t addresses);
int unsent_end(struct unsent_writer *, int directory, int error);

/* Removes it, durably; no file is no error. 0 or -errno. */
int unsent_remove(int directory);

/* Maps the file and proves it valid. 0: there is none; 1: *at and *bytes are to be unmapped by the caller; -EBADMSG:
 * damaged; -EPROTO: of another version of libken; -errno. */
int unsent_map(int directory, const void **at, size_t *bytes);

/* Walks over a mapped file: the next channel, NULL at the end. *cursor is NULL at first. */
const struct unsent_channel *unsent_next(const void *at, const void **cursor);

static inline const unsigned char *unsent_frames(const struct unsent_channel *u)
{
    return (const unsigned char *)(u + 1);
}

static inline const struct unsent_address *unsent_addresses(const struct unsent_channel *u)
{
    return (const void *)(unsent_frames(u) + ((u->bytes + 7) & ~7UL));
}

#endif
