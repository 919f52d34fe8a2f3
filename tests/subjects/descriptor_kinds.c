/* Every kind of descriptor that a program makes for itself, used from turn to turn: descriptor_kinds PORT
 *
 * As pthread_kinds: each command takes one step of one object; what a step puts in, a later one takes out. Answers depend on
 * the commands alone: a twin that nobody kills gives the same. */
#define _GNU_SOURCE
#include "service.h"

#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>

static long sure(long result, const char *what)
{
    if (result < 0)
        err(1, "%s", what);
    return result;
}

/* Not errno's text: the twin's answer must be the same. */
static const char *told(long result)
{
    static char text[32];
    snprintf(text, sizeof text, result < 0 ? "error %ld" : "%ld", result < 0 ? (long)errno : result);
    return text;
}

static void eventfd_step(unsigned long number)
{
    static int plain = -1, semaphore = -1;
    static unsigned step;
    if (plain < 0) {
        plain = (int)sure(eventfd(3, EFD_NONBLOCK), "eventfd");
        semaphore = (int)sure(eventfd(0, EFD_NONBLOCK | EFD_SEMAPHORE), "eventfd");
    }
    eventfd_t value = 0, one = 0;
    if (step++ % 3 < 2) {
        eventfd_write(plain, number % 7 + 1);
        eventfd_write(semaphore, 2);
        service_answer("eventfd in");
    } else {
        eventfd_read(plain, &value);
        eventfd_read(semaphore, &one);
        service_answer("eventfd out %lu %lu", (unsigned long)value, (unsigned long)one);
    }
}

static void signal_step(void)
{
    static int fd = -1;
    static bool sent;
    struct signalfd_siginfo info = {0};
    sigset_t set;
    if (fd < 0) {
        sigemptyset(&set);
        sigaddset(&set, SIGUSR2);
        sigprocmask(SIG_BLOCK, &set, NULL);
        fd = (int)sure(signalfd(-1, &set, SFD_NONBLOCK), "signalfd");
    }
    sent = !sent;
    if (sent) {
        kill(getpid(), SIGUSR2);
        service_answer("signal sent");
    } else {
        long n = read(fd, &info, sizeof info);
        service_answer("signal %u, %s", info.ssi_signo, told(n));
    }
}

static void timer_step(void)
{
    static int fd = -1;
    static bool armed;
    uint64_t rings = 0;
    if (fd < 0)
        fd = (int)sure(timerfd_create(CLOCK_MONOTONIC, 0), "timerfd_create");
    armed = !armed;
    if (armed) {
        struct itimerspec soon = {.it_value.tv_nsec = 3000000};
        timerfd_settime(fd, 0, &soon, NULL);
        service_answer("timer armed");
    } else {
        sure(read(fd, &rings, sizeof rings), "timerfd");
        service_answer("timer rang %lu", (unsigned long)rings);
    }
}

static void inotify_step(unsigned long number)
{
    static int fd = -1;
    static char directory[] = "watched-XXXXXX";
    char name[80], events[1024] __attribute__((aligned(8)));
    if (fd < 0) {
        if (!mkdtemp(directory))
            err(1, "mkdtemp");
        fd = (int)sure(inotify_init1(0), "inotify_init1");
        sure(inotify_add_watch(fd, directory, IN_CREATE | IN_DELETE), "inotify_add_watch");
    }
    snprintf(name, sizeof name, "%s/%lu", directory, number);
    /* Killed before its turn was durable it had made the file already: that is not taken back, and would be no event now. */
    if (!unlink(name))
        sure(read(fd, events, sizeof events), "inotify");
    close((int)sure(open(name, O_CREAT | O_WRONLY, 0600), name));
    sure(read(fd, events, sizeof events), "inotify");
    struct inotify_event *event = (struct inotify_event *)events;
    unlink(name);
    uint32_t wd = (uint32_t)event->wd, mask = event->mask;
    snprintf(name, sizeof name, "%.20s", event->len ? event->name : "?");
    sure(read(fd, events, sizeof events), "inotify");
    service_answer("watch %u, %x %s, then %x", wd, mask, name, event->mask);
}

