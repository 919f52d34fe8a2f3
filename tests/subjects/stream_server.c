/* Take a number over TCP: many connections, one line a request, answered with the next number. A connection that breaks
 * for any reason but its end is the end of the program. */
#include <arpa/inet.h>
#include <err.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct connection {
    char line[256];
    size_t used;
} connections[64];
static struct pollfd fds[65];
static int count = 1;
static unsigned long next_number = 1;

static void answer(int fd, const char *request)
{
    char text[320];
    int n = snprintf(text, sizeof text, "%lu for %s\n", next_number++, request);
    if (write(fd, text, (size_t)n) != n)
        err(1, "write");
}

static int serve(int i)
{
    struct connection *c = &connections[i - 1];
    ssize_t n = read(fds[i].fd, c->line + c->used, sizeof c->line - c->used);
    if (n < 0)
        err(1, "read");
    c->used += (size_t)n;
    for (char *end; (end = memchr(c->line, '\n', c->used));) {
        *end = '\0';
        answer(fds[i].fd, c->line);
        c->used -= (size_t)(end + 1 - c->line);
        memmove(c->line, end + 1, c->used);
    }
    return n > 0;
}

int main(int argc, char **argv)
{
    struct sockaddr_in self = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[argc - 1]))};
    int on = 1;
    fds[0] = (struct pollfd){socket(AF_INET, SOCK_STREAM, 0), POLLIN, 0};
    setsockopt(fds[0].fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fds[0].fd, (struct sockaddr *)&self, sizeof self) < 0 || listen(fds[0].fd, 16) < 0)
        err(1, "port %s", argv[argc - 1]);
    for (;;) {
        if (poll(fds, count, -1) < 0)
            err(1, "poll");
        for (int i = count - 1; i > 0; i--) {
            if (!fds[i].revents || serve(i))
                continue;
            close(fds[i].fd);
            fds[i] = fds[--count];
            connections[i - 1] = connections[count - 1];
        }
        if (fds[0].revents && count < 65) {
            fds[count] = (struct pollfd){accept(fds[0].fd, NULL, NULL), POLLIN, 0};
            if (fds[count].fd < 0)
                err(1, "accept");
            connections[count++ - 1].used = 0;
        }
    }
}
