/* A datagram service as legacy programs have it: one socket, text requests, answers kept so that a
 * client may repeat a request whose answer was lost.
 *
 *     request  <number> <command...>
 *     answer   <number> <text>
 */
#ifndef SERVICE_H
#define SERVICE_H

#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct {
    int socket;
    struct sockaddr_in client;
    unsigned long number;      /* of the request in hand, which is also the last one answered */
    char request[2048], answer[2048];
} service;

static inline void service_open(int port)
{
    struct sockaddr_in self = {.sin_family = AF_INET, .sin_port = htons(port)};
    self.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    service.socket = socket(AF_INET, SOCK_DGRAM, 0);
    if (service.socket < 0 || bind(service.socket, (void *)&self, sizeof self) < 0)
        err(1, "port %d", port);
}

static inline void service_send(void)
{
    char line[sizeof service.answer + 32];
    int length = snprintf(line, sizeof line, "%lu %s", service.number, service.answer);
    if (sendto(service.socket, line, length, 0, (void *)&service.client, sizeof service.client) < 0)
        warn("sendto");
}

/* One datagram: returns its command when it is a new request, NULL when there was nothing to do
 * (a repeated request is answered on the way). `flags` are recvfrom's. */
static inline char *service_receive(int flags)
{
    char line[sizeof service.request];
    socklen_t size = sizeof service.client;
    ssize_t n = recvfrom(service.socket, line, sizeof line - 1, flags, (void *)&service.client, &size);
    if (n < 0) {
        if (errno != EAGAIN && errno != EINTR)
            err(1, "recvfrom");
        return NULL;
    }
    line[n] = '\0';
    char *command;
    unsigned long number = strtoul(line, &command, 10);
    if (number < service.number || *command != ' ')
        return NULL;
    if (number == service.number) {
        service_send();
        return NULL;
    }
    service.number = number;
    return strcpy(service.request, command + 1);
}

/* The next new request; blocks until there is one. */
static inline char *service_next(void)
{
    char *command;
    while (!(command = service_receive(0)))
        ;
    return command;
}

__attribute__((format(printf, 1, 2))) static inline void service_answer(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(service.answer, sizeof service.answer, format, arguments);
    va_end(arguments);
    service_send();
}

#endif
