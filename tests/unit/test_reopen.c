/* Every kind of descriptor: captured, closed, made again, compared. */
#include "net_host.h"

#include "net/pool.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <time.h>

static int base; /* a known free number above the test runner's */

static void start(void)
{
    host_open();
    base = 100;
}

TestSuite(reopen, .init = start, .fini = host_close, .timeout = 20);

/* Moves a descriptor to a number of the test's choosing, so that the runner's are not in the way. */
static int at(int fd, int number)
{
    cr_assert_geq(fd, 0);
    cr_assert_eq(dup2(fd, number), number);
    close(fd);
    return number;
}

/* What a crash and a restart do to the kernel's side. */
static void restart(void)
{
    fd_capture();
    for (int fd = 0; fd <= fd_highest; fd++)
        if (fd_peek(fd) && !(fd_peek(fd)->bits & FD_INHERITED))
            close(fd);
    for (int fd = 500; fd < 1024; fd++)
        if (inbox_owns(fd))
            close(fd);
    cr_assert_eq(fd_reopen(), 0);
}

static struct description *enter_socket(int fd, int domain, int type)
{
    struct description *d = fd_enter(fd, FD_SOCKET, O_RDWR);
    struct fd_socket *s = fd_socket(d);
    s->domain = (int16_t)domain;
    s->type = (int16_t)type;
    return d;
}

Test(reopen, a_file_has_its_offset_flags_and_duplicates)
{
    char name[] = "/tmp/ken-net-file-XXXXXX";
    int fd = at(mkstemp(name), base);
    cr_assert_eq(write(fd, "0123456789", 10), 10);
    fcntl(fd, F_SETFL, O_APPEND);
    lseek(fd, 4, SEEK_SET);
    fd_adopt(fd, 0);
    dup2(fd, base + 5);
    fd_duplicate(fd, base + 5, true);
    restart();
    char c[4] = "";
    cr_assert_eq(read(fd, c, 2), 2);
    cr_assert_str_eq(c, "45");
    cr_assert_eq(read(base + 5, c, 2), 2, "the offset is shared");
    cr_assert_str_eq(c, "67");
    cr_assert(fcntl(fd, F_GETFL) & O_APPEND);
    cr_assert_eq(fcntl(fd, F_GETFD), 0);
    cr_assert_eq(fcntl(base + 5, F_GETFD), FD_CLOEXEC);
    unlink(name);
}

Test(reopen, opening_again_neither_creates_nor_truncates)
{
    char name[] = "/tmp/ken-net-file-XXXXXX";
    close(mkstemp(name));
    int fd = at(open(name, O_RDWR | O_CREAT | O_TRUNC), base);
    struct description *d = fd_enter(fd, FD_FILE, O_RDWR | O_CREAT | O_TRUNC);
    fd_touch(d);
    cr_assert_eq(write(fd, "stays", 5), 5);
    restart();
    struct stat s;
    fstat(fd, &s);
    cr_assert_eq(s.st_size, 5);
    cr_assert_eq(lseek(fd, 0, SEEK_CUR), 5);
    unlink(name);
}

Test(reopen, a_deleted_file_reads_as_closed)
{
    char name[] = "/tmp/ken-net-file-XXXXXX";
    int fd = at(mkstemp(name), base);
    unlink(name);
    fd_adopt(fd, 0);
    restart();
    char c;
    cr_assert_eq(fcntl(fd, F_GETFD), 0, "the number stays taken");
    cr_assert_eq(read(fd, &c, 1), -1);
    cr_assert_eq(errno, EBADF);
}

Test(reopen, a_directory_goes_on_where_it_was)
{
    int fd = at(open("/proc", O_RDONLY | O_DIRECTORY), base);
    char buffer[1024];
    syscall(SYS_getdents64, fd, buffer, sizeof buffer);
    long where = lseek(fd, 0, SEEK_CUR);
    fd_adopt(fd, 0);
    restart();
    cr_assert_gt(where, 0);
    cr_assert_eq(lseek(fd, 0, SEEK_CUR), where);
}

