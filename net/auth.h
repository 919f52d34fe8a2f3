/* Authentication and encryption of a transport between hosts: a pre-shared key, fresh keys for each connection.
 *
 * A pure state machine: it makes no system call but getrandom(2), and allocates nothing. The struct belongs to one
 * connection, so it lies where transports lie, in the window: no session key ever reaches an image.
 *
 *   step 1  the side that connects:  "KenAut" version step  | ephemeral X25519 key | proof of the key     72 bytes
 *   step 2  the side that accepts:   the same form                                                        72 bytes
 *   step 3  the side that connects:  "KenAut" version step  | proof of the session                        40 bytes
 *   then    records, both ways:      length | sealed bytes | tag
 *
 * This is the pattern NNpsk0 of the Noise framework (revision 34, section 9), with keyed BLAKE2b for its key
 * derivation: every key depends on the pre-shared key, on the ephemeral exchange and on all that was said. What is
 * recorded today cannot be read with the key of tomorrow. A message that is sent back, or said again in another
 * connection, proves nothing there.
 * The records of a direction are numbered from 0 on; the number is the nonce of ChaCha20-Poly1305 (RFC 8439), so
 * that a repeated, missing or reordered record is a forged one. Its length is authenticated, and bounded before it
 * is believed.
 *
 * The first error stays: all further calls return it, and the keys are gone. Errors are -errno, one for each cause:
 * see auth_error().
 * libsodium is never initialised (sodium_init() asks libc for locks and random bytes); nothing of it that needs
 * that is called. Not thread-safe.
 */
#ifndef KEN_NET_AUTH_H
#define KEN_NET_AUTH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define AUTH_VERSION 1u
#define AUTH_KEY_BYTES 32
#define AUTH_HEAD_BYTES 8
#define AUTH_MESSAGE_MAX 72
#define AUTH_LENGTH_BYTES 4
#define AUTH_TAG_BYTES 16
#define AUTH_OVERHEAD (AUTH_LENGTH_BYTES + AUTH_TAG_BYTES)
#define AUTH_PLAIN_MAX 16384u /* bytes in one record */
#define AUTH_RECORD_MAX (AUTH_PLAIN_MAX + AUTH_OVERHEAD)

enum auth_role { AUTH_CONNECTS, AUTH_ACCEPTS };

enum {
    AUTH_E_MALFORMED = -71, /* EPROTO: not a message of this protocol, or not at this step */
    AUTH_E_VERSION = -93,   /* EPROTONOSUPPORT: another version of it */
    AUTH_E_KEY = -126,      /* ENOKEY: the other side has another key, or its message was changed */
    AUTH_E_REFLECTED = -40, /* ELOOP: our own message came back */
    AUTH_E_OVERSIZED = -90, /* EMSGSIZE: a record of 0 bytes, or of more than AUTH_PLAIN_MAX */
    AUTH_E_FORGED = -74,    /* EBADMSG: a record that was changed, repeated, left out or reordered */
    AUTH_E_TRUNCATED = -104, /* ECONNRESET: the connection ended within a message */
    AUTH_E_SPENT = -75,     /* EOVERFLOW: 2^48 records; connect anew */
};

/* What the key file was made into. */
struct auth_key {
    uint8_t bytes[AUTH_KEY_BYTES];
};

/* One direction of a connection. */
struct auth_flow {
    uint8_t key[32];
    uint64_t number; /* of the next record */
};

/* auth.c's own, except that it is the owner's memory. No pointers. */
struct auth {
    uint8_t role, step; /* step: which message comes next, whoever says it; 4: the records */
    bool due;           /* it is ours to say, in `message` */
    int error;
    uint8_t psk[32], secret[32];   /* until the handshake is done */
    uint8_t transcript[32];
    uint8_t mine[32], theirs[32];  /* ephemeral public keys */
    uint8_t proof[32];             /* what the other side has to say in step 3 */
    uint8_t message[AUTH_MESSAGE_MAX];
    struct auth_flow out, in;
};

/* Once a process, while it is single-threaded: chooses the fastest code that this CPU has. Without it: portable code. */
void auth_boot(void);

/* A new connection. 0, or -errno: there are no random bytes. */
int auth_start(struct auth *, enum auth_role, const struct auth_key *);

/* Forgets all keys. */
void auth_stop(struct auth *);

/* What is to be said next: copies it and returns its length (at most AUTH_MESSAGE_MAX); 0: nothing now. */
size_t auth_say(struct auth *, unsigned char to[AUTH_MESSAGE_MAX]);

/* Takes the handshake's next message from the beginning of `bytes`. Returns its length; 0: there is not enough of it
 * yet, or the handshake is done; or an error, as soon as the first wrong byte is there. */
long auth_hear(struct auth *, const void *bytes, size_t length);

/* Both sides have proven that they have the key: records may go and come. */
static inline bool auth_ready(const struct auth *a)
{
    return a->step == 4 && !a->due && !a->error;
}

/* Seals `length` bytes (1 to AUTH_PLAIN_MAX) that stand at record + AUTH_LENGTH_BYTES, in place. Returns the
 * record's length, length + AUTH_OVERHEAD, or an error. */
long auth_seal(struct auth *, unsigned char *record, size_t length);

/* Opens the record at the beginning of `bytes`, in place: *plain_length bytes stand at bytes + AUTH_LENGTH_BYTES then.
 * Returns the record's length; 0: there is not enough of it yet; or an error. */
long auth_open(struct auth *, unsigned char *bytes, size_t length, size_t *plain_length);

/* The stream ended, with so many bytes that no call took. 0, or AUTH_E_TRUNCATED; an earlier error stays. */
int auth_end(struct auth *, size_t left);

/* Whether a stream that begins so is a handshake: 1 yes, -1 no, 0 too early to tell. For a port that plain clients
 * connect to as well; the answer needs no key. */
int auth_begins(const void *bytes, size_t length);

/* What an error means, in words for the operator. Static. */
const char *auth_error(long error);

/* A file's bytes become a key. */
void auth_make_key(struct auth_key *, const void *bytes, size_t length);

#endif