/* Words of several lengths: boundaries must hold where the kind keeps them. */
static void socketpair_step(unsigned long number)
{
    static const int types[] = {SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET};
    static int ends[3][2] = {{-1}};
    static unsigned step[3];
    unsigned kind = number % 3;
    char text[256] = "", part[64];
    if (ends[0][0] < 0)
        for (int k = 0; k < 3; k++)
            sure(socketpair(AF_UNIX, types[k] | SOCK_NONBLOCK, 0, ends[k]), "socketpair");
    if (step[kind]++ % 2 == 0) {
        for (unsigned i = 0; i < 3; i++) {
            int n = snprintf(part, sizeof part, "%lu.%u;%.*s", number, i, (int)(number % 9), "..........");
            sure(send(ends[kind][1], part, (size_t)n, 0), "send");
        }
        shutdown(ends[kind][0], SHUT_WR);
        service_answer("pair %u in", kind);
        return;
    }
    long n = recv(ends[kind][0], part, 4, MSG_PEEK | MSG_DONTWAIT);
    snprintf(text, sizeof text, "peek %s", told(n));
    while ((n = recv(ends[kind][0], part, sizeof part - 1, MSG_DONTWAIT)) > 0) {
        part[n] = '\0';
        strncat(strncat(text, " ", sizeof text - strlen(text) - 1), part, sizeof text - strlen(text) - 1);
    }
    service_answer("pair %u out%s, end %s", kind, text, told(n));
}

/* A descriptor travels through a socketpair, and so do many messages at once. */
static void message_step(unsigned long number)
{
    static int ends[2] = {-1};
    char byte = 'x', space[CMSG_SPACE(sizeof(int))] = {0}, names[3][16];
    struct iovec one = {&byte, 1}, v[3];
    struct msghdr message = {.msg_iov = &one, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
    struct mmsghdr many[3] = {0};
    int carried, pipes[2];
    if (ends[0] < 0)
        sure(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends), "socketpair");
    sure(pipe(pipes), "pipe");
    struct cmsghdr *c = CMSG_FIRSTHDR(&message);
    *c = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))};
    memcpy(CMSG_DATA(c), &pipes[0], sizeof(int));
    sure(sendmsg(ends[0], &message, 0), "sendmsg");
    close(pipes[0]);
    sure(recvmsg(ends[1], &message, 0), "recvmsg");
    memcpy(&carried, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(int));
    dprintf(pipes[1], "carried %lu", number);
    close(pipes[1]);
    char text[64] = "";
    sure(read(carried, text, sizeof text - 1), "read");
    close(carried);
    for (int i = 0; i < 3; i++) {
        v[i] = (struct iovec){names[i], (size_t)snprintf(names[i], sizeof names[i], "m%lu.%d", number, i)};
        many[i].msg_hdr = (struct msghdr){.msg_iov = &v[i], .msg_iovlen = 1};
    }
    int sent = sendmmsg(ends[0], many, 3, 0);
    memset(names, 0, sizeof names);
    int got = recvmmsg(ends[1], many, 3, MSG_DONTWAIT, NULL);
    service_answer("%s; %d, %d: %.15s %.15s", text, sent, got, names[0], names[2]);
}

static void memfd_step(unsigned long number)
{
    static int fd = -1;
    static unsigned char *shared;
    unsigned char bytes[64];
    unsigned sum = 0;
    if (fd < 0) {
        fd = (int)sure(memfd_create("numbers", MFD_CLOEXEC), "memfd_create");
        sure(ftruncate(fd, 8192), "ftruncate");
        shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    }
    memset(bytes, (int)number, sizeof bytes);
    sure(pwrite(fd, bytes, sizeof bytes, 4096 + (long)(number % 60) * 64), "pwrite");
    shared[number % 4096] = (unsigned char)number;
    for (int i = 0; i < 4096; i++)
        sum = sum * 31 + shared[i];
    for (long at = 4096; at < 8192; at += 64) {
        sure(pread(fd, bytes, sizeof bytes, at), "pread");
        sum = sum * 31 + bytes[at % 60];
    }
    struct stat s;
    fstat(fd, &s);
    service_answer("memfd %u, %ld bytes", sum, (long)s.st_size);
}

/* A server and a client of its own, by a path and by an abstract name. */
static void unix_step(unsigned long number)
{
    static int listeners[2] = {-1, -1};
    static struct sockaddr_un names[2];
    static socklen_t lengths[2];
    unsigned kind = number % 2;
    char text[64] = "";
    if (listeners[0] < 0)
        for (int k = 0; k < 2; k++) {
            names[k].sun_family = AF_UNIX;
            int n = snprintf(names[k].sun_path + k, sizeof names[k].sun_path - 1, "%s-%d", k ? "kinds" : "./socket", getpid());
            lengths[k] = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)k + (size_t)n + !k);
            listeners[k] = (int)sure(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");
            sure(bind(listeners[k], (void *)&names[k], lengths[k]), "bind");
            sure(listen(listeners[k], 4), "listen");
        }
    long n = 0;
    while (n <= 0) { /* a connection is cut when the process dies, and then made again */
        int client = (int)sure(socket(AF_UNIX, SOCK_STREAM, 0), "socket"), server = -1;
        if (connect(client, (void *)&names[kind], lengths[kind]) == 0)
            server = accept4(listeners[kind], NULL, NULL, SOCK_CLOEXEC);
        int said = server < 0 ? -1 : dprintf(client, "hello %lu", number);
        shutdown(client, SHUT_WR);
        n = said < 0 ? -1 : recv(server, text, sizeof text - 1, MSG_WAITALL);
        close(server);
        close(client);
    }
    service_answer("unix %u: %ld %s", kind, n, text);
}

