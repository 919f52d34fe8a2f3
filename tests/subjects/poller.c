/* A UDP counter that never blocks: it turns round and round with MSG_DONTWAIT and computes meanwhile.
 * The answer to `inc` is the count; `spins` tells whether it spun. */
#include "service.h"

#include <sched.h>

int main(int argc, char **argv)
{
    unsigned long count = 0, spins = 0;
    service_open(atoi(argc > 1 ? argv[1] : "7777"));
    for (;;) {
        char *command = service_receive(MSG_DONTWAIT);
        spins++;
        if (!command) {
            sched_yield();
            continue;
        }
        if (!strcmp(command, "inc"))
            count++;
        service_answer("%lu", !strcmp(command, "spins") ? (unsigned long)(spins > 0) : count);
    }
}
