/* Sleeps in all ways and prints what it counted: `<tick> <way> <ticks so far>` on stdout. argv[1]: how
 * many ticks, then it returns 0. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/select.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    int ticks = atoi(argc > 1 ? argv[1] : "100");
    for (int i = 1; i <= ticks; i++) {
        struct timespec pause = {0, 3000000};
        struct timeval tv = {0, 3000};
        const char *way;
        switch (i % 5) {
        case 0: way = "nanosleep"; nanosleep(&pause, NULL); break;
        case 1: way = "usleep"; usleep(3000); break;
        case 2: way = "poll"; poll(NULL, 0, 3); break;
        case 3: way = "select"; select(0, NULL, NULL, NULL, &tv); break;
        default: way = "clock_nanosleep"; clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
        }
        printf("<%d %s>\n", i, way);
        fflush(stdout);
    }
    return 0;
}
