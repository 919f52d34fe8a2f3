/* A UDP service that shuts itself in, in a root directory within another one, and gives up root, with two threads: jailed PORT ROOT
 * One file was opened before, one between and one inside; nothing of /proc can be seen. `count` reads a byte of each and adds to a
 * counter in the kernel; `where` answers with directories, files and counts. */
#include "service.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <sys/stat.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t asked = PTHREAD_COND_INITIALIZER, done = PTHREAD_COND_INITIALIZER;
static long wanted, counted;

static int must_open(const char *path)
{
    int fd = open(path, O_RDONLY);
    if (fd < 0)
        err(1, "%s", path);
    return fd;
}

static void *count_up(void *fd)
{
    pthread_mutex_lock(&lock);
    for (;;) {
        while (counted == wanted)
            pthread_cond_wait(&asked, &lock);
        if (eventfd_write(*(int *)fd, 1) || getuid() == 0)
            err(1, "counting");
        counted++;
        pthread_cond_signal(&done);
    }
    return NULL;
}

static void move_in(const char *root, const char *directory)
{
    if (chroot(root) || chdir(directory))
        err(1, "%s", root);
}

int main(int argc, char **argv)
{
    if (argc != 3)
        errx(2, "usage: jailed PORT ROOT");
    int tally = eventfd(0, EFD_NONBLOCK), files[3];
    pthread_t thread;
    service_open(atoi(argv[1]));
    if (pthread_create(&thread, NULL, count_up, &tally))
        errx(1, "no thread");
    files[0] = must_open("file");
    move_in(argv[2], "/");
    files[1] = must_open("file");
    move_in("cell", "/corner");
    files[2] = must_open("/file");
    if (setgid(65534) || setuid(65534))
        err(1, "giving up root");
    for (;;) {
        char *command = service_next(), directory[256], byte;
        if (!strcmp(command, "count")) {
            for (int i = 0; i < 3; i++)
                if (read(files[i], &byte, 1) != 1)
                    err(1, "file %d", i);
            pthread_mutex_lock(&lock);
            wanted++;
            pthread_cond_signal(&asked);
            while (counted != wanted)
                pthread_cond_wait(&done, &lock);
            pthread_mutex_unlock(&lock);
            service_answer("%ld", counted);
            continue;
        }
        eventfd_t sum = 0;
        if (eventfd_read(tally, &sum) == 0)
            eventfd_write(tally, sum);
        int used = sprintf(service.answer, "%d %s %s %lu", (int)getuid(), getcwd(directory, sizeof directory) ? directory : "nowhere",
                           access("../here", F_OK) || !access("/proc/self", F_OK) ? "outside" : "inside", (unsigned long)sum);
        for (int i = 0; i < 3; i++)
            used += sprintf(service.answer + used, " %ld:%c", (long)lseek(files[i], 0, SEEK_CUR),
                            pread(files[i], &byte, 1, 0) == 1 ? byte : '?');
        service_send();
    }
}
