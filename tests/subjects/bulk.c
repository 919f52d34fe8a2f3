/* Says very much at once: bulk pipe MEGABYTES | bulk tcp PORT | bulk both PORT
 *
 * pipe  writes numbered lines to stdout, asks for one line on stdin after each megabyte
 * tcp   to each client that sends a number of megabytes: that much numbered lines
 * both  each datagram n is answered by 20 datagrams `n.0` ... `n.19`, after a line `n` on stdout */
#include "service.h"

#include <signal.h>

static void megabyte(FILE *out, unsigned long *line)
{
    for (int i = 0; i < (1 << 20) / 16; i++)
        fprintf(out, "%015lu\n", (*line)++);
}

static void on_pipe(int megabytes)
{
    char text[64];
    unsigned long line = 0;
    for (int i = 0; i < megabytes; i++) {
        megabyte(stdout, &line);
        fflush(stdout);
        if (!fgets(text, sizeof text, stdin))
            return;
    }
}

static void on_tcp(int port)
{
    int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in self = {.sin_family = AF_INET, .sin_port = htons(port)};
    self.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (void *)&self, sizeof self) < 0 || listen(fd, 8) < 0)
        err(1, "port %d", port);
    for (;;) {
        char text[64];
        int client = accept(fd, NULL, NULL);
        FILE *both = fdopen(client, "r+");
        if (both && fgets(text, sizeof text, both)) {
            unsigned long line = 0;
            fseek(both, 0, SEEK_CUR);
            for (int megabytes = atoi(text); megabytes > 0; megabytes--)
                megabyte(both, &line);
        }
        fclose(both);
    }
}

static void on_both(int port)
{
    service_open(port);
    for (;;) {
        char *command = service_next(), text[64];
        printf("%s\n", command);
        fflush(stdout);
        for (int i = 0; i < 20; i++) {
            int length = snprintf(text, sizeof text, "%s.%d", command, i);
            sendto(service.socket, text, length, 0, (void *)&service.client, sizeof service.client);
        }
        service_answer("done");
    }
}

int main(int argc, char **argv)
{
    if (argc < 3)
        errx(2, "usage: bulk pipe|tcp|both NUMBER");
    signal(SIGPIPE, SIG_IGN);
    if (!strcmp(argv[1], "pipe"))
        on_pipe(atoi(argv[2]));
    else if (!strcmp(argv[1], "tcp"))
        on_tcp(atoi(argv[2]));
    else
        on_both(atoi(argv[2]));
    return 0;
}
