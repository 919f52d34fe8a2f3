/* A service that goes into the background: daemon WAY PORT PIDFILE.
 *
 *     libc     daemon(3)
 *     single   fork, the parent exits, setsid
 *     double   fork, the parent exits, setsid, fork, the first child exits
 *     dawdles  the same, and the first child computes for a while before its fork
 *     lingers  the same, and it does so after its fork, for longer
 *     waits    double, and the parent waits for the first child's exit before its own
 *     ready    double, and the parent waits for a byte that the service sends when it is up
 *     slow     that, half a second late
 *     talks    waits and slow, and the parent says several times that it waits
 *     signal   fork, setsid; the parent sleeps until the child sends it SIGUSR1
 *     bind     the socket is made and bound before daemon(3); a child of the parent before that, too
 *     stays    fork, setsid in the child: the parent, which is the service, goes on (and the child sleeps)
 *
 * Requests are answered in order: `inc` <count>, `who` <pid as in the pid file, or not> <its session leads, or not>. */
#include "service.h"

#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

static const char *way, *pid_file;
static int ready[2] = {-1, -1};

static bool is(const char *name)
{
    return !strcmp(way, name);
}

static void on_signal(int number)
{
    (void)number;
}

static void parent(pid_t child)
{
    char byte;
    int status;
    if ((is("waits") || is("talks")) && (waitpid(child, &status, 0) != child || status))
        errx(1, "the first child ended with %d", status);
    if (is("ready") || is("slow") || is("talks")) {
        close(ready[1]);
        for (int n = 0; is("talks") && n < 5; n++) {
            printf("waiting\n");
            fflush(stdout);
            usleep(20000);
        }
        if (read(ready[0], &byte, 1) != 1)
            errx(1, "no service");
    }
    if (is("signal")) {
        sigset_t none;
        sigemptyset(&none);
        sigsuspend(&none);
    }
    printf("in the background\n");
    fflush(stdout);
    _exit(0);
}

/* Computes: no call, and no wait. */
static void compute(long ms)
{
    struct timespec began, now;
    clock_gettime(CLOCK_MONOTONIC, &began);
    do
        clock_gettime(CLOCK_MONOTONIC, &now);
    while ((now.tv_sec - began.tv_sec) * 1000 + (now.tv_nsec - began.tv_nsec) / 1000000 < ms);
}

static void into_background(void)
{
    pid_t pid, starter = getpid();
    sigset_t usr1;
    sigemptyset(&usr1);
    sigaddset(&usr1, SIGUSR1);
    sigprocmask(SIG_BLOCK, &usr1, NULL);
    signal(SIGUSR1, on_signal);
    if (pipe(ready) < 0 || (pid = fork()) < 0)
        err(1, "fork");
    if (pid && is("stays"))
        return;
    if (pid)
        parent(pid);
    setsid();
    if (is("stays"))
        for (;;)
            pause();
    if (is("dawdles"))
        compute(200);
    if (!is("single") && !is("signal") && (pid = fork())) {
        if (is("lingers"))
            compute(1200);
        _exit(pid < 0);
    }
    if (is("signal"))
        kill(starter, SIGUSR1);
    if (chdir("/") < 0)
        err(1, "/");
    umask(027);
    for (int fd = 0; fd < 2; fd++)
        close(fd);
    if (open("/dev/null", O_RDWR) != 0 || dup(0) != 1) /* stderr stays: what goes wrong is to be seen */
        err(1, "/dev/null");
}

static void write_pid(void)
{
    FILE *f = fopen(pid_file, "w");
    if (!f)
        err(1, "%s", pid_file);
    fprintf(f, "%d\n", (int)getpid());
    fclose(f);
}

static int read_pid(void)
{
    int pid = 0;
    FILE *f = fopen(pid_file, "r");
    if (f && fscanf(f, "%d", &pid) != 1)
        pid = 0;
    if (f)
        fclose(f);
    return pid;
}

int main(int argc, char **argv)
{
    unsigned long count = 0;
    if (argc != 4)
        errx(64, "daemon WAY PORT PIDFILE");
    way = argv[1];
    pid_file = argv[3];
    printf("beginning\n");
    fflush(stdout);
    if (is("bind")) {
        service_open(atoi(argv[2]));
        if (system("exit 3") != 3 << 8)
            errx(1, "system");
    }
    if (is("libc") || is("bind") ? daemon(0, 0) : (into_background(), 0))
        err(1, "daemon");
    write_pid();
    if (is("slow") || is("talks"))
        usleep(500000);
    if (!is("bind"))
        service_open(atoi(argv[2]));
    if ((is("ready") || is("slow") || is("talks")) && write(ready[1], "!", 1) != 1)
        err(1, "the parent");
    for (;;) {
        char *command = service_next();
        if (!strcmp(command, "inc"))
            service_answer("%lu", ++count);
        else
            service_answer("%s", getpid() == read_pid() ? "me" : "another");
    }
}
