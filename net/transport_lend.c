/* Lending: long frames leave without being copied. Their pages go through a pipe to the socket (vmsplice, splice), whose buffers refer
 * to them; the peer's receive is the only copy.
 *
 * What is lent must stay as it is until the peer has read it. A frame does: once it may be sent nothing changes it, and its block is
 * not used again before the peer has acknowledged it, hence read it. But it could have been read from another transport, and lie
 * unread in this one still. So a frame is lent only where no other transport can have sent it before, and when another one goes on
 * behind this one, the pages of what is lent are given up with it, not written again (bulk_recall()).
 * There is one pipe for all transports. Who finds it in use copies, as does who has no descriptors for it.
 */
#define _GNU_SOURCE
#include "net/transport_inner.h"
#include "net/bulk.h"
#include "net/fdtable.h"
#include "heap/fault.h"
#include "heap/room.h"
#include "heap/sys.h"

#include <fcntl.h>
#include <sys/uio.h>

#define PIPE_BYTES (1UL << 20)
#define PIPE_LEAST (64L << 10) /* a user who has many pipes gets short ones, and copying is faster */
#define LEAST 8192u /* what is shorter is copied as fast */

static void close_pipe(struct lending *l)
{
    for (int i = 0; l->open && i < 2; i++)
        sys(SYS_close, l->pipe[i]);
    l->open = false;
    l->to = NULL;
    l->bytes = 0;
}

static bool open_pipe(struct lending *l)
{
    int ends[2];
    if (l->open)
        return true;
    if (sys_failed(sys_fd(SYS_pipe2, ends, O_CLOEXEC | O_NONBLOCK)))
        return false;
    for (int i = 0; i < 2; i++)
        l->pipe[i] = (int)fd_move_high(ends[i]);
    l->open = true;
    long room = sys(SYS_fcntl, l->pipe[1], F_SETPIPE_SZ, PIPE_BYTES);
    if (sys_failed(room))
        room = sys(SYS_fcntl, l->pipe[1], F_GETPIPE_SZ);
    if (room < PIPE_LEAST) {
        l->refused = true;
        close_pipe(l);
    }
    return l->open;
}

bool transport_owns_pipe(int fd)
{
    const struct lending *l = &transport_table->lending;
    return l->open && (fd == l->pipe[0] || fd == l->pipe[1]);
}

void transport_end_lending(const struct transport *t)
{
    if (!t || transport_table->lending.to == t)
        close_pipe(&transport_table->lending);
}

void transport_begin_lending(struct transport *t)
{
    t->lends_from = t->channel->ready;
    if (t->channel->acked != t->channel->ready)
        bulk_recall();
}

static bool is_lendable(const struct iovec *v)
{
    return v->iov_len >= LEAST && bulk_holds(v->iov_base);
}

int transport_lendable(const struct transport *t, const struct iovec *v, int count, bool *lendable)
{
    const struct lending *l = &transport_table->lending;
    int n = 1;
    *lendable = false;
    if (t->far || t->state != STATE_READY || t->cursor < MUTANT("transport.lent_again", 0, t->lends_from) || l->to || l->refused)
        return count;
    *lendable = is_lendable(&v[0]);
    while (n < count && is_lendable(&v[n]) == *lendable)
        n++;
    return n;
}

/* Moves on what is in the pipe. */
static long pass_on(struct transport *t)
{
    struct lending *l = &transport_table->lending;
    while (l->bytes) {
        long n = link_splice(t->link, l->pipe[0], l->bytes);
        if (n <= 0)
            return n ? n : -EPIPE;
        FAULT("transport.lent");
        l->bytes -= (size_t)n;
    }
    l->to = NULL;
    return 0;
}

long transport_push(struct transport *t)
{
    long r = transport_table->lending.to == t ? pass_on(t) : 0;
    return r ? r : link_push(t->link);
}

long transport_lend(struct transport *t, const struct iovec *v, int count)
{
    struct lending *l = &transport_table->lending;
    long n = open_pipe(l) ? sys(SYS_vmsplice, l->pipe[1], v, count, SPLICE_F_NONBLOCK) : 0;
    if (n <= 0)
        return 0;
    for (int i = 0; i < count; i++)
        bulk_lend(v[i].iov_base); /* those that found no room are next */
    l->to = t;
    l->bytes = (size_t)n;
    long r = pass_on(t);
    if (r == -EINVAL && l->bytes == (size_t)n) { /* a kernel that cannot: nothing has left */
        l->refused = true;
        close_pipe(l);
        return 0;
    }
    return r < 0 && r != -EAGAIN ? r : n;
}
