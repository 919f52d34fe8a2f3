#define _GNU_SOURCE
#include "net/link.h"
#include "heap/sys.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#define SHORT_MS 10   /* memory for a few bytes may be short for a moment */
#define SHORT_TRIES 20

static void begin(struct link *l, int fd, bool sealed)
{
    /* The buffers are long, and need no clearing. */
    l->fd = fd;
    l->sealed = sealed;
    l->partial_used = l->out_used = l->out_done = 0;
}

void link_open_raw(struct link *l, int fd)
{
    begin(l, fd, false);
}

static void greet(struct link *l)
{
    if (!link_pending(l) && (l->out_used = (uint32_t)auth_say(&l->auth, l->out)))
        l->out_done = 0;
}

int link_open_sealed(struct link *l, int fd, enum auth_role role, const struct auth_key *key)
{
    int r = auth_start(&l->auth, role, key);
    if (r < 0)
        return r;
    begin(l, fd, true);
    greet(l);
    return 0;
}

void link_close(struct link *l)
{
    sys(SYS_close, l->fd);
    l->fd = -1;
    if (l->sealed)
        auth_stop(&l->auth);
    l->out_used = l->out_done = 0;
}

bool link_ready(const struct link *l)
{
    return !l->sealed || auth_ready(&l->auth);
}

/* A link that breaks for want of memory would break again and again, and whoever asks who we are would take us for a plain process. */
static bool is_passing(long n, int *tries)
{
    if ((n == -ENOMEM || n == -ENOBUFS) && ++*tries <= SHORT_TRIES) {
        sys(SYS_poll, NULL, 0, SHORT_MS);
        return true;
    }
    return n == -EINTR;
}

long link_push(struct link *l)
{
    int tries = 0;
    while (link_pending(l)) {
        long n = sys(SYS_sendto, l->fd, l->out + l->out_done, l->out_used - l->out_done, MSG_DONTWAIT | MSG_NOSIGNAL,
                     NULL, 0);
        if (is_passing(n, &tries))
            continue;
        if (n < 0)
            return n;
        l->out_done += (uint32_t)n;
    }
    l->out_used = l->out_done = 0;
    return 0;
}

static long send_raw(struct link *l, const struct iovec *v, int count)
{
    struct msghdr m = {.msg_iov = (struct iovec *)v, .msg_iovlen = (size_t)count};
    long n;
    int tries = 0;
    do
        n = sys(SYS_sendmsg, l->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
    while (is_passing(n, &tries));
    return n;
}

/* splice(2) knows no MSG_NOSIGNAL. */
long link_splice(struct link *l, int pipe, size_t bytes)
{
    uint64_t signal = 1UL << (SIGPIPE - 1), was = 0, pending = 0;
    struct timespec now = {0};
    long n;
    int tries = 0;
    sys(SYS_rt_sigprocmask, SIG_BLOCK, &signal, &was, sizeof was);
    sys(SYS_rt_sigpending, &pending, sizeof pending);
    do
        n = sys(SYS_splice, pipe, NULL, l->fd, NULL, bytes, SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
    while (is_passing(n, &tries));
    if (n == -EPIPE && !(pending & signal))
        sys(SYS_rt_sigtimedwait, &signal, NULL, &now, sizeof signal);
    sys(SYS_rt_sigprocmask, SIG_SETMASK, &was, NULL, sizeof was);
    return n;
}

/* As much of the vector as one record holds. */
static size_t gather(unsigned char *to, const struct iovec *v, int count)
{
    size_t got = 0;
    for (int i = 0; i < count && got < AUTH_PLAIN_MAX; i++) {
        size_t n = v[i].iov_len < AUTH_PLAIN_MAX - got ? v[i].iov_len : AUTH_PLAIN_MAX - got;
        memcpy(to + got, v[i].iov_base, n);
        got += n;
    }
    return got;
}

long link_send(struct link *l, const struct iovec *v, int count)
{
    if (!l->sealed)
        return send_raw(l, v, count);
    if (l->auth.error)
        return l->auth.error;
    long r = link_push(l);
    if (r < 0)
        return r;
    if (!auth_ready(&l->auth))
        return -EAGAIN;
    size_t n = gather(l->out + AUTH_LENGTH_BYTES, v, count);
    if (!n)
        return 0;
    r = auth_seal(&l->auth, l->out, n);
    if (r < 0)
        return r;
    l->out_used = (uint32_t)r;
    r = link_push(l);
    return r < 0 && r != -EAGAIN ? r : (long)n;
}

static long receive(int fd, void *to, size_t room)
{
    long n;
    do
        n = sys(SYS_recvfrom, fd, to, room, MSG_DONTWAIT, NULL, NULL);
    while (n == -EINTR);
    return n;
}

/* The handshake's next messages; returns how many bytes they took, or an error. */
static long hear(struct link *l, const unsigned char *bytes, size_t length)
{
    size_t at = 0;
    while (!auth_ready(&l->auth)) {
        long n = auth_hear(&l->auth, bytes + at, length - at);
        if (n < 0)
            return n;
        greet(l);
        if (n == 0)
            break;
        at += (size_t)n;
    }
    long r = link_push(l);
    return r < 0 && r != -EAGAIN ? r : (long)at;
}

/* Opens the whole records of [bytes, bytes + length) in place, their texts one behind the other from the beginning on,
 * and keeps the rest. Returns the texts' length, or an error when there was one before any text. */
static long open_all(struct link *l, unsigned char *bytes, size_t length)
{
    size_t at = 0, made = 0, text;
    long n = hear(l, bytes, length);
    for (at = n > 0 ? (size_t)n : 0; n >= 0 && auth_ready(&l->auth);) {
        n = auth_open(&l->auth, bytes + at, length - at, &text);
        if (n <= 0)
            break;
        memmove(bytes + made, bytes + at + AUTH_LENGTH_BYTES, text);
        made += text;
        at += (size_t)n;
    }
    if (n >= 0 && length - at >= sizeof l->partial)
        n = AUTH_E_OVERSIZED; /* of bytes ahead of the handshake */
    if (n < 0) {
        sys(SYS_shutdown, l->fd, SHUT_RDWR); /* so that the error is asked for, behind what was good */
        return made ? (long)made : n;
    }
    l->partial_used = (uint32_t)(length - at);
    memcpy(l->partial, bytes + at, l->partial_used);
    return (long)made;
}

long link_receive(struct link *l, void *to, size_t room)
{
    if (!l->sealed)
        return receive(l->fd, to, room);
    if (l->auth.error)
        return l->auth.error;
    if (room < LINK_ROOM_LEAST)
        return -EINVAL;
    size_t before = l->partial_used;
    memcpy(to, l->partial, before);
    long n = receive(l->fd, (unsigned char *)to + before, room - before);
    if (n < 0)
        return n;
    if (n == 0)
        return auth_end(&l->auth, before);
    n = open_all(l, to, before + (size_t)n);
    return n ? n : -EAGAIN;
}