Test(reopen, a_lock_is_taken_again)
{
    char name[] = "/tmp/ken-net-file-XXXXXX";
    int fd = at(mkstemp(name), base);
    struct description *d = fd_adopt(fd, 0);
    flock(fd, LOCK_EX);
    fd_note_lock(fd, d, LOCK_EX);
    restart();
    int other = open(name, O_RDONLY);
    cr_assert_eq(flock(other, LOCK_EX | LOCK_NB), -1);
    unlink(name);
}

Test(reopen, a_bound_udp_socket_has_its_port_options_and_peer)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}}, peer, got;
    socklen_t length = sizeof a;
    int other = socket(AF_INET, SOCK_DGRAM, 0);
    bind(other, (struct sockaddr *)&a, sizeof a);
    getsockname(other, (struct sockaddr *)&peer, &length);
    host_spared[other] = true;
    int fd = at(socket(AF_INET, SOCK_DGRAM, 0), base), size = 99999, on = 1;
    struct description *d = enter_socket(fd, AF_INET, SOCK_DGRAM);
    bind(fd, (struct sockaddr *)&a, sizeof a);
    fd_note_bound(fd, d);
    setsockopt(fd, SOL_SOCKET, SO_BROADCAST, &on, sizeof on);
    fd_note_option(d, SOL_SOCKET, SO_BROADCAST, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    fd_note_option(d, SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    connect(fd, (struct sockaddr *)&peer, sizeof peer);
    fd_note_connected(fd, d, &peer, sizeof peer);
    getsockname(fd, (struct sockaddr *)&a, &length);
    restart();
    cr_assert_eq(getsockname(fd, (struct sockaddr *)&got, &length), 0);
    cr_assert_eq(got.sin_port, a.sin_port);
    cr_assert_eq(getpeername(fd, (struct sockaddr *)&got, &length), 0);
    cr_assert_eq(got.sin_port, peer.sin_port);
    socklen_t n = sizeof on;
    on = 0;
    getsockopt(fd, SOL_SOCKET, SO_BROADCAST, &on, &n);
    cr_assert_eq(on, 1);
    getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &on, &n);
    cr_assert_eq(on, 2 * size);
}

static int listening(int number, struct sockaddr_in *a)
{
    socklen_t length = sizeof *a;
    int fd = at(socket(AF_INET, SOCK_STREAM, 0), number);
    *a = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    struct description *d = enter_socket(fd, AF_INET, SOCK_STREAM);
    bind(fd, (struct sockaddr *)a, sizeof *a);
    listen(fd, 5);
    d->socket->state = SOCK_LISTENING;
    d->socket->backlog = 5;
    fd_note_bound(fd, d);
    getsockname(fd, (struct sockaddr *)a, &length);
    return fd;
}

Test(reopen, a_listening_socket_accepts_again_and_a_connection_reads_as_reset)
{
    struct sockaddr_in a;
    int listener = listening(base, &a);
    int client = socket(AF_INET, SOCK_STREAM, 0);
    host_spared[client] = true;
    cr_assert_eq(connect(client, (struct sockaddr *)&a, sizeof a), 0);
    int fd = at(accept(listener, NULL, NULL), base + 1);
    enter_socket(fd, AF_INET, SOCK_STREAM)->socket->state = SOCK_CONNECTED;
    restart();
    char c;
    cr_assert_eq(read(fd, &c, 1), -1);
    cr_assert_eq(errno, ECONNRESET);
    cr_assert_eq(read(fd, &c, 1), 0);
    cr_assert_eq(send(fd, "x", 1, MSG_NOSIGNAL), -1);
    cr_assert_eq(errno, EPIPE);
    int again = socket(AF_INET, SOCK_STREAM, 0);
    cr_assert_eq(connect(again, (struct sockaddr *)&a, sizeof a), 0);
    int accepted = accept(listener, NULL, NULL);
    cr_assert_geq(accepted, 0);
    cr_assert_eq(write(again, "hello", 5), 5);
    cr_assert_eq(read(accepted, &c, 1), 1);
    cr_assert_eq(c, 'h');
}