/* Which words an epoll reports: level, one shot, edge after news, and an epoll within. */
static void epoll_step(unsigned long number)
{
    static int outer = -1, inner, pipes[4][2];
    static const uint32_t how[] = {EPOLLIN, EPOLLIN | EPOLLONESHOT, EPOLLIN | EPOLLET, EPOLLIN | EPOLLEXCLUSIVE};
    char text[200] = "", byte = 'x';
    struct epoll_event e, found[8];
    if (outer < 0) {
        outer = (int)sure(epoll_create1(EPOLL_CLOEXEC), "epoll_create1");
        inner = (int)sure(epoll_create1(0), "epoll_create1");
        for (unsigned i = 0; i < 4; i++) {
            sure(pipe2(pipes[i], O_NONBLOCK), "pipe2");
            e = (struct epoll_event){how[i], {.u64 = 0xABCD000000000000UL + i}};
            sure(epoll_ctl(i < 3 ? outer : inner, EPOLL_CTL_ADD, pipes[i][0], &e), "epoll_ctl");
        }
        e = (struct epoll_event){EPOLLIN, {.u64 = 99}};
        sure(epoll_ctl(outer, EPOLL_CTL_ADD, inner, &e), "epoll_ctl");
    }
    unsigned which = number % 4;
    sure(write(pipes[which][1], &byte, 1), "write");
    uint64_t seen = 0;
    int n = epoll_wait(outer, found, 8, 0);
    for (int i = 0; i < n; i++)
        seen |= 1UL << (found[i].data.u64 == 99 ? 5 : found[i].data.u64 & 7);
    bool right = seen >> (which == 3 ? 5 : which) & 1;
    while (read(pipes[which][0], &byte, 1) == 1)
        ;
    if (which == 1) { /* it is off until armed again */
        sure(write(pipes[1][1], &byte, 1), "write");
        n = epoll_wait(outer, found, 8, 0);
        for (int i = 0; i < n; i++)
            if (found[i].data.u64 == 0xABCD000000000001UL)
                strcat(text, " twice");
        while (read(pipes[1][0], &byte, 1) == 1)
            ;
        e = (struct epoll_event){how[1], {.u64 = 0xABCD000000000001UL}};
        sure(epoll_ctl(outer, EPOLL_CTL_MOD, pipes[1][0], &e), "epoll_ctl");
    }
    service_answer("epoll %u %s%s", which, right ? "seen" : "not seen", text);
}

/* Two numbers of one open file share its offset; flags of the numbers are their own. */
static void dup_step(unsigned long number)
{
    static int file = -1, twin, high, chosen;
    static char name[32];
    char text[16] = "", two[2][4] = {"", ""};
    struct iovec vector[2] = {{two[0], 3}, {two[1], 3}};
    if (file < 0) {
        snprintf(name, sizeof name, "dup-%d", getpid());
        file = (int)sure(open(name, O_RDWR | O_CREAT, 0600), "open");
        for (int i = 0; i < 1000; i++)
            dprintf(file, "%09d\n", i);
        lseek(file, 0, SEEK_SET);
        twin = (int)sure(dup(file), "dup");
        high = (int)sure(fcntl(file, F_DUPFD_CLOEXEC, 200), "F_DUPFD_CLOEXEC");
        chosen = (int)sure(dup3(twin, 240, O_CLOEXEC), "dup3");
    }
    sure(preadv(chosen, vector, 2, (off_t)(number % 900) * 10 + 3), "preadv");
    sure(read(number % 2 ? file : twin, text, 10), "read");
    text[9] = '\0';
    lseek(high, (long)(number % 7) * 10, SEEK_CUR);
    if (lseek(file, 0, SEEK_CUR) > 9000)
        lseek(twin, 0, SEEK_SET);
    service_answer("dup %s%s %s, next %ld, %d %d %d %d", two[0], two[1], text, (long)lseek(file, 0, SEEK_CUR), high, fcntl(high, F_GETFD),
                   fcntl(twin, F_GETFD), fcntl(chosen, F_GETFD));
}

