/* Authentication: two ends, and somebody between them who changes, cuts, repeats and swaps what they say. */
#include "net/auth.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static struct auth_key key, other_key;
static uint64_t seed = 0x9e3779b97f4a7c15;

static uint64_t random_bits(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    return seed ^= seed << 17;
}

static void setup(void)
{
    auth_make_key(&key, "0123456789abcdef0123456789abcdef", 32);
    auth_make_key(&other_key, "0123456789abcdef0123456789abcdeg", 32);
}

TestSuite(auth, .init = setup);

struct pair {
    struct auth a, b; /* a connects, b accepts */
    unsigned char said[3][AUTH_MESSAGE_MAX];
    size_t length[3];
};

static void start(struct pair *p)
{
    cr_assert_eq(auth_start(&p->a, AUTH_CONNECTS, &key), 0);
    cr_assert_eq(auth_start(&p->b, AUTH_ACCEPTS, &key), 0);
}

/* Lets the messages before `until` through. */
static void greet_until(struct pair *p, int until)
{
    start(p);
    for (int i = 0; i < until; i++) {
        struct auth *from = i == 1 ? &p->b : &p->a, *to = i == 1 ? &p->a : &p->b;
        p->length[i] = auth_say(from, p->said[i]);
        cr_assert_gt(p->length[i], 0);
        cr_assert_eq(auth_hear(to, p->said[i], p->length[i]), (long)p->length[i]);
    }
    if (until == 3)
        return;
    p->length[until] = auth_say(until == 1 ? &p->b : &p->a, p->said[until]);
    cr_assert_gt(p->length[until], 0);
}

static void greet(struct pair *p)
{
    greet_until(p, 3);
    cr_assert(auth_ready(&p->a) && auth_ready(&p->b));
}

/* The side that hears message i. */
static struct auth *hearer(struct pair *p, int i)
{
    return i == 1 ? &p->a : &p->b;
}

static void dead(struct auth *a, int error)
{
    static const unsigned char zero[sizeof(struct auth)];
    unsigned char bytes[AUTH_RECORD_MAX] = {0};
    size_t n;
    cr_assert_not(auth_ready(a));
    cr_assert_eq(auth_say(a, bytes), 0);
    cr_assert_eq(auth_hear(a, bytes, sizeof bytes), error);
    cr_assert_eq(auth_seal(a, bytes, 1), error);
    cr_assert_eq(auth_open(a, bytes, sizeof bytes, &n), error);
    cr_assert_eq(auth_end(a, 0), error);
    struct auth copy = *a;
    copy.error = 0;
    cr_assert(!memcmp(&copy, zero, sizeof copy), "keys are left");
    cr_assert(error == -EPIPE || strcmp(auth_error(error), auth_error(0)) != 0, "%d has no words", error);
}

/* --- the handshake ------------------------------------------------------------------------------- */

Test(auth, both_sides_prove_the_key_and_records_pass_both_ways)
{
    struct pair p;
    greet(&p);
    for (int i = 0; i < 1000; i++) {
        unsigned char r[AUTH_RECORD_MAX], text[AUTH_PLAIN_MAX];
        size_t n = i < 40 ? (size_t)i + 1 : i == 40 ? AUTH_PLAIN_MAX : random_bits() % 2000 + 1, got = 0;
        struct auth *from = random_bits() & 1 ? &p.a : &p.b, *to = from == &p.a ? &p.b : &p.a;
        for (size_t k = 0; k < n; k++)
            text[k] = (unsigned char)random_bits();
        memcpy(r + AUTH_LENGTH_BYTES, text, n);
        cr_assert_eq(auth_seal(from, r, n), (long)n + AUTH_OVERHEAD);
        cr_assert(n < 8 || memcmp(r + AUTH_LENGTH_BYTES, text, n), "plain text on the wire");
        cr_assert_eq(auth_open(to, r, sizeof r, &got), (long)n + AUTH_OVERHEAD);
        cr_assert(got == n && !memcmp(r + AUTH_LENGTH_BYTES, text, n));
    }
    cr_assert(auth_end(&p.a, 0) == 0 && auth_end(&p.b, 0) == 0);
}

Test(auth, messages_have_the_sizes_that_are_promised)
{
    struct pair p;
    greet(&p);
    cr_assert(p.length[0] == 72 && p.length[1] == 72 && p.length[2] == 40);
    for (int i = 0; i < 3; i++)
        cr_assert(p.said[i][6] == AUTH_VERSION && p.said[i][7] == i + 1);
}

