/* Who has a store, and waiting for his end: for kenrun, whose command may go on as a daemon. */
#include "heap/kenctl.h"
#include "heap/store.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The process that has the lock, 0 when none has, or -1. */
static pid_t holder_of(const char *store)
{
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/lock", store) >= (int)sizeof path)
        return -1;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? 0 : -1;
    long holder = store_holder(fd);
    close(fd);
    return holder < 0 ? -1 : (pid_t)holder;
}

int ctl_holder(int argc, char **argv)
{
    if (argc != 1)
        return ctl_fail(CTL_USAGE, "holder takes the directory of one store");
    pid_t holder = holder_of(argv[0]);
    if (holder <= 0)
        return 1;
    printf("%d\n", (int)holder);
    return 0;
}

/* The lock goes when the process is taken apart, a moment after its pid may have ended or before: it is the lock that
 * counts. */
int ctl_wait(int argc, char **argv)
{
    if (argc != 2)
        return ctl_fail(CTL_USAGE, "wait takes the directory of a store and a process");
    pid_t pid = (pid_t)strtol(argv[1], NULL, 10);
    int fd = pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
    while (pid > 0 && holder_of(argv[0]) == pid) {
        struct pollfd p = {fd, POLLIN, 0};
        if (poll(&p, fd >= 0, fd >= 0 ? 1000 : 50) > 0)
            usleep(5000);
    }
    return 0;
}