Test(reopen, a_port_that_is_still_held_is_waited_for)
{
    struct sockaddr_in a;
    int listener = listening(base, &a);
    int held = dup(listener); /* the dying process */
    host_spared[held] = true;
    pid_t dying = fork();
    if (dying == 0) {
        usleep(300000);
        _exit(0);
    }
    close(held);
    restart();
    int client = socket(AF_INET, SOCK_STREAM, 0);
    cr_assert_eq(connect(client, (struct sockaddr *)&a, sizeof a), 0);
    waitpid(dying, NULL, 0);
}

Test(reopen, a_unix_listener_takes_its_path_back)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(a.sun_path, sizeof a.sun_path, "/tmp/ken-net-sock-%d", getpid());
    int fd = at(socket(AF_UNIX, SOCK_STREAM, 0), base);
    struct description *d = enter_socket(fd, AF_UNIX, SOCK_STREAM);
    cr_assert_eq(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    listen(fd, 1);
    d->socket->state = SOCK_LISTENING;
    fd_note_bound(fd, d);
    restart();
    int client = socket(AF_UNIX, SOCK_STREAM, 0);
    cr_assert_eq(connect(client, (struct sockaddr *)&a, sizeof a), 0);
    unlink(a.sun_path);
}

Test(reopen, a_pipe_has_its_content_and_flags)
{
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    int in = at(ends[0], base + 7), out = at(ends[1], base + 3);
    fd_enter(in, FD_PIPE, O_RDONLY | O_NONBLOCK);
    fcntl(in, F_SETFL, O_NONBLOCK);
    fd_enter(out, FD_PIPE, O_WRONLY | O_CLOEXEC);
    fd_pair(in, out);
    char big[20000];
    memset(big, 'b', sizeof big);
    cr_assert_eq(write(out, "start", 5), 5);
    cr_assert_eq(write(out, big, sizeof big), sizeof big);
    fd_touch(fd_find(out));
    fd_capture();
    char got[30000];
    int waiting;
    ioctl(in, FIONREAD, &waiting);
    cr_assert_eq(waiting, 20005, "the capture consumes nothing");
    restart();
    cr_assert_eq(read(in, got, sizeof got), 20005);
    cr_assert_eq(memcmp(got, "startbbb", 8), 0);
    cr_assert_eq(read(in, got, 1), -1);
    cr_assert_eq(errno, EAGAIN);
    cr_assert_not(fcntl(out, F_GETFL) & O_NONBLOCK);
    cr_assert_eq(fcntl(out, F_GETFD), FD_CLOEXEC);
    cr_assert_eq(write(out, "next", 4), 4);
    cr_assert_eq(read(in, got, 10), 4);
}

Test(reopen, a_pipe_whose_other_end_was_closed_ends)
{
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    int in = at(ends[0], base), out = at(ends[1], base + 1);
    fd_enter(in, FD_PIPE, O_RDONLY);
    fd_enter(out, FD_PIPE, O_WRONLY);
    fd_pair(in, out);
    cr_assert_eq(write(out, "last", 4), 4);
    close(out);
    fd_forget(out);
    restart();
    char got[8];
    cr_assert_eq(read(in, got, 8), 4);
    cr_assert_eq(read(in, got, 8), 0);
}

static void pair_of(int type, int *a, int *b)
{
    int pair[2];
    cr_assert_eq(socketpair(AF_UNIX, type, 0, pair), 0);
    *a = at(pair[0], base + 2);
    *b = at(pair[1], base + 1);
    enter_socket(*a, AF_UNIX, type)->socket->state = SOCK_CONNECTED;
    enter_socket(*b, AF_UNIX, type)->socket->state = SOCK_CONNECTED;
    fd_pair(*a, *b);
}

Test(reopen, a_stream_socketpair_has_both_contents)
{
    int a, b;
    pair_of(SOCK_STREAM, &a, &b);
    cr_assert_eq(write(a, "to b", 4), 4);
    cr_assert_eq(write(a, " more", 5), 5);
    cr_assert_eq(write(b, "to a", 4), 4);
    restart();
    char got[16];
    cr_assert_eq(read(b, got, sizeof got), 9);
    cr_assert_eq(memcmp(got, "to b more", 9), 0);
    cr_assert_eq(read(a, got, sizeof got), 4);
    cr_assert_eq(memcmp(got, "to a", 4), 0);
    cr_assert_eq(write(a, "on", 2), 2);
    cr_assert_eq(read(b, got, sizeof got), 2);
}