Test(auth, nothing_is_sealed_or_opened_before_both_proofs)
{
    struct pair p;
    unsigned char r[100] = {1};
    size_t n;
    start(&p);
    cr_assert_lt(auth_seal(&p.a, r, 1), 0);
    greet_until(&p, 2); /* the side that accepts has not been convinced yet */
    cr_assert_not(auth_ready(&p.b));
    cr_assert_lt(auth_seal(&p.b, r, 1), 0);
    cr_assert_eq(auth_open(&p.b, r, sizeof r, &n), AUTH_E_MALFORMED);
}

Test(auth, a_wrong_key_is_told_at_the_first_message)
{
    struct auth a, b;
    unsigned char m[AUTH_MESSAGE_MAX];
    auth_start(&a, AUTH_CONNECTS, &other_key);
    auth_start(&b, AUTH_ACCEPTS, &key);
    size_t n = auth_say(&a, m);
    cr_assert_eq(auth_hear(&b, m, n), AUTH_E_KEY);
    dead(&b, AUTH_E_KEY);
}

/* Somebody without the key who accepts: he has an ephemeral key, but no proof. */
Test(auth, the_side_that_accepts_must_prove_the_key_too)
{
    struct pair p;
    greet_until(&p, 1);
    struct auth liar;
    unsigned char m[AUTH_MESSAGE_MAX];
    auth_start(&liar, AUTH_ACCEPTS, &other_key);
    memcpy(m, p.said[1], 8);
    memcpy(m + 8, liar.mine, 32);
    memset(m + 40, 0x55, 32);
    cr_assert_eq(auth_hear(&p.a, m, 72), AUTH_E_KEY);
    dead(&p.a, AUTH_E_KEY);
}

Test(auth, each_connection_has_fresh_keys)
{
    struct pair p, q;
    greet(&p);
    greet(&q);
    cr_assert(memcmp(p.said[0] + 8, q.said[0] + 8, 32) && memcmp(p.said[1] + 8, q.said[1] + 8, 32));
    const uint8_t *keys[] = {p.a.out.key, p.a.in.key, q.a.out.key, q.a.in.key};
    for (int i = 0; i < 4; i++)
        for (int j = 0; j < i; j++)
            cr_assert(memcmp(keys[i], keys[j], 32), "%d %d", i, j);
    cr_assert(!memcmp(p.a.out.key, p.b.in.key, 32) && !memcmp(p.a.in.key, p.b.out.key, 32));
}

Test(auth, a_handshake_leaves_no_secret_but_the_two_keys)
{
    struct pair p;
    static const uint8_t zero[AUTH_MESSAGE_MAX];
    greet(&p);
    for (int i = 0; i < 2; i++) {
        struct auth *a = i ? &p.a : &p.b;
        cr_assert(!memcmp(a->psk, zero, 32) && !memcmp(a->secret, zero, 32) && !memcmp(a->proof, zero, 32) &&
                  !memcmp(a->message, zero, sizeof a->message));
        auth_stop(a);
        dead(a, -EPIPE);
    }
}

Test(auth, every_flipped_bit_of_the_handshake_is_noticed)
{
    for (int i = 0; i < 3; i++)
        for (size_t bit = 0; bit < (i < 2 ? 72u : 40u) * 8; bit++) {
            struct pair p;
            greet_until(&p, i);
            p.said[i][bit / 8] ^= (unsigned char)(1 << bit % 8);
            long r = auth_hear(hearer(&p, i), p.said[i], p.length[i]);
            size_t at = bit / 8;
            bool good = at < 6 ? r == AUTH_E_MALFORMED : at == 6 ? r == AUTH_E_VERSION
                      : at == 7 ? r == AUTH_E_MALFORMED || r == AUTH_E_REFLECTED : r == AUTH_E_KEY || r == AUTH_E_MALFORMED;
            cr_assert(good, "message %d bit %zu: %ld", i + 1, bit, r);
        }
}

