/* Memory that comes and goes at one address.
 *
 *     fill      maps a megabyte and fills it
 *     replace   maps another one over it and touches nothing of it
 *     sum       the sum of its bytes */
#include "service.h"

#include <sys/mman.h>

#define BYTES (1UL << 20)

int main(int argc, char **argv)
{
    unsigned char *at = NULL;
    service_open(atoi(argc > 1 ? argv[1] : "7777"));
    for (;;) {
        char *command = service_next();
        unsigned long sum = 0;
        if (!strcmp(command, "sum")) {
            for (unsigned long i = 0; at && i < BYTES; i++)
                sum += at[i];
        } else {
            int flags = MAP_PRIVATE | MAP_ANONYMOUS | (at ? MAP_FIXED : 0);
            if (at && munmap(at, BYTES))
                err(1, "munmap");
            at = mmap(at, BYTES, PROT_READ | PROT_WRITE, flags, -1, 0);
            if (at == MAP_FAILED)
                err(1, "mmap");
            if (!strcmp(command, "fill"))
                memset(at, 3, BYTES);
        }
        service_answer("%s %lu", command, sum);
    }
}