Test(reopen, a_datagram_socketpair_keeps_its_boundaries)
{
    int a, b;
    pair_of(SOCK_DGRAM, &a, &b);
    cr_assert_eq(write(a, "one", 3), 3);
    cr_assert_eq(write(a, "three", 5), 5);
    restart();
    char got[16];
    cr_assert_eq(recv(b, got, sizeof got, MSG_DONTWAIT), 3);
    cr_assert_eq(recv(b, got, sizeof got, MSG_DONTWAIT), 5);
    cr_assert_eq(recv(b, got, sizeof got, MSG_DONTWAIT), -1);
}

Test(reopen, what_a_child_shared_looks_as_if_it_had_gone)
{
    int ends[2], a, b;
    char c;
    cr_assert_eq(pipe(ends), 0);
    int in = at(ends[0], base + 4), out = at(ends[1], base + 5);
    fd_enter(in, FD_PIPE, O_RDONLY);
    fd_enter(out, FD_PIPE, O_WRONLY);
    fd_pair(in, out);
    pair_of(SOCK_STREAM, &a, &b);
    fd_forked();
    close(out);
    fd_forget(out);
    close(b);
    fd_forget(b);
    restart();
    cr_assert_eq(read(in, &c, 1), 0);
    cr_assert_eq(read(a, &c, 1), 0);
    cr_assert_eq(send(a, "x", 1, MSG_NOSIGNAL), -1);
}

static struct description *enter_event(int fd, enum fd_kind kind, int option)
{
    struct description *d = fd_enter(fd, kind, O_RDWR | O_NONBLOCK);
    fd_event(d)->option = option;
    fd_touch(d);
    return d;
}

Test(reopen, an_eventfd_has_its_count)
{
    int fd = at(eventfd(0x1234, EFD_NONBLOCK | EFD_SEMAPHORE), base);
    enter_event(fd, FD_EVENT, EFD_NONBLOCK | EFD_SEMAPHORE);
    restart();
    uint64_t v = 0;
    cr_assert_eq(read(fd, &v, 8), 8);
    cr_assert_eq(v, 1, "a semaphore");
    restart();
    for (int i = 0; i < 0x1234; i++)
        cr_assert_eq(read(fd, &v, 8), 8);
    cr_assert_eq(read(fd, &v, 8), -1);
}

Test(reopen, a_timer_goes_on_with_what_remains)
{
    int fd = at(timerfd_create(CLOCK_MONOTONIC, 0), base);
    enter_event(fd, FD_TIMER, CLOCK_MONOTONIC);
    struct itimerspec t = {.it_value = {100, 0}, .it_interval = {7, 0}}, now;
    timerfd_settime(fd, 0, &t, NULL);
    restart();
    cr_assert_eq(timerfd_gettime(fd, &now), 0);
    cr_assert(now.it_value.tv_sec == 99 || now.it_value.tv_sec == 98);
    cr_assert_eq(now.it_interval.tv_sec, 7);
}

Test(reopen, a_timer_that_had_fired_is_due)
{
    int fd = at(timerfd_create(CLOCK_MONOTONIC, 0), base);
    enter_event(fd, FD_TIMER, CLOCK_MONOTONIC);
    struct itimerspec t = {.it_value = {0, 1}};
    timerfd_settime(fd, 0, &t, NULL);
    usleep(1000);
    restart();
    uint64_t ticks;
    cr_assert_eq(read(fd, &ticks, 8), 8);
    cr_assert_eq(ticks, 1);
}

Test(reopen, a_signalfd_has_its_mask)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigprocmask(SIG_BLOCK, &set, NULL);
    int fd = at(signalfd(-1, &set, SFD_NONBLOCK), base);
    struct description *d = enter_event(fd, FD_SIGNAL, 0);
    memcpy(&d->event->mask, &set, 8);
    restart();
    raise(SIGUSR1);
    struct signalfd_siginfo info;
    cr_assert_eq(read(fd, &info, sizeof info), sizeof info);
    cr_assert_eq(info.ssi_signo, SIGUSR1);
}