Test(auth, every_truncation_waits_for_more_and_an_end_there_is_an_error)
{
    for (int i = 0; i < 3; i++)
        for (size_t n = 0; n < (i < 2 ? 72u : 40u); n++) {
            struct pair p;
            greet_until(&p, i);
            struct auth *to = hearer(&p, i);
            cr_assert_eq(auth_hear(to, p.said[i], n), 0);
            if (n & 1) {
                cr_assert_eq(auth_end(to, n), AUTH_E_TRUNCATED);
                dead(to, AUTH_E_TRUNCATED);
            } else { /* the rest comes */
                cr_assert_eq(auth_hear(to, p.said[i], p.length[i]), (long)p.length[i]);
            }
        }
}

Test(auth, what_follows_a_message_is_left_alone)
{
    struct pair p;
    unsigned char m[AUTH_MESSAGE_MAX + 50];
    greet_until(&p, 2);
    memcpy(m, p.said[2], p.length[2]);
    memset(m + p.length[2], 0xee, 50);
    cr_assert_eq(auth_hear(&p.b, m, p.length[2] + 50), 40);
    cr_assert(auth_ready(&p.b));
}

Test(auth, another_version_and_another_protocol_are_told_apart_as_early_as_can_be)
{
    struct pair p;
    greet_until(&p, 0);
    for (unsigned v = 0; v < 256; v++) {
        struct auth b;
        auth_start(&b, AUTH_ACCEPTS, &key);
        p.said[0][6] = (unsigned char)v;
        cr_assert_eq(auth_hear(&b, p.said[0], 7), v == AUTH_VERSION ? 0 : AUTH_E_VERSION);
    }
    struct auth b;
    auth_start(&b, AUTH_ACCEPTS, &key);
    cr_assert_eq(auth_hear(&b, "G", 1), AUTH_E_MALFORMED);
    dead(&b, AUTH_E_MALFORMED);
    cr_assert_eq(auth_begins("GET /", 5), -1);
    cr_assert_eq(auth_begins("KenAux", 6), -1);
    for (size_t n = 0; n < 6; n++)
        cr_assert_eq(auth_begins(p.said[0], n), 0);
    cr_assert_eq(auth_begins(p.said[0], 6), 1);
}

Test(auth, reflection_is_refused)
{
    struct pair p, q;
    greet_until(&p, 0);
    cr_assert_eq(auth_hear(&p.a, p.said[0], p.length[0]), AUTH_E_REFLECTED); /* its own first message */
    greet_until(&p, 0);
    p.said[0][7] = 2; /* dressed up as the answer */
    cr_assert_eq(auth_hear(&p.a, p.said[0], p.length[0]), AUTH_E_REFLECTED);
    greet_until(&p, 1);
    cr_assert_eq(auth_hear(&p.b, p.said[1], p.length[1]), AUTH_E_REFLECTED);
    greet_until(&p, 2);
    greet_until(&q, 2);
    cr_assert_eq(auth_hear(&q.b, p.said[2], p.length[2]), AUTH_E_KEY); /* another connection's proof */

    unsigned char r[100] = {0};
    size_t n;
    greet(&p);
    auth_seal(&p.a, r, 30);
    cr_assert_eq(auth_open(&p.a, r, sizeof r, &n), AUTH_E_FORGED); /* its own record */
}

Test(auth, a_recorded_conversation_proves_nothing_later)
{
    struct pair p;
    unsigned char r[100] = {0}, m[AUTH_MESSAGE_MAX];
    size_t n;
    greet(&p);
    auth_seal(&p.a, r, 30);
    struct auth b, a;
    auth_start(&b, AUTH_ACCEPTS, &key);
    cr_assert_eq(auth_hear(&b, p.said[0], p.length[0]), 72); /* it is a proof of the key, but of nothing fresh */
    cr_assert_eq(auth_say(&b, m), 72);
    cr_assert_not(auth_ready(&b));
    cr_assert_eq(auth_hear(&b, p.said[2], p.length[2]), AUTH_E_KEY);
    auth_start(&a, AUTH_CONNECTS, &key);
    auth_say(&a, m);
    cr_assert_eq(auth_hear(&a, p.said[1], p.length[1]), AUTH_E_KEY);
    struct pair q;
    greet(&q);
    cr_assert_eq(auth_open(&q.b, r, sizeof r, &n), AUTH_E_FORGED);
}

/* Points of low order would make a session that everybody knows: without the key they get nowhere, with it neither. */
Test(auth, degenerate_public_keys_are_refused)
{
    for (int i = 0; i < 2; i++) {
        struct pair p;
        unsigned char m[AUTH_MESSAGE_MAX];
        greet_until(&p, 1);
        memcpy(m, p.said[1], 72);
        memset(m + 8, 0, 32);
        m[8] = (unsigned char)i;
        cr_assert_eq(auth_hear(&p.a, m, 72), AUTH_E_MALFORMED);
    }
}

