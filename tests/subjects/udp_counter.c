/* Named counters over UDP. `<number> INC <key>` and `<number> GET <key>` are answered with
 * `<number> <key> <value>`. The last answer to each client is kept, so that a client may repeat a
 * request whose answer was lost. */
#include <arpa/inet.h>
#include <err.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

struct counter {
    struct counter *next;
    char *key;
    unsigned long value;
};

struct client {
    struct client *next;
    struct sockaddr_in address;
    unsigned long number;
    char answer[256];
};

static struct counter *counters[64];
static struct client *clients;

static struct counter *counter_of(const char *key)
{
    unsigned hash = 5381;
    for (const char *p = key; *p; p++)
        hash = hash * 33 + (unsigned char)*p;
    struct counter **slot = &counters[hash % 64];
    for (; *slot; slot = &(*slot)->next)
        if (!strcmp((*slot)->key, key))
            return *slot;
    *slot = calloc(1, sizeof **slot);
    (*slot)->key = strdup(key);
    return *slot;
}

static struct client *client_of(const struct sockaddr_in *address)
{
    struct client *c;
    for (c = clients; c; c = c->next)
        if (c->address.sin_port == address->sin_port)
            return c;
    c = calloc(1, sizeof *c);
    c->address = *address;
    c->next = clients;
    return clients = c;
}

static void serve(struct client *c, const char *request)
{
    unsigned long number;
    char verb[8], key[64];
    if (sscanf(request, "%lu %7s %63s", &number, verb, key) != 3 || number <= c->number)
        return;
    struct counter *counter = counter_of(key);
    if (!strcmp(verb, "INC"))
        counter->value++;
    c->number = number;
    snprintf(c->answer, sizeof c->answer, "%lu %s %lu", number, key, counter->value);
}

int main(int argc, char **argv)
{
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    struct sockaddr_in self = {.sin_family = AF_INET, .sin_port = htons(atoi(argc > 1 ? argv[1] : "7777"))};
    self.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || bind(fd, (struct sockaddr *)&self, sizeof self) < 0)
        err(1, "bind");
    for (;;) {
        char request[512];
        struct sockaddr_in from;
        socklen_t size = sizeof from;
        ssize_t n = recvfrom(fd, request, sizeof request - 1, 0, (struct sockaddr *)&from, &size);
        if (n < 0)
            err(1, "recvfrom");
        request[n] = '\0';
        struct client *c = client_of(&from);
        serve(c, request);
        if (strtoul(request, NULL, 10) == c->number)
            sendto(fd, c->answer, strlen(c->answer), 0, (struct sockaddr *)&from, size);
    }
}