static void watch(struct description *d, int wd, uint32_t mask, const char *path)
{
    struct inotify_watch **link = &d->watches;
    while (*link)
        link = &(*link)->next;
    struct inotify_watch *w = pool_take(sizeof *w + strlen(path) + 1);
    *w = (struct inotify_watch){.wd = wd, .mask = mask};
    strcpy(w->path, path);
    *link = w;
}

Test(reopen, inotify_watches_have_their_numbers)
{
    int fd = at(inotify_init1(IN_NONBLOCK), base);
    struct description *d = fd_enter(fd, FD_INOTIFY, O_RDONLY | O_NONBLOCK);
    mkdirat(host_directory, "watched", 0700);
    char path[80];
    snprintf(path, sizeof path, "/proc/self/fd/%d", host_directory);
    int gone = inotify_add_watch(fd, "/tmp", IN_CREATE);
    int first = inotify_add_watch(fd, path, IN_CREATE);
    inotify_rm_watch(fd, gone);
    cr_assert_eq(first, 2);
    watch(d, first, IN_CREATE, path);
    restart();
    mkdirat(host_directory, "new", 0700);
    char buffer[512] __attribute__((aligned(8)));
    cr_assert_gt(read(fd, buffer, sizeof buffer), 0);
    struct inotify_event *e = (struct inotify_event *)buffer;
    cr_assert_eq(e->wd, 2);
    cr_assert_str_eq(e->name, "new");
}

Test(reopen, a_memfd_has_its_content_and_offset)
{
    int fd = at(memfd_create("x", 0), base);
    struct description *d = fd_enter(fd, FD_MEMFD, O_RDWR);
    fd_event(d);
    fd_touch(d);
    char big[100000], got[100000];
    memset(big, 'm', sizeof big);
    cr_assert_eq(write(fd, big, sizeof big), sizeof big);
    lseek(fd, 10, SEEK_SET);
    restart();
    cr_assert_eq(read(fd, got, sizeof got), 99990);
    cr_assert_eq(memcmp(got, big, 99990), 0);
}

static void note_watch(int epoll, int fd, uint32_t events, uint64_t data)
{
    struct epoll_event e = {.events = events, .data.u64 = data};
    cr_assert_eq(epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e), 0);
    struct epoll_watch *w = pool_take(sizeof *w);
    *w = (struct epoll_watch){.epoll = fd_index(fd_find(epoll)), .events = events, .data = data};
    w->next = fd_slots[fd].watches;
    fd_slots[fd].watches = w;
}

Test(reopen, an_epoll_has_its_interest_list)
{
    int epoll = at(epoll_create1(0), base + 9), ends[2];
    fd_enter(epoll, FD_EPOLL, O_RDWR);
    cr_assert_eq(pipe(ends), 0);
    int in = at(ends[0], base + 10), out = at(ends[1], base + 8);
    fd_enter(in, FD_PIPE, O_RDONLY);
    fd_enter(out, FD_PIPE, O_WRONLY);
    fd_pair(in, out);
    note_watch(epoll, in, EPOLLIN | EPOLLET, 0xdeadbeef12345678);
    note_watch(epoll, out, EPOLLERR, 7);
    restart();
    struct epoll_event e[4];
    cr_assert_eq(epoll_wait(epoll, e, 4, 0), 0);
    cr_assert_eq(write(out, "x", 1), 1);
    cr_assert_eq(epoll_wait(epoll, e, 4, 100), 1);
    cr_assert_eq(e[0].data.u64, 0xdeadbeef12345678);
    cr_assert_eq(epoll_wait(epoll, e, 4, 0), 0, "edge triggered");
}

Test(reopen, an_inherited_file_goes_on_where_it_was)
{
    char name[] = "/tmp/ken-net-file-XXXXXX";
    int file = mkstemp(name);
    cr_assert_eq(write(file, "0123456789", 10), 10);
    int fd = at(open(name, O_RDONLY), 60);
    lseek(fd, 6, SEEK_SET);
    fd_adopt(fd, FD_INHERITED);
    fd_capture();
    /* The new process got the same file at its beginning. */
    at(open(name, O_RDONLY), 60);
    cr_assert_eq(fd_reopen(), 0);
    char c;
    cr_assert_eq(read(60, &c, 1), 1);
    cr_assert_eq(c, '6');
    unlink(name);
}