/* --- records ------------------------------------------------------------------------------------- */

static long seal(struct auth *a, unsigned char *r, const char *text)
{
    memcpy(r + AUTH_LENGTH_BYTES, text, strlen(text));
    return auth_seal(a, r, strlen(text));
}

Test(auth, repeated_left_out_and_swapped_records_are_refused)
{
    unsigned char one[100], two[100], copy[100];
    size_t n;
    for (int how = 0; how < 3; how++) {
        struct pair p;
        greet(&p);
        long l1 = seal(&p.a, one, "the first record"), l2 = seal(&p.a, two, "and the second");
        memcpy(copy, one, 100);
        if (how == 0) {
            cr_assert_eq(auth_open(&p.b, one, (size_t)l1, &n), l1);
            cr_assert_eq(auth_open(&p.b, copy, (size_t)l1, &n), AUTH_E_FORGED);
        } else if (how == 1) {
            cr_assert_eq(auth_open(&p.b, two, (size_t)l2, &n), AUTH_E_FORGED);
            cr_assert_eq(auth_open(&p.b, one, (size_t)l1, &n), AUTH_E_FORGED); /* and it stays so */
        } else {
            cr_assert_eq(auth_open(&p.b, one, (size_t)l1, &n), l1);
            cr_assert_eq(auth_open(&p.b, two, (size_t)l2, &n), l2);
            continue;
        }
        dead(&p.b, AUTH_E_FORGED);
    }
}

Test(auth, every_flipped_bit_of_a_record_is_noticed_and_nothing_is_let_through)
{
    struct pair p;
    unsigned char r[200], changed[200];
    size_t n = 12345;
    greet(&p);
    long length = seal(&p.a, r, "some text that nobody is to change");
    for (size_t bit = 0; bit < (size_t)length * 8; bit++) {
        struct auth b = p.b;
        memset(changed, 0, sizeof changed);
        memcpy(changed, r, (size_t)length);
        changed[bit / 8] ^= (unsigned char)(1 << bit % 8);
        long got = auth_open(&b, changed, sizeof changed, &n);
        bool waits = bit < 32 && got == 0; /* it was made longer: the rest never comes right */
        cr_assert(waits || got == AUTH_E_FORGED || (bit < 32 && got == AUTH_E_OVERSIZED), "bit %zu: %ld", bit, got);
        cr_assert_eq(n, 12345);
        cr_assert(!memmem(changed, sizeof changed, "nobody", 6));
    }
}

Test(auth, every_truncation_of_a_record_waits_and_an_end_there_is_an_error)
{
    struct pair p;
    unsigned char r[200];
    size_t n;
    greet(&p);
    long length = seal(&p.a, r, "some text");
    for (size_t k = 0; k < (size_t)length; k++) {
        struct auth b = p.b;
        cr_assert_eq(auth_open(&b, r, k, &n), 0);
        cr_assert_eq(auth_end(&b, k), k ? AUTH_E_TRUNCATED : 0);
    }
    cr_assert_eq(auth_open(&p.b, r, (size_t)length, &n), length);
}

Test(auth, lengths_out_of_bounds_are_refused_before_anything_is_waited_for)
{
    static const uint32_t lengths[] = {0, AUTH_PLAIN_MAX + 1, 0x7fffffff, 0x80000000, 0xffffffff, 0xffffffff - AUTH_OVERHEAD};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        struct pair p;
        unsigned char r[4];
        size_t n;
        greet(&p);
        memcpy(r, &lengths[i], 4);
        cr_assert_eq(auth_open(&p.b, r, 4, &n), AUTH_E_OVERSIZED, "%u", lengths[i]);
        dead(&p.b, AUTH_E_OVERSIZED);
    }
    struct pair p;
    static unsigned char big[AUTH_RECORD_MAX + 1];
    size_t n;
    greet(&p);
    cr_assert_eq(auth_seal(&p.a, big, AUTH_PLAIN_MAX + 1), AUTH_E_OVERSIZED);
    cr_assert_eq(auth_seal(&p.a, big, 0), AUTH_E_OVERSIZED);
    cr_assert_eq(auth_seal(&p.a, big, AUTH_PLAIN_MAX), AUTH_RECORD_MAX); /* the caller's mistake cost nothing */
    cr_assert_eq(auth_open(&p.b, big, sizeof big, &n), AUTH_RECORD_MAX);
}

