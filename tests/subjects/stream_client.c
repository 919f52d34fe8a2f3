/* Takes numbers from stream_server: stream_client PORT COUNT NAME, a new connection for every 50 of them. Asks once, and
 * gives up at the first thing that is not as it should be. */
#include <arpa/inet.h>
#include <err.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int dial(int port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)}, self;
    socklen_t size = sizeof self, length = sizeof(int);
    int on = 1, type = 0, error = -1;
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&to, sizeof to) < 0)
        err(1, "connect");
    if (getpeername(fd, (struct sockaddr *)&self, &size) < 0 || size != sizeof self || self.sin_port != to.sin_port)
        errx(1, "getpeername");
    if (getsockname(fd, (struct sockaddr *)&self, &size) < 0 || self.sin_family != AF_INET || !self.sin_port)
        errx(1, "getsockname");
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0)
        err(1, "TCP_NODELAY");
    getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &length);
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length);
    if (type != SOCK_STREAM || error)
        errx(1, "type %d, error %d", type, error);
    return fd;
}

int main(int argc, char **argv)
{
    unsigned long last = 0;
    FILE *in = NULL;
    int fd = -1;
    for (long i = 0; i < atol(argv[2]) && argc == 4; i++) {
        char request[128], answer[256], echo[128];
        unsigned long number;
        if (i % 50 == 0) {
            if (in)
                fclose(in);
            fd = dial(atoi(argv[1]));
            in = fdopen(fd, "r");
        }
        int n = snprintf(request, sizeof request, "%s-%ld\n", argv[3], i);
        if (write(fd, request, 2) != 2 || write(fd, request + 2, (size_t)n - 2) != n - 2)
            err(1, "write");
        if (!fgets(answer, sizeof answer, in))
            err(1, "read");
        request[n - 1] = '\0';
        if (sscanf(answer, "%lu for %127s", &number, echo) != 2 || strcmp(echo, request) || number <= last)
            errx(1, "asked %s after %lu, got %s", request, last, answer);
        last = number;
        printf("%ld %lu\n", i, number);
        fflush(stdout);
    }
    printf("done\n");
    return 0;
}