Test(reopen, what_others_wrote_to_an_inherited_file_stays)
{
    char name[] = "/tmp/ken-net-file-XXXXXX";
    int file = mkstemp(name);
    int fd = at(open(name, O_WRONLY), 60);
    fd_adopt(fd, FD_INHERITED);
    fd_capture();
    cr_assert_eq(write(fd, "theirs", 6), 6); /* the description is shared with whoever started the program */
    cr_assert_eq(fd_reopen(), 0);
    cr_assert_eq(lseek(60, 0, SEEK_CUR), 6, "not used by the program: left where it is");
    cr_assert_eq(write(60, "ours", 4), 4);
    fd_touch(fd_find(60));
    fd_capture();
    cr_assert_eq(write(60, "lost", 4), 4);
    cr_assert_eq(fd_reopen(), 0);
    cr_assert_eq(lseek(60, 0, SEEK_CUR), 10, "used by it: back to the committed offset");
    close(file);
    unlink(name);
}

Test(reopen, an_inherited_pipe_is_the_new_process_s_with_the_old_ones_unread_input)
{
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    int fd = at(ends[0], 60);
    struct description *d = fd_adopt(fd, FD_INHERITED);
    cr_assert_eq(write(ends[1], "old", 3), 3);
    host_spared[ends[1]] = true;
    inbox_fill(d->inbox, fd, 3);
    fd_capture();
    int fresh[2];
    cr_assert_eq(pipe(fresh), 0);
    host_spared[fresh[1]] = true;
    at(fresh[0], 60);
    cr_assert_eq(write(fresh[1], "new", 3), 3);
    cr_assert_eq(fd_reopen(), 0);
    char got[8];
    struct iovec v = {got, 8};
    cr_assert_eq(inbox_take(d->inbox, &v, 1), 3);
    cr_assert_eq(memcmp(got, "old", 3), 0);
    cr_assert_eq(inbox_fill(d->inbox, 60, 8), 3);
    cr_assert_eq(inbox_take(d->inbox, &v, 1), 3);
    cr_assert_eq(memcmp(got, "new", 3), 0);
}

Test(reopen, foreign_descriptors_are_closed_and_ours_stay)
{
    int foreign = at(open("/dev/null", O_RDONLY), base + 20);
    int closed_by_program = at(open("/dev/null", O_RDONLY), 61);
    int file = at(open("/dev/zero", O_RDONLY), base);
    fd_adopt(file, 0);
    restart();
    cr_assert_eq(fcntl(foreign, F_GETFD), -1);
    cr_assert_eq(fcntl(closed_by_program, F_GETFD), -1);
    cr_assert_eq(fcntl(host_directory, F_GETFD), FD_CLOEXEC);
    char c = 1;
    cr_assert_eq(read(file, &c, 1), 1);
    cr_assert_eq(c, 0);
}

Test(reopen, numbers_that_cross_come_out_right)
{
    /* New descriptors get the lowest numbers: those of others that are made later. */
    char names[6][32];
    for (int i = 0; i < 6; i++) {
        strcpy(names[i], "/tmp/ken-net-file-XXXXXX");
        int fd = at(mkstemp(names[i]), base + 5 - i);
        char digit = (char)('0' + i);
        cr_assert_eq(write(fd, &digit, 1), 1);
        lseek(fd, 0, SEEK_SET);
        fd_adopt(fd, 0);
    }
    for (int i = 0; i < 6; i++) {
        dup2(base + 5 - i, 20 + i);
        if (!host_spared[20 + i])
            fd_duplicate(base + 5 - i, 20 + i, false);
    }
    restart();
    for (int i = 0; i < 6; i++) {
        char c = 0;
        cr_assert_eq(pread(base + 5 - i, &c, 1, 0), 1);
        cr_assert_eq(c, '0' + i);
        cr_assert_eq(pread(20 + i, &c, 1, 0), 1);
        cr_assert_eq(c, '0' + i);
        unlink(names[i]);
    }
}
