/* Options of sockets.
 *
 * A connection between peers is no TCP socket of the kernel's. A spare one, made for the moment and given the same options, answers
 * for it: which options there are, which values they take and how they read. What depends on the connection is ours to tell.
 */
#define _GNU_SOURCE
#include "net/reopen.h"
#include "net/stream.h"
#include "net/trouble.h"
#include "heap/fault.h"
#include "shim/call_signal.h"
#include "heap/room.h"
#include "shim/call_net.h"
#include "shim/call_stream.h"

#include <asm/ioctls.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/time.h>

#define LOOPBACK_MSS 65483

static long try(struct call *c, const struct description *d, int fd)
{
    struct call other = *c;
    (void)d;
    other.arg[0] = fd;
    return call_raw(&other);
}

static long answer(struct call *c, const void *value, size_t bytes)
{
    int length;
    if (!fault_copy(&length, (const void *)c->arg[4], sizeof length))
        return -EFAULT;
    if (length < 0)
        return -EINVAL;
    if ((size_t)length > bytes)
        length = (int)bytes;
    return fault_copy((void *)c->arg[3], value, (size_t)length) && fault_copy((void *)c->arg[4], &length, sizeof length) ? 0 : -EFAULT;
}

static long answer_info(struct call *c, const struct description *d, int fd)
{
    struct tcp_info info = {0};
    socklen_t length = sizeof info;
    long r = sys(SYS_getsockopt, fd, IPPROTO_TCP, TCP_INFO, &info, &length);
    if (r < 0)
        return r;
    stream_info(d, &info);
    info.tcpi_snd_mss = info.tcpi_rcv_mss = info.tcpi_advmss = LOOPBACK_MSS;
    return answer(c, &info, length);
}

static long ask(struct call *c, const struct description *d, int fd)
{
    trouble_none(reopen_options(fd, d->socket), "learn what a socket would answer");
    return c->arg[1] == IPPROTO_TCP && c->arg[2] == TCP_INFO ? answer_info(c, d, fd) : try(c, d, fd);
}

static long by_spare(struct call *c, const struct description *d, long (*call)(struct call *, const struct description *, int fd))
{
    const struct fd_socket *s = d->socket;
    long fd = sys_fd(SYS_socket, s->domain, s->type | SOCK_CLOEXEC, s->protocol);
    if (trouble_none(fd, "learn what a socket would answer") < 0)
        return fd;
    long r = call(c, d, (int)fd);
    sys(SYS_close, fd);
    return r;
}

static bool is_noted(const struct description *d, int level, int name)
{
    const struct sock_option *o = d->socket->options;
    while (o && (o->level != level || o->name != name))
        o = o->next;
    return o;
}

long call_getsockopt(struct call *c)
{
    struct description *d = fd_find((int)c->arg[0]);
    if (!stream_is(d))
        return call_raw(c);
    int level = (int)c->arg[1], name = (int)c->arg[2], value;
    bool buffer = level == SOL_SOCKET && (name == SO_SNDBUF || name == SO_RCVBUF);
    if (level == SOL_SOCKET && name == SO_ERROR)
        value = -stream_take_error(d);
    else if (buffer && !is_noted(d, level, name))
        value = (int)STREAM_WINDOW;
    else if (level == IPPROTO_TCP && name == TCP_MAXSEG)
        value = LOOPBACK_MSS;
    else
        return by_spare(c, d, ask);
    return answer(c, &value, sizeof value);
}

long stream_control(struct call *c, struct description *d)
{
    int value;
    switch ((unsigned)c->arg[1]) {
    case FIONREAD:
        value = (int)stream_unread(d);
        break;
    case TIOCOUTQ:
        value = (int)stream_unsent(d);
        break;
    case SIOCATMARK:
        value = 0;
        break;
    default:
        return ((unsigned)c->arg[1] & 0xff00) == 0x8900 ? by_spare(c, d, try) : call_raw(c);
    }
    return fault_copy((void *)c->arg[2], &value, sizeof value) ? 0 : -EFAULT;
}

static int64_t timeout_of(const struct call *c)
{
    const struct timeval *t = (const struct timeval *)c->arg[3];
    return (size_t)c->arg[4] < sizeof *t ? 0 : t->tv_sec * 1000000000L + t->tv_usec * 1000L;
}

long call_setsockopt(struct call *c)
{
    struct description *d = fd_find((int)c->arg[0]);
    struct fd_socket *s = d && d->kind == FD_SOCKET ? fd_socket(d) : NULL;
    int level = (int)c->arg[1], name = (int)c->arg[2];
    if (s && level == SOL_SOCKET && name == SO_ZEROCOPY && fd_is_stream(d))
        return -EOPNOTSUPP; /* what is held is a copy */
    long r = stream_is(d) ? by_spare(c, d, try) : call_raw(c);
    if (!s || r < 0)
        return r;
    if (level == SOL_SOCKET && name == SO_RCVTIMEO)
        s->receive_timeout_ns = timeout_of(c);
    if (level == SOL_SOCKET && name == SO_SNDTIMEO)
        s->send_timeout_ns = timeout_of(c);
    fd_note_option(d, level, name, (const void *)c->arg[3], (size_t)c->arg[4]);
    return r;
}