/* Options of a socket that is bound, one that listens, and one that is neither. */
static void option_step(unsigned long number)
{
    static const struct {
        int level, name, value;
    } options[] = {
        {SOL_SOCKET, SO_REUSEADDR, 1},   {SOL_SOCKET, SO_KEEPALIVE, 1},    {SOL_SOCKET, SO_RCVBUF, 30000},
        {SOL_SOCKET, SO_SNDBUF, 40000},  {SOL_SOCKET, SO_PRIORITY, 3},     {SOL_SOCKET, SO_OOBINLINE, 1},
        {IPPROTO_IP, IP_TTL, 17},        {IPPROTO_IP, IP_TOS, 16},         {IPPROTO_TCP, TCP_NODELAY, 1},
        {IPPROTO_TCP, TCP_KEEPIDLE, 77}, {IPPROTO_TCP, TCP_KEEPINTVL, 11}, {IPPROTO_TCP, TCP_KEEPCNT, 4},
        {SOL_SOCKET, SO_RCVLOWAT, 2},    {IPPROTO_TCP, TCP_USER_TIMEOUT, 9000}, {IPPROTO_TCP, TCP_DEFER_ACCEPT, 3},
        {SOL_SOCKET, SO_REUSEPORT, 1},   {SOL_SOCKET, SO_BROADCAST, 1},    {IPPROTO_IP, IP_RECVTTL, 1},
    };
    enum { COUNT = sizeof options / sizeof *options };
    static int sockets[3] = {-1};
    if (sockets[0] < 0)
        for (int k = 0; k < 3; k++) {
            struct sockaddr_in any = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
            sockets[k] = (int)sure(socket(AF_INET, (k == 0 ? SOCK_DGRAM : SOCK_STREAM) | SOCK_NONBLOCK, 0), "socket");
            for (int i = 0; i < COUNT; i++)
                setsockopt(sockets[k], options[i].level, options[i].name, &options[i].value, sizeof(int));
            struct timeval limit = {3, 500000};
            struct linger linger = {1, 7};
            setsockopt(sockets[k], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
            setsockopt(sockets[k], SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
            if (k < 2)
                sure(bind(sockets[k], (void *)&any, sizeof any), "bind");
            if (k == 1)
                sure(listen(sockets[k], 7), "listen");
        }
    char text[400] = "";
    int fd = sockets[number % 3];
    for (int i = 0; i < COUNT; i++) {
        int value = 0;
        socklen_t length = sizeof value;
        long r = getsockopt(fd, options[i].level, options[i].name, &value, &length);
        snprintf(text + strlen(text), sizeof text - strlen(text), " %s", r < 0 ? told(r) : told(value));
    }
    struct timeval limit = {0, 0};
    struct linger linger = {0, 0};
    socklen_t length = sizeof limit;
    getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, &length);
    length = sizeof linger;
    getsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, &length);
    service_answer("options%s, %ld.%06ld, %d %d, flags %x", text, (long)limit.tv_sec, (long)limit.tv_usec, linger.l_onoff,
                   linger.l_linger, fcntl(fd, F_GETFL) & (O_NONBLOCK | O_ACCMODE));
}

static void pipe_step(unsigned long number)
{
    static int ends[2] = {-1}, packets[2];
    static unsigned step;
    char text[128] = "", part[64];
    if (ends[0] < 0) {
        sure(pipe2(ends, O_NONBLOCK), "pipe2");
        sure(pipe2(packets, O_NONBLOCK | O_DIRECT), "pipe2");
        sure(fcntl(ends[0], F_SETPIPE_SZ, 1 << 17), "F_SETPIPE_SZ");
    }
    if (step++ % 2 == 0) {
        dprintf(ends[1], "[%lu]", number);
        dprintf(packets[1], "a%lu", number);
        dprintf(packets[1], "b%lu", number);
        service_answer("pipe in, size %d", fcntl(ends[1], F_GETPIPE_SZ));
        return;
    }
    long n = read(ends[0], text, sizeof text - 1);
    text[n > 0 ? n : 0] = '\0';
    n = read(packets[0], part, sizeof part - 1);
    part[n > 0 ? n : 0] = '\0';
    long rest = read(packets[0], packets[0] < 0 ? NULL : text + 100, 20);
    service_answer("pipe out %.90s, packet %s, then %ld", text, part, rest);
}