Test(auth, numbers_are_never_used_twice)
{
    struct pair p;
    unsigned char r[100];
    size_t n;
    greet(&p);
    p.a.out.number = p.b.in.number = (1UL << 48) - 1;
    long length = seal(&p.a, r, "the last one");
    cr_assert_eq(auth_open(&p.b, r, (size_t)length, &n), length);
    cr_assert_eq(seal(&p.a, r, "one more"), AUTH_E_SPENT);
    dead(&p.a, AUTH_E_SPENT);
}

/* Random bytes, and random pieces of a true conversation in any order, never convince anybody. */
Test(auth, random_input)
{
    struct pair p;
    greet(&p);
    for (int n = 0; n < 20000; n++) {
        struct auth x;
        unsigned char m[300], dummy[AUTH_MESSAGE_MAX];
        size_t length = 0, plain;
        auth_start(&x, random_bits() & 1 ? AUTH_CONNECTS : AUTH_ACCEPTS, &key);
        auth_say(&x, dummy);
        while (length + 80 < sizeof m && random_bits() % 4) {
            int i = (int)(random_bits() % 3);
            size_t from = random_bits() % 8 ? 0 : random_bits() % 40, k = p.length[i] - from;
            memcpy(m + length, p.said[i] + from, k);
            if (random_bits() % 4 == 0)
                m[length + random_bits() % k] = (unsigned char)random_bits();
            length += k;
        }
        size_t at = 0;
        for (long r; at < length && (r = auth_hear(&x, m + at, length - at)) > 0;) {
            at += (size_t)r;
            auth_say(&x, dummy);
        }
        cr_assert_not(auth_ready(&x));
        cr_assert_lt(auth_open(&x, m, sizeof m, &plain), 0);
    }
}

/* --- what it asks of the process ------------------------------------------------------------------ */

/* All of libsodium's code that runs here makes no system call, and we make none but getrandom for 32 bytes. */
Test(auth, no_system_call_but_one)
{
#ifdef __SANITIZE_ADDRESS__
    cr_skip_test("the sanitizer makes system calls of its own");
#endif
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 3, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getrandom, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 32, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
        auth_boot();
        struct pair p;
        static unsigned char r[AUTH_RECORD_MAX];
        size_t n;
        greet(&p);
        bool good = auth_seal(&p.a, r, 10000) > 0 && auth_open(&p.b, r, sizeof r, &n) > 0;
        good &= auth_seal(&p.a, r, 100) > 0 && (r[50] ^= 1, auth_open(&p.b, r, sizeof r, &n) == AUTH_E_FORGED);
        auth_make_key(&key, r, sizeof r);
        auth_stop(&p.a);
        _exit(good ? 0 : 1);
    }
    int status;
    cr_assert(waitpid(pid, &status, 0) == pid && status == 0, "status %x", status);
}

/* The fast code and the portable code are one cipher: a host with another CPU understands. */
Test(auth, the_fast_code_says_the_same_as_the_portable_one)
{
    enum { SIZES = 60 };
    static unsigned char slow[SIZES][4000], fast[SIZES][4000];
    struct pair p;
    greet(&p);
    struct auth again = p.a;
    for (int fill = 0; fill < 2; fill++) {
        unsigned char(*r)[4000] = fill ? fast : slow;
        for (int i = 0; i < SIZES; i++)
            for (size_t k = 0; k < 3900; k++)
                r[i][k] = (unsigned char)(k * 31 + (size_t)i);
    }
    for (int i = 0; i < SIZES; i++)
        cr_assert_gt(auth_seal(&p.a, slow[i], (size_t)(1 + i * i)), 0);
    auth_boot();
    for (int i = 0; i < SIZES; i++)
        cr_assert_gt(auth_seal(&again, fast[i], (size_t)(1 + i * i)), 0);
    cr_assert(!memcmp(slow, fast, sizeof slow));
    for (int i = 0; i < SIZES; i++) {
        size_t n;
        cr_assert_gt(auth_open(&p.b, slow[i], sizeof slow[i], &n), 0);
        cr_assert(n == (size_t)(1 + i * i) && slow[i][4] == (unsigned char)(4 * 31 + i));
    }
}
