/* What the tests of transports share: a table, channels, and transports over sockets whose other ends the test holds. */
#ifndef KEN_TEST_TRANSPORT_FIXTURE_H
#define KEN_TEST_TRANSPORT_FIXTURE_H

#include "net_host.h"
#include "net/pool.h"
#include "net/transport_inner.h"
#include "heap/window.h"

static void open_transports(void)
{
    host_open();
    cr_assert(!sys_failed(window_open(0)));
    transport_boot();
    cr_assert(transport_open_table());
}

/* With the peer of that number. */
static struct channel *make_channel(uint8_t number)
{
    struct channel *c = pool_take(sizeof *c);
    channel_open(c, &(struct wire_id){{number}});
    return c;
}

/* One that has greeted, and has nothing to acknowledge; *other is what a peer would read from. */
static struct transport *make_transport(struct channel *c, int *other)
{
    int ends[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
    struct transport *t = transport_take_slot(c, false);
    cr_assert(t);
    link_open_raw(t->link, (int)fd_move_high(ends[0]));
    transport_start(t);
    t->state = STATE_READY;
    t->cursor = c->acked;
    t->told_durable = c->durable;
    transport_begin_lending(t);
    *other = ends[1];
    return t;
}

#endif
