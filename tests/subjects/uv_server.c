/* Counters over TCP with libuv: uv_server PORT. `<key>` is answered with how often it was named.
 * Every count is made by a thread of the pool; a timer and an asynchronous wake-up run besides. */
#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uv.h>

struct counter {
    struct counter *next;
    long count;
    char key[64];
};

struct client {
    uv_tcp_t tcp; /* first: a handle is its client */
    int jobs, gone;
    size_t used;
    char text[4096];
};

struct job {
    uv_work_t work; /* first */
    uv_write_t write;
    struct client *client;
    char key[64], answer[32];
};

static uv_mutex_t lock;
static struct counter *counters;
static long ticks;

static void count(uv_work_t *work)
{
    struct job *j = (struct job *)work;
    uv_mutex_lock(&lock);
    struct counter *c = counters;
    while (c && strcmp(c->key, j->key))
        c = c->next;
    if (!c) {
        c = calloc(1, sizeof *c);
        memcpy(c->key, j->key, sizeof c->key);
        c->next = counters;
        counters = c;
    }
    snprintf(j->answer, sizeof j->answer, "%ld\n", ++c->count);
    uv_mutex_unlock(&lock);
}

static void forget(uv_handle_t *handle)
{
    struct client *c = (struct client *)handle;
    c->gone = 2;
    if (!c->jobs)
        free(c);
}

static void leave(struct client *c)
{
    if (!c->gone) {
        c->gone = 1;
        uv_close((uv_handle_t *)&c->tcp, forget);
    }
}

static void done(struct job *j)
{
    struct client *c = j->client;
    free(j);
    if (!--c->jobs && c->gone == 2)
        free(c);
}

static void written(uv_write_t *write, int status)
{
    done(write->data);
}

static void counted(uv_work_t *work, int status)
{
    struct job *j = (struct job *)work;
    uv_buf_t b = uv_buf_init(j->answer, strlen(j->answer));
    j->write.data = j;
    if (j->client->gone || uv_write(&j->write, (uv_stream_t *)&j->client->tcp, &b, 1, written))
        done(j);
}

static void ask(struct client *c, const char *key, size_t length)
{
    struct job *j = calloc(1, sizeof *j);
    j->client = c;
    memcpy(j->key, key, length < sizeof j->key - 1 ? length : sizeof j->key - 1);
    c->jobs++;
    uv_queue_work(c->tcp.loop, &j->work, count, counted);
}

static void room(uv_handle_t *handle, size_t hint, uv_buf_t *b)
{
    struct client *c = (struct client *)handle;
    *b = uv_buf_init(c->text + c->used, sizeof c->text - c->used);
}

static void received(uv_stream_t *stream, ssize_t n, const uv_buf_t *b)
{
    struct client *c = (struct client *)stream;
    if (n < 0) {
        leave(c);
        return;
    }
    c->used += n;
    for (char *end; (end = memchr(c->text, '\n', c->used));) {
        ask(c, c->text, end - c->text);
        c->used -= end + 1 - c->text;
        memmove(c->text, end + 1, c->used);
    }
}

static void welcome(uv_stream_t *listener, int status)
{
    struct client *c = calloc(1, sizeof *c);
    uv_tcp_init(listener->loop, &c->tcp);
    if (uv_accept(listener, (uv_stream_t *)&c->tcp) || uv_read_start((uv_stream_t *)&c->tcp, room, received))
        leave(c);
}

static void tick(uv_timer_t *timer)
{
    ticks++;
    uv_async_send(timer->data);
}

static void woken(uv_async_t *async)
{
    ticks++;
}

int main(int argc, char **argv)
{
    uv_loop_t *loop = uv_default_loop();
    uv_tcp_t listener;
    uv_timer_t timer;
    uv_async_t async;
    struct sockaddr_in self;
    uv_mutex_init(&lock);
    uv_async_init(loop, &async, woken);
    uv_timer_init(loop, &timer);
    timer.data = &async;
    uv_timer_start(&timer, tick, 20, 20);
    uv_ip4_addr("127.0.0.1", atoi(argv[1]), &self);
    uv_tcp_init(loop, &listener);
    if (uv_tcp_bind(&listener, (void *)&self, 0) || uv_listen((uv_stream_t *)&listener, 64, welcome))
        errx(1, "port %s", argv[1]);
    return uv_run(loop, UV_RUN_DEFAULT);
}
