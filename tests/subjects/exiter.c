/* Ends in the way that argv[1] names, after a line of output that was never flushed by hand, and after
 * a line from stdin. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void first(void) { printf("atexit first\n"); }
static void second(void) { printf("atexit second\n"); }

int main(int argc, char **argv)
{
    const char *way = argc > 1 ? argv[1] : "return";
    char line[256];
    atexit(first);
    atexit(second);
    printf("hello\n");
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin))
        strcpy(line, "(end)\n");
    printf("got %s", line);
    if (!strcmp(way, "exit"))
        exit(7);
    if (!strcmp(way, "_exit")) {
        fflush(stdout);
        _exit(8);
    }
    if (!strcmp(way, "quick"))
        quick_exit(fflush(stdout) + 9);
    if (!strcmp(way, "slow")) { /* much to say at the end */
        for (int i = 0; i < 20000; i++)
            printf("line %d\n", i);
        exit(3);
    }
    return 5;
}
