/* Numbers, each given once: ticket_office PORT [nap|busy]
 *
 * A connection sends lines and gets the next number for each. Three threads serve by epoll, further connections have a
 * thread of their own each, and every second one of those passes its requests to a clerk by a condition variable. One
 * more thread sleeps for moments (`nap`), or computes and never waits (`busy`). */
#include <arpa/inet.h>
#include <err.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define EVENT_THREADS 3

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER, desk = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t called = PTHREAD_COND_INITIALIZER;
static unsigned long given;
static volatile unsigned long computed, slept;
static int waiting[256], waiting_count;

static void give(int fd)
{
    char answer[32];
    pthread_mutex_lock(&lock);
    int length = snprintf(answer, sizeof answer, "%lu\n", ++given);
    pthread_mutex_unlock(&lock);
    send(fd, answer, (size_t)length, MSG_NOSIGNAL);
}

/* How many lines came; 0: the connection has ended. */
static int lines(int fd)
{
    char text[256];
    ssize_t n = recv(fd, text, sizeof text, 0);
    int count = 0;
    for (ssize_t i = 0; i < n; i++)
        count += text[i] == '\n';
    return count;
}

static _Noreturn void *serve_events(void *epoll)
{
    struct epoll_event ready[8];
    for (;;) {
        int n = epoll_wait((int)(long)epoll, ready, 8, -1);
        for (int i = 0; i < n; i++) {
            int asked = lines(ready[i].data.fd);
            if (!asked)
                close(ready[i].data.fd);
            while (asked--)
                give(ready[i].data.fd);
        }
    }
}

static void *serve_one(void *connection)
{
    int fd = (int)(long)connection;
    for (int asked; (asked = lines(fd));)
        while (asked--)
            give(fd);
    close(fd);
    return NULL;
}

/* What is still asked for would be given to the next connection of that number. */
static void leave_desk(int fd)
{
    int left = 0;
    pthread_mutex_lock(&desk);
    for (int i = 0; i < waiting_count; i++)
        if (waiting[i] != fd)
            waiting[left++] = waiting[i];
    waiting_count = left;
    close(fd);
    pthread_mutex_unlock(&desk);
}

static void *serve_by_clerk(void *connection)
{
    int fd = (int)(long)connection;
    for (int asked; (asked = lines(fd));) {
        pthread_mutex_lock(&desk);
        while (asked-- && waiting_count < 256)
            waiting[waiting_count++] = fd;
        pthread_cond_signal(&called);
        pthread_mutex_unlock(&desk);
    }
    leave_desk(fd);
    return NULL;
}

static _Noreturn void *clerk(void *unused)
{
    for (;;) {
        pthread_mutex_lock(&desk);
        while (!waiting_count)
            pthread_cond_wait(&called, &desk);
        give(waiting[--waiting_count]);
        pthread_mutex_unlock(&desk);
    }
}

static _Noreturn void *compute(void *unused)
{
    for (;;)
        computed++;
}

static _Noreturn void *nap(void *unused)
{
    for (;; slept++)
        usleep(300);
}

static void start(void *(*run)(void *), long argument)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, run, (void *)argument))
        errx(1, "pthread_create");
    pthread_detach(thread);
}

int main(int argc, char **argv)
{
    struct sockaddr_in self = {.sin_family = AF_INET, .sin_port = htons(atoi(argc > 1 ? argv[1] : "7777"))};
    int epoll[EVENT_THREADS], on = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
    self.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (void *)&self, sizeof self) < 0 || listen(listener, 64) < 0)
        err(1, "port");
    for (int i = 0; i < EVENT_THREADS; i++)
        start(serve_events, epoll[i] = epoll_create1(0));
    start(clerk, 0);
    if (argc > 2)
        start(strcmp(argv[2], "busy") ? nap : compute, 0);
    for (unsigned n = 0;; n++) {
        int fd = accept(listener, NULL, NULL);
        if (fd < 0)
            err(1, "accept");
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
        if (n % 5 < EVENT_THREADS)
            epoll_ctl(epoll[n % 5], EPOLL_CTL_ADD, fd, &e);
        else
            start(n % 5 == EVENT_THREADS ? serve_one : serve_by_clerk, fd);
    }
}
