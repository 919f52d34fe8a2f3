/* A notebook with stdio: over TCP with fdopen(), or on stdin and stdout.
 *
 *     <number> add <text>     answered `<number> <how many> <checksum of all texts>`
 *     <number> show <index>   answered `<number> <text>`
 * On stdout each answer is put between < and >. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static char **texts;
static size_t count, room;
static unsigned long last;
static char *answer;

static unsigned checksum(void)
{
    unsigned sum = 1;
    for (size_t i = 0; i < count; i++)
        for (char *p = texts[i]; *p; p++)
            sum = sum * 31 + (unsigned char)*p;
    return sum;
}

/* Returns 0 when the line is no request. */
static int serve(char *line)
{
    char *rest;
    unsigned long number = strtoul(line, &rest, 10);
    line[strcspn(line, "\r\n")] = '\0';
    if (number == last && last)
        return 1;
    if (number < last || rest == line)
        return 0;
    free(answer);
    if (!strncmp(rest, " add ", 5)) {
        if (count == room)
            texts = realloc(texts, (room = room ? room * 2 : 4) * sizeof *texts);
        texts[count++] = strdup(rest + 5);
        if (asprintf(&answer, "%lu %zu %08x", number, count, checksum()) < 0)
            err(1, "asprintf");
    } else {
        size_t index = strtoul(rest + 6, NULL, 10);
        if (asprintf(&answer, "%lu %s", number, index < count ? texts[index] : "-") < 0)
            err(1, "asprintf");
    }
    last = number;
    return 1;
}

static void talk(FILE *in, FILE *out, const char *before, const char *after)
{
    char line[4096];
    while (fgets(line, sizeof line, in))
        if (serve(line)) {
            fprintf(out, "%s%s%s\n", before, answer, after);
            fflush(out);
        }
}

static int listen_on(int port)
{
    int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in self = {.sin_family = AF_INET, .sin_port = htons(port)};
    self.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (struct sockaddr *)&self, sizeof self) < 0 || listen(fd, 8) < 0)
        err(1, "port %d", port);
    return fd;
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    if (argc < 2) {
        talk(stdin, stdout, "<", ">");
        printf("bye after %lu\n", last);
        return 0;
    }
    int fd = listen_on(atoi(argv[1]));
    for (;;) {
        int client = accept(fd, NULL, NULL);
        if (client < 0)
            continue;
        FILE *in = fdopen(client, "r"), *out = fdopen(dup(client), "w");
        talk(in, out, "", "");
        fclose(in);
        fclose(out);
    }
}
