#include "net/auth.h"
#include "heap/sys.h"

#include <sodium.h>
#include <string.h>

#define RECORDS_MAX (1UL << 48)

_Static_assert(AUTH_E_MALFORMED == -EPROTO && AUTH_E_VERSION == -EPROTONOSUPPORT && AUTH_E_KEY == -ENOKEY, "");
_Static_assert(AUTH_E_REFLECTED == -ELOOP && AUTH_E_OVERSIZED == -EMSGSIZE && AUTH_E_FORGED == -EBADMSG, "");
_Static_assert(AUTH_E_TRUNCATED == -ECONNRESET && AUTH_E_SPENT == -EOVERFLOW, "");
_Static_assert(AUTH_TAG_BYTES == crypto_aead_chacha20poly1305_ietf_ABYTES, "");
_Static_assert(sizeof(((struct auth_flow *)0)->key) == crypto_aead_chacha20poly1305_ietf_KEYBYTES, "");

static const uint8_t magic[6] = {'K', 'e', 'n', 'A', 'u', 't'};
static const char suite[] = "KenAut NNpsk0 X25519 ChaCha20Poly1305 BLAKE2b";

/* --- libsodium's choice of code ------------------------------------------------------------------ */

/* The parts of sodium_init() that only look at the CPU: no lock, no random bytes, no system call. A library that
 * names them differently leaves us with the portable code, at a third of the speed. The choice is part of the image,
 * as every IFUNC's is: a lesser CPU is refused at the restart. */
int sodium_look_at_cpu(void) __asm__("_sodium_runtime_get_cpu_features") __attribute__((weak));
int sodium_pick_chacha20(void) __asm__("_crypto_stream_chacha20_pick_best_implementation") __attribute__((weak));
int sodium_pick_poly1305(void) __asm__("_crypto_onetimeauth_poly1305_pick_best_implementation")
    __attribute__((weak));

void auth_boot(void)
{
    if (!sodium_look_at_cpu || !sodium_pick_chacha20 || !sodium_pick_poly1305)
        return;
    sodium_look_at_cpu();
    sodium_pick_chacha20();
    sodium_pick_poly1305();
}

/* --- derivation ---------------------------------------------------------------------------------- */

/* out = BLAKE2b-256, keyed with `key`, of the label and two pieces, each preceded by its length. */
static void derive(uint8_t out[32], const uint8_t key[32], const char *label, const void *a, size_t a_length,
                   const void *b, size_t b_length)
{
    crypto_generichash_state s;
    uint64_t lengths[3] = {strlen(label), a_length, b_length};
    crypto_generichash_init(&s, key, key ? 32 : 0, 32);
    crypto_generichash_update(&s, (const void *)lengths, sizeof lengths);
    crypto_generichash_update(&s, (const void *)label, lengths[0]);
    crypto_generichash_update(&s, a, a_length);
    crypto_generichash_update(&s, b, b_length);
    crypto_generichash_final(&s, out, 32);
    sodium_memzero(&s, sizeof s);
}

void auth_make_key(struct auth_key *key, const void *bytes, size_t length)
{
    derive(key->bytes, NULL, "libken key file 1", bytes, length, NULL, 0);
}

static void absorb(struct auth *a, const void *message, size_t length)
{
    derive(a->transcript, NULL, "transcript", a->transcript, sizeof a->transcript, message, length);
}

/* The exchange: the session's secret, from the ephemeral keys, the pre-shared one and all that was said up to the
 * second public key. */
static int exchange(struct auth *a)
{
    uint8_t shared[32];
    int r = crypto_scalarmult_curve25519(shared, a->secret, a->theirs);
    if (r == 0)
        derive(a->secret, a->psk, "session", shared, sizeof shared, a->transcript, sizeof a->transcript);
    sodium_memzero(shared, sizeof shared);
    sodium_memzero(a->psk, sizeof a->psk);
    return r ? AUTH_E_MALFORMED : 0; /* a point of low order: no honest side sends one */
}

static void split(struct auth *a)
{
    bool connects = a->role == AUTH_CONNECTS;
    derive(connects ? a->out.key : a->in.key, a->secret, "to the side that accepts", NULL, 0, NULL, 0);
    derive(connects ? a->in.key : a->out.key, a->secret, "to the side that connects", NULL, 0, NULL, 0);
    derive(a->proof, a->secret, "proof of the side that connects", NULL, 0, NULL, 0);
}

static void prove_exchange(const struct auth *a, uint8_t proof[32])
{
    derive(proof, a->secret, "proof of the side that accepts", NULL, 0, NULL, 0);
}