/* Bytes that go from descriptor to descriptor in the kernel. */
static void move_step(unsigned long number)
{
    static int from = -1, to, ends[2], copies[2];
    char text[64] = "";
    if (from < 0) {
        char name[32];
        snprintf(name, sizeof name, "move-%d", getpid());
        from = (int)sure(open(name, O_RDWR | O_CREAT | O_TRUNC, 0600), "open");
        for (int i = 0; i < 2000; i++)
            dprintf(from, "%04d\n", i);
        lseek(from, 0, SEEK_SET);
        strcat(name, "-to");
        to = (int)sure(open(name, O_RDWR | O_CREAT | O_TRUNC, 0600), "open");
        sure(pipe(ends), "pipe");
        sure(pipe(copies), "pipe");
    }
    if (lseek(from, 0, SEEK_CUR) > 9000)
        lseek(from, 0, SEEK_SET);
    long sent = sendfile(ends[1], from, NULL, 10);
    long copied = tee(ends[0], copies[1], 10, 0);
    off_t at = (off_t)(number % 50) * 10;
    loff_t where = at;
    long spliced = splice(ends[0], NULL, to, &where, 10, 0);
    sure(read(copies[0], text, 10), "read");
    loff_t in = at, out = 4096;
    long ranged = copy_file_range(to, &in, to, &out, 5, 0);
    char back[16] = "";
    sure(pread(to, back, 5, 4096), "pread");
    text[4] = back[4] = '\0';
    service_answer("moved %ld %ld %ld %ld: %s %s", sent, copied, spliced, ranged, text, back);
}

/* Whether somebody else could take the locks: a child tries. */
static void lock_step(void)
{
    static int file = -1, other = -1;
    static char name[32];
    if (file < 0) {
        snprintf(name, sizeof name, "lock-%d", getpid());
        file = (int)sure(open(name, O_RDWR | O_CREAT, 0600), "open");
        other = (int)sure(open(name, O_RDWR), "open");
        struct flock range = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 10, .l_len = 5};
        sure(fcntl(file, F_SETLK, &range), "F_SETLK");
        range.l_start = 100;
        sure(fcntl(other, F_OFD_SETLK, &range), "F_OFD_SETLK");
        sure(flock(file, LOCK_EX), "flock");
    }
    pid_t child = (pid_t)sure(fork(), "fork");
    if (child == 0) {
        int mine = open(name, O_RDWR), taken = 0;
        for (int at = 10; at <= 100; at += 90) {
            struct flock range = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = at, .l_len = 1};
            taken = taken * 2 + (fcntl(mine, F_SETLK, &range) == 0);
        }
        _exit(taken * 2 + (flock(mine, LOCK_EX | LOCK_NB) == 0));
    }
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    service_answer("locks: status %x", status == SIGKILL ? 0 : status);
}

/* A child that was lost with its parent is made again. */
static void vfork_step(void)
{
    int status = SIGKILL;
    while (status == SIGKILL) {
        pid_t child = (pid_t)sure(vfork(), "vfork");
        if (!child)
            _exit((int)(service.number % 50));
        while (waitpid(child, &status, 0) < 0 && errno == EINTR)
            ;
    }
    service_answer("vfork %d", WIFEXITED(status) ? WEXITSTATUS(status) : -1);
}

static const struct {
    const char *name;
    void (*step)(unsigned long number);
    void (*plain)(void);
} kinds[] = {
    {"eventfd", eventfd_step, NULL}, {"signal", NULL, signal_step},   {"timer", NULL, timer_step},
    {"inotify", inotify_step, NULL}, {"pair", socketpair_step, NULL}, {"message", message_step, NULL},
    {"memfd", memfd_step, NULL},     {"unix", unix_step, NULL},       {"epoll", epoll_step, NULL},
    {"dup", dup_step, NULL},         {"option", option_step, NULL},   {"pipe", pipe_step, NULL},
    {"move", move_step, NULL},       {"lock", NULL, lock_step},       {"vfork", NULL, vfork_step},
};

int main(int argc, char **argv)
{
    if (argc != 2)
        errx(2, "usage: descriptor_kinds PORT");
    signal(SIGPIPE, SIG_IGN);
    service_open(atoi(argv[1]));
    for (;;) {
        const char *command = service_next();
        bool known = false;
        for (unsigned i = 0; i < sizeof kinds / sizeof *kinds; i++) {
            if (strcmp(kinds[i].name, command) != 0)
                continue;
            known = true;
            if (kinds[i].step)
                kinds[i].step(service.number);
            else
                kinds[i].plain();
        }
        if (!known)
            service_answer("what is %s?", command);
    }
}
