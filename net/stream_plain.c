/* A connection that is no peer's, or none any more, becomes a socket of the kernel's again. */
#include "net/address.h"
#include "net/reopen.h"
#include "net/stream_bell.h"
#include "net/trouble.h"
#include "heap/sys.h"

#include <sys/socket.h>

/* Begins to connect, whether the descriptor waits or not: who waits does so elsewhere. */
static long begin(int fd, const struct description *d, const struct sockaddr_storage *to, size_t length)
{
    sys(SYS_fcntl, fd, F_SETFL, O_RDWR | O_NONBLOCK);
    long r = sys(SYS_connect, fd, to, length);
    if (!(d->flags & O_NONBLOCK))
        sys(SYS_fcntl, fd, F_SETFL, O_RDWR);
    return r == -EINPROGRESS ? 0 : r;
}

/* The port that it had, if nobody has it meanwhile: the program may have asked for it. */
static void keep_port(int fd, const struct fd_socket *sock, const struct stream *s)
{
    struct sockaddr_storage a;
    if (!sock->bound)
        sys(SYS_bind, fd, &a, address_write(&s->local, sock->domain, &a, sizeof a));
}

static long make(struct description *d, const struct stream *s, const struct sockaddr_storage *to, size_t length)
{
    long fd = trouble_none(reopen_socket(d), "make a socket again");
    if (fd < 0 || !to)
        return fd;
    keep_port((int)fd, d->socket, s);
    long r = begin((int)fd, d, to, length);
    if (r < 0)
        sys(SYS_close, fd);
    return r < 0 ? r : fd;
}

static int replace(struct description *d, const struct sockaddr_storage *to, size_t length)
{
    struct fd_socket *sock = d->socket;
    struct stream *s = sock->stream;
    uint8_t shut = sock->shut;
    sock->stream = NULL;
    sock->shut = 0;
    sock->state = sock->bound ? SOCK_BOUND : SOCK_NEW;
    long fd = make(d, s, to, length);
    if (fd < 0) {
        sock->stream = s;
        sock->shut = shut;
        sock->state = SOCK_CONNECTED;
        return (int)fd;
    }
    stream_destroy(s);
    return bell_replace(d, (int)fd);
}

bool stream_connect_plain(struct stream *s)
{
    struct sockaddr_storage to;
    struct description *d = fd_description(s->of);
    int fd = bell_number(s->of);
    if (fd < 0 || !d || s->loans)
        return false;
    size_t length = address_write(&s->remote, d->socket->domain, &to, sizeof to);
    if (replace(d, &to, length) < 0)
        return false;
    fd_note_connected(fd, d, &to, length);
    return true;
}

int stream_dissolve(struct description *d)
{
    struct stream *s = stream_of(d);
    if (s->loans)
        return -EISCONN; /* a child goes on with it */
    if (!s->failed)
        stream_tell(s, WIRE_RESET, 0);
    return replace(d, NULL, 0);
}