/* --- messages ------------------------------------------------------------------------------------ */

static size_t message_length(unsigned step)
{
    return step == 3 ? AUTH_HEAD_BYTES + 32 : AUTH_HEAD_BYTES + 64;
}

static void put_head(uint8_t *to, unsigned step)
{
    memcpy(to, magic, sizeof magic);
    to[6] = AUTH_VERSION;
    to[7] = (uint8_t)step;
}

/* Head and public key are said; the proof goes behind them. */
static void begin_message(struct auth *a, unsigned step)
{
    put_head(a->message, step);
    memcpy(a->message + AUTH_HEAD_BYTES, a->mine, 32);
    absorb(a, a->message, AUTH_HEAD_BYTES + 32);
}

static void make_first(struct auth *a)
{
    begin_message(a, 1);
    derive(a->message + AUTH_HEAD_BYTES + 32, a->psk, "proof of the key", a->transcript, 32, NULL, 0);
}

int auth_start(struct auth *a, enum auth_role role, const struct auth_key *key)
{
    *a = (struct auth){.role = (uint8_t)role, .step = 1};
    long n = sys(SYS_getrandom, a->secret, sizeof a->secret, 0);
    if (n != sizeof a->secret) {
        a->error = n < 0 ? (int)n : -EIO;
        return a->error;
    }
    memcpy(a->psk, key->bytes, sizeof a->psk);
    crypto_scalarmult_curve25519_base(a->mine, a->secret);
    absorb(a, suite, sizeof suite - 1);
    if (role == AUTH_CONNECTS) {
        make_first(a);
        a->due = true;
    }
    return 0;
}

void auth_stop(struct auth *a)
{
    int error = a->error;
    sodium_memzero(a, sizeof *a);
    a->error = error ? error : -EPIPE;
}

static int fail(struct auth *a, int error)
{
    a->error = error;
    auth_stop(a);
    return error;
}

/* The handshake is over for this side. */
static void finish(struct auth *a)
{
    a->step = 4;
    sodium_memzero(a->secret, sizeof a->secret);
    sodium_memzero(a->proof, sizeof a->proof);
}

size_t auth_say(struct auth *a, unsigned char to[AUTH_MESSAGE_MAX])
{
    if (a->error || !a->due)
        return 0;
    size_t n = message_length(a->step);
    memcpy(to, a->message, n);
    sodium_memzero(a->message, sizeof a->message);
    a->due = false;
    if (a->step == 3)
        finish(a);
    else
        a->step++;
    return n;
}

static int hear_first(struct auth *a, const uint8_t *m)
{
    uint8_t proof[32];
    absorb(a, m, AUTH_HEAD_BYTES + 32);
    derive(proof, a->psk, "proof of the key", a->transcript, 32, NULL, 0);
    if (sodium_memcmp(proof, m + AUTH_HEAD_BYTES + 32, 32) != 0)
        return AUTH_E_KEY;
    memcpy(a->theirs, m + AUTH_HEAD_BYTES, 32);
    absorb(a, proof, 32);
    begin_message(a, 2);
    int r = exchange(a);
    if (r < 0)
        return r;
    split(a);
    prove_exchange(a, a->message + AUTH_HEAD_BYTES + 32);
    a->step = 2;
    a->due = true;
    return 0;
}

static int hear_second(struct auth *a, const uint8_t *m)
{
    uint8_t proof[32];
    memcpy(a->theirs, m + AUTH_HEAD_BYTES, 32);
    if (!memcmp(a->theirs, a->mine, 32))
        return AUTH_E_REFLECTED;
    derive(proof, a->psk, "proof of the key", a->transcript, 32, NULL, 0); /* what we said */
    absorb(a, proof, 32);
    absorb(a, m, AUTH_HEAD_BYTES + 32);
    int r = exchange(a);
    if (r < 0)
        return r;
    prove_exchange(a, proof);
    if (sodium_memcmp(proof, m + AUTH_HEAD_BYTES + 32, 32) != 0)
        return AUTH_E_KEY;
    split(a);
    put_head(a->message, 3);
    memcpy(a->message + AUTH_HEAD_BYTES, a->proof, 32);
    a->step = 3;
    a->due = true;
    return 0;
}

static int hear_third(struct auth *a, const uint8_t *m)
{
    if (sodium_memcmp(a->proof, m + AUTH_HEAD_BYTES, 32) != 0)
        return AUTH_E_KEY;
    finish(a);
    return 0;
}

