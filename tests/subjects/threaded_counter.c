/* A counter over UDP, served by three threads that wait on the same socket: the first one as well. Requests are
 * `<number> inc`, answered `<number> <value> <how many each thread knows of>`; a repeated one gets its answer again.
 * Each thread waits with values of its own in all registers that a call must preserve, and looks at them after. */
#include <arpa/inet.h>
#include <err.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int fd;
static unsigned long number, value;
static char answer[128];
static __thread unsigned long mine;
static unsigned long *each[3];

/* recvfrom(), with a mark in rbx, rbp and r12 to r15 that must be there when it returns. */
ssize_t receive(int fd, void *buffer, size_t bytes, int flags, struct sockaddr *from, socklen_t *size);
void lost_register(void);

#define MARKS(step) step(rbx, 0x1b) step(rbp, 0x2b) step(r12, 0x3c) step(r13, 0x4d) step(r14, 0x5e) step(r15, 0x6f)
#define SAVE(name, value) "push %" #name "\n\t"
#define MARK(name, value) "mov $" #value "5eed, %" #name "\n\t"
#define LOOK(name, value) "cmp $" #value "5eed, %" #name "\n\tjne lost_register\n\t"

__asm__(".globl receive\n\t"
        ".type receive, @function\n"
        "receive:\n\t" MARKS(SAVE) "sub $8, %rsp\n\t" MARKS(MARK)
        "call recvfrom@PLT\n\t" MARKS(LOOK)
        "add $8, %rsp\n\t"
        "pop %r15\n\tpop %r14\n\tpop %r13\n\tpop %r12\n\tpop %rbp\n\tpop %rbx\n\t"
        "ret\n\t"
        ".size receive, . - receive\n\t");

void lost_register(void)
{
    static const char text[] = "threaded_counter: a register was lost while recvfrom waited\n";
    ssize_t n = write(2, text, sizeof text - 1);
    _exit(n > 0 ? 70 : 71);
}

static void serve(const char *request)
{
    unsigned long asked = strtoul(request, NULL, 10), total = 0;
    if (asked <= number)
        return;
    number = asked;
    value++;
    mine++;
    for (int i = 0; i < 3; i++)
        total += each[i] ? *each[i] : 0;
    snprintf(answer, sizeof answer, "%lu %lu %lu", number, value, total);
}

static void *work(void *index)
{
    each[(long)index] = &mine;
    for (;;) {
        char request[512];
        struct sockaddr_in from;
        socklen_t size = sizeof from;
        ssize_t n = receive(fd, request, sizeof request - 1, 0, (struct sockaddr *)&from, &size);
        if (n < 0)
            err(1, "recvfrom");
        request[n] = '\0';
        pthread_mutex_lock(&lock);
        serve(request);
        if (strtoul(request, NULL, 10) == number)
            sendto(fd, answer, strlen(answer), 0, (struct sockaddr *)&from, size);
        pthread_mutex_unlock(&lock);
    }
}

int main(int argc, char **argv)
{
    struct sockaddr_in self = {.sin_family = AF_INET, .sin_port = htons(atoi(argc > 1 ? argv[1] : "7777"))};
    pthread_t thread;
    self.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    fd = socket(AF_INET, SOCK_DGRAM, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&self, sizeof self) < 0)
        err(1, "bind");
    for (long i = 1; i < 3; i++)
        if (pthread_create(&thread, NULL, work, (void *)i))
            errx(1, "pthread_create");
    work(NULL);
}
