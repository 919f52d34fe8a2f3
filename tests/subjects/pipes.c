/* Pipes, a FIFO-like socketpair and an eventfd between the program's own ends, with content that stays in
 * them over many turns.
 *
 *     put <text>   into the pipe          take   what is in it (at most 100 bytes)
 *     send <text>  into the socketpair    get    one message from it
 *     event <n>    adds to the eventfd    count  reads it
 *     dup          replaces the pipe's writer by a duplicate of itself */
#define _GNU_SOURCE
#include "service.h"

#include <fcntl.h>
#include <sys/eventfd.h>

int main(int argc, char **argv)
{
    int ends[2], pair[2], event = eventfd(0, EFD_NONBLOCK);
    if (pipe2(ends, O_NONBLOCK) < 0 || event < 0 ||
        socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, pair) < 0)
        err(1, "pipe");
    service_open(atoi(argc > 1 ? argv[1] : "7777"));
    for (;;) {
        char *command = service_next(), text[200] = "";
        char *rest = strchr(command, ' ') ? strchr(command, ' ') + 1 : command + strlen(command);
        unsigned long count = atol(rest);
        long n;
        if (!strncmp(command, "put", 3))
            n = write(ends[1], rest, strlen(rest));
        else if (!strncmp(command, "take", 4))
            n = read(ends[0], text, 100);
        else if (!strncmp(command, "send", 4))
            n = send(pair[1], rest, strlen(rest), 0);
        else if (!strncmp(command, "get", 3))
            n = recv(pair[0], text, 100, 0);
        else if (!strncmp(command, "event", 5))
            n = write(event, &count, sizeof count);
        else if (!strncmp(command, "count", 5)) {
            count = 0;
            n = read(event, &count, sizeof count);
            snprintf(text, sizeof text, "%lu", count);
        } else {
            int copy = dup(ends[1]);
            close(ends[1]);
            n = dup2(copy, ends[1]) == ends[1] && !close(copy);
        }
        service_answer("%ld %s %s", n, n < 0 ? strerrorname_np(errno) : "ok", text);
    }
}