/* As soon as a byte is wrong: a plain client's first bytes are not waited behind. */
static int check_head(const struct auth *a, const uint8_t *m, size_t length)
{
    for (size_t i = 0; i < length && i < sizeof magic; i++)
        if (m[i] != magic[i])
            return AUTH_E_MALFORMED;
    if (length > 6 && m[6] != AUTH_VERSION)
        return AUTH_E_VERSION;
    if (length <= 7 || m[7] == a->step)
        return 0;
    bool ours = m[7] <= 3 && (m[7] & 1) == (a->role == AUTH_CONNECTS);
    return m[7] && ours ? AUTH_E_REFLECTED : AUTH_E_MALFORMED;
}

long auth_hear(struct auth *a, const void *bytes, size_t length)
{
    if (a->error)
        return a->error;
    if (a->due || a->step == 4)
        return 0;
    size_t n = message_length(a->step);
    int r = check_head(a, bytes, length);
    if (r == 0 && length < n)
        return 0;
    if (r == 0)
        r = a->step == 1 ? hear_first(a, bytes) : a->step == 2 ? hear_second(a, bytes) : hear_third(a, bytes);
    return r < 0 ? fail(a, r) : (long)n;
}

int auth_begins(const void *bytes, size_t length)
{
    if (memcmp(bytes, magic, length < sizeof magic ? length : sizeof magic) != 0)
        return -1;
    return length >= sizeof magic;
}

/* --- records ------------------------------------------------------------------------------------- */

static void make_nonce(uint8_t nonce[12], uint64_t number)
{
    memset(nonce, 0, 4);
    memcpy(nonce + 4, &number, sizeof number);
}

long auth_seal(struct auth *a, unsigned char *record, size_t length)
{
    uint8_t nonce[12];
    if (a->error)
        return a->error;
    if (!auth_ready(a) || !length || length > AUTH_PLAIN_MAX)
        return AUTH_E_OVERSIZED; /* the caller's fault: the connection is as it was */
    if (a->out.number >= RECORDS_MAX)
        return fail(a, AUTH_E_SPENT);
    uint32_t told = (uint32_t)length;
    unsigned char *text = record + AUTH_LENGTH_BYTES;
    memcpy(record, &told, sizeof told);
    make_nonce(nonce, a->out.number++);
    crypto_aead_chacha20poly1305_ietf_encrypt_detached(text, text + length, NULL, text, length, record,
                                                       AUTH_LENGTH_BYTES, NULL, nonce, a->out.key);
    return (long)length + AUTH_OVERHEAD;
}

long auth_open(struct auth *a, unsigned char *bytes, size_t length, size_t *plain_length)
{
    uint8_t nonce[12];
    uint32_t told;
    if (a->error)
        return a->error;
    if (!auth_ready(a))
        return fail(a, AUTH_E_MALFORMED);
    if (length < sizeof told)
        return 0;
    memcpy(&told, bytes, sizeof told);
    if (!told || told > AUTH_PLAIN_MAX)
        return fail(a, AUTH_E_OVERSIZED);
    if (length < told + AUTH_OVERHEAD)
        return 0;
    if (a->in.number >= RECORDS_MAX)
        return fail(a, AUTH_E_SPENT);
    unsigned char *text = bytes + AUTH_LENGTH_BYTES;
    make_nonce(nonce, a->in.number);
    if (crypto_aead_chacha20poly1305_ietf_decrypt_detached(text, NULL, text, told, text + told, bytes,
                                                           AUTH_LENGTH_BYTES, nonce, a->in.key) != 0)
        return fail(a, AUTH_E_FORGED);
    a->in.number++;
    *plain_length = told;
    return (long)told + AUTH_OVERHEAD;
}

int auth_end(struct auth *a, size_t left)
{
    if (a->error)
        return a->error;
    return auth_ready(a) && !left ? 0 : fail(a, AUTH_E_TRUNCATED);
}

const char *auth_error(long error)
{
    switch (error) {
    case AUTH_E_MALFORMED:
        return "it does not speak libken's handshake";
    case AUTH_E_VERSION:
        return "it speaks another version of libken's handshake";
    case AUTH_E_KEY:
        return "its key is not ours (KEN_KEY_FILE)";
    case AUTH_E_REFLECTED:
        return "our own message came back from it";
    case AUTH_E_OVERSIZED:
        return "a record's length is out of bounds";
    case AUTH_E_FORGED:
        return "a record was changed, repeated or reordered on its way";
    case AUTH_E_TRUNCATED:
        return "the connection ended within a message";
    case AUTH_E_SPENT:
        return "the connection's numbers are used up";
    default:
        return "no authentication";
    }
}
