/* Files: reads one by offsets and in sequence, appends to a log.
 *
 *     files PORT INPUT LOG
 *     read <n>      the next n bytes of INPUT, at the current offset
 *     seek <n>      lseek to n
 *     pread <n>     10 bytes at n
 *     line          the next line of INPUT, by stdio
 *     log <text>    one line to LOG (opened with O_APPEND)
 *     where         both offsets and LOG's length */
#include "service.h"

#include <fcntl.h>
#include <sys/stat.h>

int main(int argc, char **argv)
{
    if (argc < 4)
        errx(2, "usage: files PORT INPUT LOG");
    int input = open(argv[2], O_RDONLY), log = open(argv[3], O_WRONLY | O_APPEND | O_CREAT, 0644);
    FILE *lines = fopen(argv[2], "r");
    if (input < 0 || log < 0 || !lines)
        err(1, "open");
    service_open(atoi(argv[1]));
    for (;;) {
        char *command = service_next(), text[1024] = "";
        char *rest = strchr(command, ' ');
        long n = rest ? atol(rest) : 0;
        if (!strncmp(command, "read", 4)) {
            n = read(input, text, n % 500);
            service_answer("%ld %.*s", n, (int)(n > 0 ? n : 0), text);
        } else if (!strncmp(command, "seek", 4)) {
            service_answer("%ld", (long)lseek(input, n, SEEK_SET));
        } else if (!strncmp(command, "pread", 5)) {
            n = pread(input, text, 10, n);
            service_answer("%ld %.*s", n, (int)(n > 0 ? n : 0), text);
        } else if (!strncmp(command, "line", 4)) {
            if (!fgets(text, sizeof text, lines))
                rewind(lines);
            text[strcspn(text, "\n")] = '\0';
            service_answer("%s at %ld", text, ftell(lines));
        } else if (!strncmp(command, "log", 3)) {
            n = snprintf(text, sizeof text, "%lu%s\n", service.number, rest ? rest : "");
            service_answer("%ld", (long)write(log, text, n));
        } else {
            service_answer("%ld %s", (long)lseek(input, 0, SEEK_CUR),
                           fcntl(log, F_GETFL) & O_APPEND ? "append" : "no append");
        }
    }
}
