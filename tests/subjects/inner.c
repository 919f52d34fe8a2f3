/* What the program moves between its own ends while turns end around it: its state after each is known.
 *
 *     late         answers, and then puts 5000 bytes into a pipe        drained    how many bytes are in it (and reads them)
 *     tick         reads a timer that rings once                        ticked     whether it rings again
 *     tail         sends ten bytes of a file to stdout                  where      the file's offset
 *     place        writes a word into a memfd                          placed     the word
 *     ring         sets a timer that rings once, and waits for its signal; ten times
 *     await        the same for a signal that all block, and the main thread asks for
 *     talk         three threads send numbers to three others: over a pipe, a stream pair and a datagram pair
 *                  answers how many of the three have ever got a number that was not the next one */
#define _GNU_SOURCE
#include "service.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/time.h>
#include <sys/timerfd.h>

enum { LATE = 5000, MESSAGE = 5000 };

static int file, pipe_ends[2], timer, memory;
static struct talk {
    int ends[2]; /* reads, writes */
    bool datagrams, socket;
    unsigned long sent, got;
    atomic_bool wrong;
} talks[3];

static _Noreturn void *speak(void *argument)
{
    struct talk *t = argument;
    unsigned char message[MESSAGE];
    for (;;) {
        memset(message, (int)(++t->sent % 251), sizeof message);
        memcpy(message, &t->sent, sizeof t->sent);
        ssize_t n = t->socket ? send(t->ends[1], message, sizeof message, 0) : write(t->ends[1], message, sizeof message);
        if (n != sizeof message)
            err(1, "sent %zd", n);
    }
}

static bool receive(struct talk *t, unsigned char *message)
{
    for (size_t n = 0; n < MESSAGE;) {
        ssize_t r = t->socket ? recv(t->ends[0], message + n, MESSAGE - n, 0) : read(t->ends[0], message + n, MESSAGE - n);
        if (r <= 0)
            err(1, "received %zd", r);
        n += (size_t)r;
        if (t->datagrams)
            return n == MESSAGE;
    }
    return true;
}

static _Noreturn void *listen_to(void *argument)
{
    struct talk *t = argument;
    unsigned char message[MESSAGE];
    unsigned long number;
    for (;;) {
        bool whole = receive(t, message);
        memcpy(&number, message, sizeof number);
        if (!whole || number != ++t->got || message[MESSAGE - 1] != number % 251)
            t->wrong = true;
        usleep(300);
    }
}

static void begin(int i, int type)
{
    struct talk *t = &talks[i];
    pthread_t thread;
    t->socket = type;
    t->datagrams = type == SOCK_DGRAM;
    if (type ? socketpair(AF_UNIX, type, 0, t->ends) : pipe(t->ends))
        err(1, "pair");
    if (pthread_create(&thread, NULL, listen_to, t) || pthread_create(&thread, NULL, speak, t))
        errx(1, "pthread_create");
}

static void late(void)
{
    static char bytes[LATE];
    service_answer("late");
    if (write(pipe_ends[1], bytes, sizeof bytes) != sizeof bytes)
        err(1, "write");
}

static void drained(void)
{
    char bytes[2 * LATE];
    struct pollfd p = {pipe_ends[0], POLLIN, 0};
    service_answer("drained %zd", poll(&p, 1, 0) > 0 ? read(pipe_ends[0], bytes, sizeof bytes) : 0);
}

static void tick(void)
{
    struct itimerspec once = {.it_value.tv_nsec = 20000000};
    unsigned long rings = 0;
    timerfd_settime(timer, 0, &once, NULL);
    if (read(timer, &rings, sizeof rings) != sizeof rings)
        err(1, "read");
    service_answer("rang %lu", rings);
}

static void placed(void)
{
    char word[8] = "";
    service_answer("placed %zd %s", pread(memory, word, 5, 0), word);
}

static void talk(void)
{
    if (!talks[0].ends[1]) {
        begin(0, 0);
        begin(1, SOCK_STREAM);
        begin(2, SOCK_DGRAM);
    }
    service_answer("wrong %d", talks[0].wrong + talks[1].wrong + talks[2].wrong);
}

static volatile sig_atomic_t rings;

static void on_alarm(int number)
{
    rings++;
}

/* The signal may come to any thread; only the main one looks. */
static void ring(void)
{
    struct itimerval once = {.it_value.tv_usec = 300};
    struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &action, NULL);
    for (int i = 0; i < 10; i++) {
        int before = rings;
        if (setitimer(ITIMER_REAL, &once, NULL))
            err(1, "setitimer");
        while (rings == before)
            usleep(500);
    }
    service_answer("rang");
}

static void await(const sigset_t *usr)
{
    static timer_t clock;
    static bool made;
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
    struct itimerspec once = {.it_value.tv_nsec = 300000};
    if (!made && timer_create(CLOCK_MONOTONIC, &event, &clock))
        err(1, "timer_create");
    made = true;
    for (int i = 0, number; i < 10; i++)
        if (timer_settime(clock, 0, &once, NULL) || sigwait(usr, &number) || number != SIGUSR1)
            err(1, "sigwait");
    service_answer("awaited");
}

int main(int argc, char **argv)
{
    if (argc != 3 || (file = open(argv[2], O_RDONLY)) < 0 || pipe(pipe_ends) || (timer = timerfd_create(CLOCK_MONOTONIC, 0)) < 0 ||
        (memory = memfd_create("words", 0)) < 0)
        err(1, "usage: inner PORT FILE");
    sigset_t usr;
    sigemptyset(&usr);
    sigaddset(&usr, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &usr, NULL);
    service_open(atoi(argv[1]));
    for (;;) {
        const char *command = service_next();
        struct pollfd p = {timer, POLLIN, 0};
        if (!strcmp(command, "late"))
            late();
        else if (!strcmp(command, "drained"))
            drained();
        else if (!strcmp(command, "tick"))
            tick();
        else if (!strcmp(command, "ticked"))
            service_answer("ticked %d", poll(&p, 1, 0));
        else if (!strcmp(command, "tail"))
            service_answer("sent %zd", sendfile(1, file, NULL, 10));
        else if (!strcmp(command, "place"))
            service_answer("place %zd", pwrite(memory, service.number % 2 ? "tower" : "house", 5, 0));
        else if (!strcmp(command, "placed"))
            placed();
        else if (!strcmp(command, "ring"))
            ring();
        else if (!strcmp(command, "await"))
            await(&usr);
        else if (!strcmp(command, "where"))
            service_answer("at %ld", (long)lseek(file, 0, SEEK_CUR));
        else
            talk();
    }
}
