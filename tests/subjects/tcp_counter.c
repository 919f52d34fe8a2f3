/* Named counters over TCP, one client at a time, blocking: lines `<number> INC|GET <key>` are answered
 * with lines `<number> <key> <value>`. A repeated number is answered as before. */
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct {
    char key[64];
    unsigned long value;
} table[100];
static unsigned long last;
static char answer[128];

static void serve(const char *request)
{
    unsigned long number;
    char verb[8], key[64];
    if (sscanf(request, "%lu %7s %63s", &number, verb, key) != 3 || number < last)
        return;
    if (number == last)
        return;
    int i = 0;
    while (i < 99 && table[i].key[0] && strcmp(table[i].key, key))
        i++;
    strcpy(table[i].key, key);
    if (!strcmp(verb, "INC"))
        table[i].value++;
    last = number;
    snprintf(answer, sizeof answer, "%lu %s %lu\n", number, key, table[i].value);
}

static void talk(int fd)
{
    char buffer[1024];
    size_t have = 0;
    for (;;) {
        ssize_t n = read(fd, buffer + have, sizeof buffer - 1 - have);
        if (n <= 0)
            return;
        have += n;
        buffer[have] = '\0';
        char *end;
        while ((end = strchr(buffer, '\n'))) {
            *end = '\0';
            serve(buffer);
            if (strtoul(buffer, NULL, 10) == last && write(fd, answer, strlen(answer)) < 0)
                return;
            have -= end + 1 - buffer;
            memmove(buffer, end + 1, have + 1);
        }
    }
}

int main(int argc, char **argv)
{
    int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in self = {.sin_family = AF_INET, .sin_port = htons(atoi(argc > 1 ? argv[1] : "7777"))};
    self.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&self, sizeof self) < 0 || listen(fd, 8) < 0)
        err(1, "port");
    for (;;) {
        int client = accept(fd, NULL, NULL);
        if (client < 0) {
            if (errno == ECONNABORTED || errno == EINTR)
                continue;
            err(1, "accept");
        }
        talk(client);
        close(client);
    }
}
