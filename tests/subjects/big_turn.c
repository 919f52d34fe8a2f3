/* Turns that write very much memory: `fill <megabytes> <seed>` writes a block of that size, `sum` adds it
 * up, `drop` gives it back. The answer is a checksum; that to `hello`, which leaves the block alone, is not. */
#include "service.h"

static unsigned long *block;
static size_t words;

static unsigned long checksum(void)
{
    unsigned long s = 7;
    for (size_t i = 0; i < words; i++)
        s = s * 3 + block[i];
    return s;
}

int main(int argc, char **argv)
{
    service_open(atoi(argc > 1 ? argv[1] : "7777"));
    for (;;) {
        unsigned long megabytes, seed;
        char *command = service_next();
        if (!strcmp(command, "hello")) {
            service_answer("hello");
            continue;
        }
        if (sscanf(command, "fill %lu %lu", &megabytes, &seed) == 2) {
            words = megabytes * (1 << 20) / sizeof *block;
            if (!(block = realloc(block, words * sizeof *block)))
                err(1, "realloc");
            for (size_t i = 0; i < words; i++)
                block[i] = seed = seed * 6364136223846793005UL + 1442695040888963407UL;
        } else if (!strcmp(command, "drop")) {
            free(block);
            block = NULL;
            words = 0;
        }
        service_answer("%zu %016lx", words, checksum());
    }
}
