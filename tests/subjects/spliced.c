/* Threads that hand bytes on inside the kernel, between pipes of the program's own: spliced PORT FILE
 *
 *     a writer (write, vmsplice) -> pipe -> splice -> pipe -> tee -> pipe -> a reader
 *                                                          -> splice -> socket -> a reader
 *
 *     pump N       N numbers go all the way; answers when both readers have them, in order, and the movers' counts agree
 *     file         a file of 300,000 bytes is sent into a pipe that a thread reads */
#define _GNU_SOURCE
#include "service.h"

#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>

enum { MOST = 20000 };

static int first[2], second[2], copied[2], last[2], sent[2];
static unsigned long wanted, written; /* numbers */
static unsigned long numbers[MOST];
static atomic_ulong moved, doubled, forwarded; /* bytes */
static atomic_ulong got[2];           /* numbers */
static atomic_bool wrong;
static sem_t asked, filed;

static ssize_t good(ssize_t n, const char *what)
{
    if (n <= 0)
        err(1, "%s: %zd", what, n);
    return n;
}

static void put(const char *bytes, size_t count, bool by_page)
{
    while (count) {
        struct iovec v = {(void *)bytes, count};
        ssize_t n = good(by_page ? vmsplice(first[1], &v, 1, 0) : write(first[1], bytes, count), "put");
        bytes += n;
        count -= (size_t)n;
    }
}

static void *write_on(void *unused)
{
    for (;;) {
        while (sem_wait(&asked))
            ;
        for (unsigned long n = 0; n < wanted; n++)
            numbers[n] = ++written;
        put((char *)numbers, wanted * sizeof *numbers, wanted % 2);
    }
    return unused;
}

static void *move(void *unused)
{
    for (size_t length = 1;; length = length * 7 % 50021)
        moved += (unsigned long)good(splice(first[0], NULL, second[1], NULL, length, 0), "splice");
    return unused;
}

static void *copy(void *unused)
{
    for (size_t length = 1;; length = length * 11 % 30011) {
        ssize_t n = good(tee(second[0], copied[1], length, 0), "tee");
        doubled += (unsigned long)n;
        for (ssize_t left = n; left > 0;) {
            ssize_t one = good(splice(second[0], NULL, last[1], NULL, (size_t)left, 0), "splice on");
            forwarded += (unsigned long)one;
            left -= one;
        }
    }
    return unused;
}

static void *read_on(void *argument)
{
    long which = (long)argument;
    unsigned long number = 0;
    size_t have = 0;
    for (;;) {
        have += (size_t)good(read(which ? last[0] : copied[0], (char *)&number + have, sizeof number - have), "read");
        if (have < sizeof number)
            continue;
        have = 0;
        if (number != got[which] + 1)
            wrong = true;
        got[which] = number;
    }
    return NULL;
}

static void *read_file(void *unused)
{
    static char bytes[7000];
    unsigned long sum = 0;
    for (size_t all = 0;;) {
        ssize_t n = good(read(sent[0], bytes, sizeof bytes), "read the file");
        for (ssize_t i = 0; i < n; i++)
            sum += (unsigned char)bytes[i];
        all += (size_t)n;
        if (all % 300000 == 0) {
            wrong = wrong || sum != all * 'f';
            sem_post(&filed);
        }
    }
    return unused;
}

/* To the outside, where nobody listens: whoever says something and then sleeps commits. */
static void say_something(void)
{
    static struct sockaddr_in nobody = {.sin_family = AF_INET, .sin_port = 0x0900};
    nobody.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    sendto(service.socket, "x", 1, 0, (void *)&nobody, sizeof nobody);
    usleep(100);
}

static void pump(unsigned long n)
{
    wanted = n < MOST ? n : MOST;
    unsigned long until = written + wanted, bytes = until * sizeof *numbers;
    sem_post(&asked);
    while (got[0] < until || got[1] < until)
        say_something();
    for (int i = 0; i < 1000 && (moved != bytes || doubled != bytes || forwarded != bytes); i++)
        usleep(1000);
    service_answer("%s %lu: %d %d %d", wrong ? "wrong" : "right", until, moved == bytes, doubled == bytes, forwarded == bytes);
}

static void send_file(const char *name)
{
    int file = open(name, O_RDONLY);
    for (size_t left = 300000; left;)
        left -= (size_t)good(sendfile(sent[1], file, NULL, left), "sendfile");
    close(file);
    while (sem_wait(&filed))
        ;
    service_answer("%s file", wrong ? "wrong" : "right");
}

static void begin(void *(*run)(void *), long argument)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, run, (void *)argument))
        errx(1, "pthread_create");
}

int main(int argc, char **argv)
{
    unsigned long n;
    if (argc != 3 || pipe(first) || pipe(second) || pipe(copied) || pipe(sent) || socketpair(AF_UNIX, SOCK_STREAM, 0, last))
        errx(2, "usage: spliced PORT FILE");
    sem_init(&asked, 0, 0);
    sem_init(&filed, 0, 0);
    begin(write_on, 0);
    begin(move, 0);
    begin(copy, 0);
    begin(read_on, 0);
    begin(read_on, 1);
    begin(read_file, 0);
    service_open(atoi(argv[1]));
    for (;;) {
        if (sscanf(service_next(), "pump %lu", &n) == 1)
            pump(n);
        else
            send_file(argv[2]);
    }
}
