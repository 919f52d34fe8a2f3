/* Sockets, pipes and socketpairs in a new process. */
#define _GNU_SOURCE
#include "net/peers_far.h"
#include "net/reopen.h"
#include "net/pool.h"
#include "net/trouble.h"
#include "heap/fault.h"
#include "heap/say.h"
#include "heap/sys.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>

#define PORT_WAIT_MS 5000 /* a killed process holds its ports until its memory is torn down */

static int listener = -1; /* loopback: where connections that will read as reset are made */
static struct sockaddr_in listener_address;

static int status(const struct description *d)
{
    return SOCK_CLOEXEC | (d->flags & O_NONBLOCK ? SOCK_NONBLOCK : 0);
}

static long open_listener(void)
{
    socklen_t length = sizeof listener_address;
    listener_address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    long fd = sys(SYS_socket, AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return fd;
    long r = sys(SYS_bind, fd, &listener_address, sizeof listener_address);
    if (r == 0)
        r = sys(SYS_listen, fd, 16);
    if (r == 0)
        r = sys(SYS_getsockname, fd, &listener_address, &length);
    if (r < 0) {
        sys(SYS_close, fd);
        return r;
    }
    /* Above the program's numbers: one of them would be made over it. */
    listener = (int)sys(SYS_fcntl, fd, F_DUPFD_CLOEXEC, fd_highest + 1);
    sys(SYS_close, fd);
    return listener < 0 ? listener : 0;
}

/* A stream whose other side is gone without a reset: end of input, EPIPE. */
static long cut_unix(const struct description *d)
{
    int ends[2];
    long r = sys(SYS_socketpair, AF_UNIX, d->socket->type | status(d), 0, ends);
    if (r < 0)
        return r;
    sys(SYS_close, ends[1]);
    return ends[0];
}

/* Reads ECONNRESET once, then the end of input; writes say EPIPE. */
static long cut_tcp(const struct description *d)
{
    struct linger now = {1, 0};
    long opened = listener < 0 ? open_listener() : 0;
    if (opened < 0)
        return trouble_is(opened) ? opened : cut_unix(d);
    long fd = sys(SYS_socket, AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return fd;
    long r = sys(SYS_connect, fd, &listener_address, sizeof listener_address);
    long other = r == 0 ? sys(SYS_accept4, listener, NULL, NULL, SOCK_CLOEXEC) : r;
    if (other < 0) {
        sys(SYS_close, fd);
        return trouble_is(other) ? other : cut_unix(d);
    }
    sys(SYS_setsockopt, other, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    sys(SYS_close, other);
    if (d->flags & O_NONBLOCK)
        sys(SYS_fcntl, fd, F_SETFL, O_RDWR | O_NONBLOCK);
    return fd;
}

void reopen_socket_done(void)
{
    if (listener >= 0)
        sys(SYS_close, listener);
    listener = -1;
}

long reopen_options(int fd, const struct fd_socket *s)
{
    int on = 1;
    long r = 0;
    if (s->bound && (s->domain == AF_INET || s->domain == AF_INET6))
        r = sys(SYS_setsockopt, fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    for (const struct sock_option *o = s->options; o && !trouble_is(r); o = o->next)
        if (!(s->bound && o->level == SOL_SOCKET && o->name == SO_REUSEADDR))
            r = sys(SYS_setsockopt, fd, o->level, o->name, o->value, o->length);
    return r;
}

/* A dead process's socket file is in the way of its own successor. */
static long unlink_stale(const struct sock_address *a)
{
    const struct sockaddr_un *un = (const struct sockaddr_un *)&a->at;
    struct stat s;
    char path[sizeof un->sun_path + 1] = "";
    if (un->sun_family != AF_UNIX || a->length <= offsetof(struct sockaddr_un, sun_path) || !un->sun_path[0])
        return 0;
    memcpy(path, un->sun_path, a->length - offsetof(struct sockaddr_un, sun_path));
    long r = sys(SYS_stat, path, &s);
    if (r == 0 && S_ISSOCK(s.st_mode))
        r = sys(SYS_unlink, path);
    return trouble_is(r) ? r : 0;
}

static long bind_again(int fd, const struct fd_socket *s)
{
    long r = 0;
    if (!s->bound || !s->local)
        return 0;
    if ((r = unlink_stale(s->local)))
        return r;
    far_prepare(fd, s, &s->local->at, s->local->length);
    for (int waited = 0; waited <= PORT_WAIT_MS; waited += 10) {
        r = sys(SYS_bind, fd, &s->local->at, s->local->length);
        if (r != -EADDRINUSE)
            break;
        struct timespec moment = {0, 10000000};
        sys(SYS_nanosleep, &moment, NULL);
    }
    return r;
}

static unsigned port_of(const struct sock_address *a)
{
    const struct sockaddr_in *in = (const struct sockaddr_in *)&a->at;
    return in->sin_family == AF_INET || in->sin_family == AF_INET6 ? ntohs(in->sin_port) : 0;
}

static long name_again(int fd, struct description *d)
{
    struct fd_socket *s = d->socket;
    long r = bind_again(fd, s);
    if (r < 0 && s->type == SOCK_DGRAM && s->state == SOCK_CONNECTED)
        r = 0; /* the address of a client: another will do */
    if (r < 0) {
        if (!trouble_is(r) && port_of(s->local))
            say("cannot bind port %u again: %s", port_of(s->local), say_error(r));
        else if (!trouble_is(r))
            say("cannot bind a local socket again: %s", say_error(r));
        return r;
    }
    if (s->state == SOCK_LISTENING)
        r = sys(SYS_listen, fd, s->backlog);
    if (s->state == SOCK_CONNECTED && s->peer) {
        long connected = sys(SYS_connect, fd, &s->peer->at, s->peer->length);
        r = trouble_is(connected) ? connected : r;
    }
    if (s->shut && s->type != SOCK_STREAM)
        sys(SYS_shutdown, fd, s->shut == 3 ? SHUT_RDWR : s->shut == 2 ? SHUT_WR : SHUT_RD);
    return r;
}

long reopen_socket(struct description *d)
{
    struct fd_socket *s = d->socket;
    if (!s)
        return reopen_nothing();
    bool connection = s->state == SOCK_CONNECTED && s->type != SOCK_DGRAM && s->type != SOCK_RAW;
    if (connection && d->error == 0)
        d->error = 0;
    if (connection)
        return s->domain == AF_INET || s->domain == AF_INET6 ? cut_tcp(d) : cut_unix(d);
    long fd = sys(SYS_socket, s->domain, s->type | status(d), s->protocol);
    if (trouble_is(fd))
        return fd;
    if (fd < 0) {
        say("cannot make a socket again: %s", say_error(fd));
        return reopen_nothing();
    }
    long r = reopen_options((int)fd, s);
    if (!trouble_is(r))
        r = name_again((int)fd, d);
    if (r < 0) {
        sys(SYS_close, fd);
        return r;
    }
    return fd;
}

/* A child had it, too, and the program no longer had the other end: it looks as if the child had gone. */
static bool cut(const struct description *d)
{
    return (d->bits & FD_SHARED) && d->pair < 0;
}

static long fill_pipe(int to, const struct description *reader)
{
    const char *p = reader->content, *end = p + reader->content_bytes;
    bool packets = reader->flags & O_DIRECT;
    uint32_t length = reader->content_bytes, head = packets ? sizeof length : 0;
    long r = sys(SYS_fcntl, to, F_SETFL, O_NONBLOCK | (reader->flags & O_DIRECT));
    for (; p < end && r >= 0; p += head + length) {
        if (packets)
            memcpy(&length, p, sizeof length);
        r = sys(SYS_write, to, p + head, length);
        if (r != (long)length)
            break;
    }
    if (p < end && !trouble_is(r))
        say("of %u bytes in a pipe %ld are lost: it may not be as big as it was", reader->content_bytes,
            (long)(end - p) - (r > 0 ? r : 0));
    return r;
}

long reopen_pipe(struct description *d, int ends[2])
{
    struct description *other = d->pair >= 0 ? fd_description(d->pair) : NULL;
    struct description *reader = (d->flags & O_ACCMODE) == O_RDONLY ? d : other;
    int both[2];
    long r = sys(SYS_pipe2, both, O_CLOEXEC);
    if (r < 0)
        return r;
    if (d->offset)
        r = sys(SYS_fcntl, both[1], F_SETPIPE_SZ, d->offset);
    if (!trouble_is(r) && !cut(d) && MUTANT("reopen.pipe_empty", false, reader && reader->content))
        r = fill_pipe(both[1], reader);
    if (trouble_is(r)) {
        sys(SYS_close, both[0]);
        sys(SYS_close, both[1]);
        return r;
    }
    int mine = (d->flags & O_ACCMODE) == O_RDONLY ? 0 : 1;
    sys(SYS_fcntl, both[mine], F_SETFL, d->flags & ~(uint32_t)O_ACCMODE);
    if (other)
        sys(SYS_fcntl, both[!mine], F_SETFL, other->flags & ~(uint32_t)O_ACCMODE);
    ends[0] = both[mine];
    ends[1] = both[!mine];
    return both[mine];
}

static long put_back(int from, const struct description *to)
{
    const char *p = to->content, *end = p + to->content_bytes;
    long n = 0;
    if (to->socket->type == SOCK_STREAM) {
        for (; p < end && n >= 0; p += n)
            n = sys(SYS_sendto, from, p, end - p, MSG_NOSIGNAL | MSG_DONTWAIT, NULL, 0);
        return n;
    }
    while (p < end && n >= 0) {
        uint32_t length;
        memcpy(&length, p, sizeof length);
        n = sys(SYS_sendto, from, p + 4, length, MSG_NOSIGNAL | MSG_DONTWAIT, NULL, 0);
        p += 4 + length;
    }
    return n;
}

static long fill(const int ends[2], const struct description *d, const struct description *other)
{
    long r = reopen_options(ends[0], d->socket);
    if (!trouble_is(r) && other && other->socket)
        r = reopen_options(ends[1], other->socket);
    if (!trouble_is(r) && d->content)
        r = put_back(ends[1], d);
    if (!trouble_is(r) && other && other->content)
        r = put_back(ends[0], other);
    return r;
}

long reopen_socketpair(struct description *d, int ends[2])
{
    struct description *other = d->pair >= 0 ? fd_description(d->pair) : NULL;
    if (!d->socket)
        return reopen_nothing();
    if (cut(d))
        return cut_unix(d);
    long r = sys(SYS_socketpair, d->socket->domain, d->socket->type | SOCK_CLOEXEC, d->socket->protocol, ends);
    if (r < 0)
        return r;
    r = fill(ends, d, other);
    if (r == -EAGAIN)
        say("what lay in a socketpair does not all fit into it again; the rest is lost");
    if (trouble_is(r)) {
        sys(SYS_close, ends[0]);
        sys(SYS_close, ends[1]);
        return r;
    }
    if (d->socket->shut)
        sys(SYS_shutdown, ends[0], d->socket->shut - 1);
    if (other && other->socket && other->socket->shut)
        sys(SYS_shutdown, ends[1], other->socket->shut - 1);
    if (d->flags & O_NONBLOCK)
        sys(SYS_fcntl, ends[0], F_SETFL, O_RDWR | O_NONBLOCK);
    if (other && (other->flags & O_NONBLOCK))
        sys(SYS_fcntl, ends[1], F_SETFL, O_RDWR | O_NONBLOCK);
    return ends[0];
}
