/* Counters over TCP with libevent: event_server PORT. `<key>` is answered with how often it was named.
 * Buffered events, a timer and a signal event besides. */
#include <arpa/inet.h>
#include <err.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

struct counter {
    struct counter *next;
    long count;
    char key[64];
};

static struct counter *counters;
static long ticks;

static long count(const char *key)
{
    struct counter *c = counters;
    while (c && strcmp(c->key, key))
        c = c->next;
    if (!c) {
        c = calloc(1, sizeof *c);
        strncpy(c->key, key, sizeof c->key - 1);
        c->next = counters;
        counters = c;
    }
    return ++c->count;
}

static void read_lines(struct bufferevent *b, void *unused)
{
    char *line;
    while ((line = evbuffer_readln(bufferevent_get_input(b), NULL, EVBUFFER_EOL_LF))) {
        evbuffer_add_printf(bufferevent_get_output(b), "%ld\n", count(line));
        free(line);
    }
}

static void end(struct bufferevent *b, short what, void *unused)
{
    if (what & (BEV_EVENT_EOF | BEV_EVENT_ERROR))
        bufferevent_free(b);
}

static void welcome(struct evconnlistener *l, evutil_socket_t fd, struct sockaddr *from, int length, void *base)
{
    struct bufferevent *b = bufferevent_socket_new(base, fd, BEV_OPT_CLOSE_ON_FREE);
    bufferevent_setcb(b, read_lines, NULL, end, NULL);
    bufferevent_enable(b, EV_READ | EV_WRITE);
}

static void tick(evutil_socket_t fd, short what, void *unused)
{
    ticks++;
}

int main(int argc, char **argv)
{
    struct sockaddr_in self = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    struct timeval often = {0, 20000};
    struct event_base *base = event_base_new();
    self.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (!evconnlistener_new_bind(base, welcome, base, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_REUSEABLE, -1, (void *)&self,
                                 sizeof self))
        err(1, "port %s", argv[1]);
    event_add(event_new(base, -1, EV_PERSIST, tick, NULL), &often);
    event_add(evsignal_new(base, SIGUSR1, tick, NULL), NULL);
    return event_base_dispatch(base);
}
