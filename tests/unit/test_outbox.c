/* The outbox and its release: order, boundaries, back-pressure, tails, errors, and a kill in the middle. */
#include "net_host.h"

#include <netinet/in.h>

TestSuite(outbox, .init = host_open, .fini = host_close);

static void hold(int fd, enum output_kind kind, const void *data, size_t length)
{
    struct iovec v = {(void *)data, length};
    cr_assert_eq(outbox_hold(fd, fd_find(fd), kind, 0, NULL, 0, &v, 1, 0, length), 0);
}

/* What commit and release do, one after the other. */
static void end_turn(void)
{
    outbox_compact();
    host_turn++;
    outbox_release();
}

static void make_pipe(int ends[2], int flags)
{
    cr_assert_eq(pipe2(ends, flags), 0);
    fd_adopt(ends[0], 0);
    fd_adopt(ends[1], 0);
}

static char pattern(size_t i)
{
    return (char)(i * 7 + (i >> 8) * 13 + (i >> 16));
}

static char *make_pattern(size_t bytes)
{
    char *p = malloc(bytes);
    for (size_t i = 0; i < bytes; i++)
        p[i] = pattern(i);
    return p;
}

Test(outbox, nothing_leaves_before_the_release)
{
    int ends[2];
    make_pipe(ends, O_NONBLOCK);
    hold(ends[1], OUTPUT_WRITE, "held", 4);
    char c[8];
    cr_assert_eq(read(ends[0], c, sizeof c), -1);
    cr_assert(outbox_held());
    cr_assert_geq(outbox_bytes(), 4);
    end_turn();
    cr_assert_eq(read(ends[0], c, sizeof c), 4);
    cr_assert_not(outbox_held());
    cr_assert_eq(outbox_bytes(), 0);
    cr_assert_eq(outbox.count, 0, "the next turn begins at the front");
}

Test(outbox, order_is_kept_and_small_writes_are_joined)
{
    int ends[2];
    make_pipe(ends, 0);
    for (int i = 0; i < 100; i++) {
        char c = (char)('a' + i % 26);
        hold(ends[1], OUTPUT_WRITE, &c, 1);
    }
    cr_assert_eq(outbox.count, 1);
    end_turn();
    char got[128];
    cr_assert_eq(read(ends[0], got, sizeof got), 100);
    for (int i = 0; i < 100; i++)
        cr_assert_eq(got[i], 'a' + i % 26);
}

Test(outbox, writes_to_a_pipe_are_not_joined_beyond_pipe_buf)
{
    int ends[2];
    make_pipe(ends, 0);
    char block[3000] = {0};
    hold(ends[1], OUTPUT_WRITE, block, sizeof block);
    hold(ends[1], OUTPUT_WRITE, block, sizeof block);
    cr_assert_eq(outbox.count, 2);
}

Test(outbox, interleaved_descriptors_leave_in_the_order_of_the_calls)
{
    int pair[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair), 0);
    int twin = dup(pair[1]);
    fd_adopt(pair[1], 0);
    fd_duplicate(pair[1], twin, false);
    for (int i = 0; i < 8; i++)
        hold(i % 2 ? twin : pair[1], OUTPUT_DATAGRAM, &i, sizeof i);
    end_turn();
    for (int i = 0, got; i < 8; i++) {
        cr_assert_eq(recv(pair[0], &got, sizeof got, MSG_DONTWAIT), sizeof got);
        cr_assert_eq(got, i);
    }
}

Test(outbox, datagrams_keep_address_and_boundaries)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t length = sizeof to;
    int receiver = socket(AF_INET, SOCK_DGRAM, 0), sender = socket(AF_INET, SOCK_DGRAM, 0);
    bind(receiver, (struct sockaddr *)&to, sizeof to);
    getsockname(receiver, (struct sockaddr *)&to, &length);
    struct description *d = fd_adopt(sender, 0);
    const char *texts[] = {"one", "", "three"};
    for (int i = 0; i < 3; i++) {
        struct iovec v = {(void *)texts[i], strlen(texts[i])};
        cr_assert_eq(outbox_hold(sender, d, OUTPUT_DATAGRAM, 0, &to, sizeof to, &v, 1, 0, v.iov_len), 0);
    }
    cr_assert_eq(outbox.count, 3);
    cr_assert_geq(outbox_bytes(), 3);
    end_turn();
    char got[16];
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(recv(receiver, got, sizeof got, MSG_DONTWAIT), (ssize_t)strlen(texts[i]));
        cr_assert_eq(memcmp(got, texts[i], strlen(texts[i])), 0);
    }
}

Test(outbox, a_gathered_piece_begins_where_it_is_told)
{
    int ends[2];
    make_pipe(ends, 0);
    struct iovec v[3] = {{"abc", 3}, {"", 0}, {"defgh", 5}};
    cr_assert_eq(outbox_hold(ends[1], fd_find(ends[1]), OUTPUT_WRITE, 0, NULL, 0, v, 3, 2, 4), 0);
    end_turn();
    char got[8];
    cr_assert_eq(read(ends[0], got, sizeof got), 4);
    cr_assert_eq(memcmp(got, "cdef", 4), 0);
}

Test(outbox, a_slow_reader_gets_everything_through_a_small_pipe, .timeout = 20)
{
    enum { BYTES = 300000 };
    int ends[2];
    make_pipe(ends, 0);
    fcntl(ends[1], F_SETPIPE_SZ, 4096);
    char *sent = make_pattern(BYTES);
    pid_t reader = fork();
    if (reader == 0) {
        close(ends[1]);
        char piece[1000];
        size_t at = 0;
        for (ssize_t n; (n = read(ends[0], piece, sizeof piece)) > 0; at += (size_t)n) {
            for (ssize_t i = 0; i < n; i++)
                if (piece[i] != pattern(at + (size_t)i))
                    _exit(1);
            if (at % 50000 < 1000)
                usleep(2000);
        }
        _exit(at == BYTES ? 0 : 2);
    }
    for (size_t at = 0; at < BYTES; at += 60000)
        hold(ends[1], OUTPUT_WRITE, sent + at, 60000);
    end_turn();
    outbox_drain();
    cr_assert_not(outbox_held());
    cr_assert_eq(fd_find(ends[1])->held, 0);
    close(ends[1]);
    int status;
    waitpid(reader, &status, 0);
    cr_assert_eq(status, 0);
}

static size_t drain(int fd, char *to, size_t room)
{
    size_t got = 0;
    for (ssize_t n; got < room && (n = read(fd, to + got, room - got)) > 0;)
        got += (size_t)n;
    return got;
}

Test(outbox, a_full_nonblocking_descriptor_keeps_a_tail_and_others_pass)
{
    enum { BYTES = 100000 };
    int full[2], other[2];
    make_pipe(full, O_NONBLOCK);
    make_pipe(other, O_NONBLOCK);
    fcntl(full[1], F_SETPIPE_SZ, 8192);
    fd_find(full[1])->bits |= FD_WIDENED;
    char *sent = make_pattern(BYTES + 10), *got = calloc(1, BYTES + 20);
    hold(full[1], OUTPUT_WRITE, sent, BYTES);
    hold(other[1], OUTPUT_WRITE, "pass", 4);
    end_turn();
    cr_assert_eq(read(other[0], got, 10), 4);
    cr_assert(outbox.tails > 0);
    cr_assert_not(outbox_held(), "a tail waits for no commit");
    int tails[4];
    cr_assert_eq(outbox_tails(tails, 4), 1);
    cr_assert_eq(tails[0], full[1]);
    size_t at = drain(full[0], got, 5000);
    /* New output of the next turn stays behind the tail, and is not released by a retry. */
    hold(full[1], OUTPUT_WRITE, sent + BYTES, 10);
    cr_assert(outbox_retry());
    at += drain(full[0], got + at, BYTES + 20 - at);
    outbox_compact();
    cr_assert_lt(at, (size_t)BYTES);
    while (outbox_held() || outbox.tails) {
        host_turn++;
        outbox_release();
        at += drain(full[0], got + at, BYTES + 20 - at);
        outbox_compact();
    }
    cr_assert_eq(at, (size_t)BYTES + 10);
    cr_assert_eq(memcmp(got, sent, BYTES + 10), 0);
    cr_assert_eq(fd_find(full[1])->held, 0);
}

Test(outbox, more_than_the_built_in_data_and_a_full_table)
{
    int ends[2];
    make_pipe(ends, O_NONBLOCK);
    fcntl(ends[1], F_SETPIPE_SZ, 1 << 20);
    char *sent = make_pattern(1 << 20);
    size_t at = 0;
    for (int i = 0; i < 200; i++, at += 4001)
        hold(ends[1], OUTPUT_WRITE, sent + at, 4001);
    end_turn();
    char *got = malloc(1 << 20);
    size_t n = drain(ends[0], got, 1 << 20);
    for (int k = 0; k < 100 && outbox.tails; k++) {
        outbox_retry();
        n += drain(ends[0], got + n, (1 << 20) - n);
    }
    cr_assert_eq(n, at);
    cr_assert_eq(memcmp(got, sent, n), 0);
    for (int i = 0; i < OUTBOX_ENTRIES; i++)
        hold(ends[1], OUTPUT_DATAGRAM, "x", 1);
    struct iovec v = {"y", 1};
    cr_assert_eq(outbox_room(), 0);
    cr_assert_eq(outbox_hold(ends[1], fd_find(ends[1]), OUTPUT_DATAGRAM, 0, NULL, 0, &v, 1, 0, 1), -ENOBUFS);
}

Test(outbox, an_error_drops_the_rest_of_that_descriptor_only)
{
    int broken[2], good[2];
    make_pipe(broken, 0);
    make_pipe(good, O_NONBLOCK);
    close(broken[0]);
    hold(broken[1], OUTPUT_WRITE, "lost", 4);
    hold(good[1], OUTPUT_WRITE, "kept", 4);
    hold(broken[1], OUTPUT_WRITE, "lost too", 8);
    end_turn();
    cr_assert_eq(fd_find(broken[1])->error, EPIPE);
    cr_assert_eq(fd_find(broken[1])->held, 0);
    cr_assert_eq(fd_find(good[1])->error, 0);
    char got[8];
    cr_assert_eq(read(good[0], got, sizeof got), 4);
    cr_assert_eq(outbox.count, 0);
}

/* The parent's memory at the fork is the committed image; the child is the incarnation that dies in the release. Only the
 * page of progress and the pipe are shared. */
Test(outbox, a_kill_in_the_release_is_gone_on_from, .timeout = 30)
{
    enum { BYTES = 400000, ENTRY = 2500 };
    int ends[2];
    make_pipe(ends, 0);
    char *sent = make_pattern(BYTES), *got = malloc(2 * BYTES);
    for (size_t at = 0; at < BYTES; at += ENTRY)
        hold(ends[1], OUTPUT_WRITE, sent + at, ENTRY);
    host_turn++;
    size_t n = 0;
    for (int round = 0; round < 4; round++) {
        pid_t child = fork();
        if (child == 0) {
            outbox_release();
            outbox_drain();
            pause();
        }
        size_t wanted = n + 70000 + (size_t)round * 1237;
        while (n < wanted)
            n += (size_t)read(ends[0], got + n, wanted - n);
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
    }
    pid_t last = fork();
    if (last == 0) {
        outbox_release();
        outbox_drain();
        _exit(0);
    }
    close(ends[1]);
    n += drain(ends[0], got + n, 2 * BYTES - n);
    waitpid(last, NULL, 0);
    cr_assert_eq(n, (size_t)BYTES, "%zu of %d", n, BYTES);
    cr_assert_eq(memcmp(got, sent, BYTES), 0);
}

/* The reader kills the writer as soon as it wakes up: the writer is still in its system call then. */
Test(outbox, a_kill_behind_a_datagram_neither_repeats_nor_loses_it, .timeout = 30)
{
    int pair[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair), 0);
    fd_adopt(pair[1], 0);
    for (int i = 0; i < 300; i++)
        hold(pair[1], OUTPUT_DATAGRAM, &i, sizeof i);
    host_turn++;
    for (int next = 0; next < 300;) {
        pid_t child = fork();
        if (child == 0) {
            outbox_release();
            outbox_drain();
            pause();
        }
        int got, last = next + 1 + rand() % 4;
        for (; next < last && next < 300; next++) {
            cr_assert_eq(recv(pair[0], &got, sizeof got, 0), sizeof got);
            cr_assert_eq(got, next);
        }
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        for (; recv(pair[0], &got, sizeof got, MSG_DONTWAIT) > 0; next++)
            cr_assert_eq(got, next);
    }
}

Test(outbox, behind_a_full_blocking_descriptor_everything_stays)
{
    int full[2], other[2];
    make_pipe(full, 0);
    make_pipe(other, O_NONBLOCK);
    fcntl(full[1], F_SETPIPE_SZ, 4096);
    fd_find(full[1])->bits |= FD_WIDENED;
    char block[10000] = {0}, got[10000];
    hold(full[1], OUTPUT_WRITE, block, sizeof block);
    hold(other[1], OUTPUT_WRITE, "later", 5);
    end_turn();
    cr_assert_eq(read(other[0], got, 5), -1, "the program would have stood still before it");
    int tails[4];
    cr_assert_eq(outbox_tails(tails, 4), 1);
    cr_assert_eq(tails[0], full[1]);
    for (size_t n = 0; n < sizeof block; outbox_retry())
        n += (size_t)read(full[0], got, sizeof got);
    cr_assert_eq(outbox.tails, 0);
    cr_assert_eq(read(other[0], got, 5), 5);
}

Test(outbox, a_closed_socket_s_tail_leaves_in_the_background)
{
    enum { BYTES = 2000000 };
    int pair[2];
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
    fd_adopt(pair[1], 0);
    char *sent = make_pattern(BYTES), *got = malloc(BYTES);
    hold(pair[1], OUTPUT_STREAM, sent, BYTES);
    end_turn();
    cr_assert(outbox.tails);
    outbox_orphan(pair[1]);
    cr_assert_not(outbox_holds(pair[1]));
    fd_forget(pair[1]);
    close(pair[1]);
    int tails[2];
    cr_assert_eq(outbox_tails(tails, 2), 1);
    cr_assert(fd_is_ours(tails[0]));
    size_t n = 0;
    for (ssize_t r; (r = read(pair[0], got + n, BYTES - n)) > 0; n += (size_t)r)
        outbox_retry();
    cr_assert_eq(n, (size_t)BYTES);
    cr_assert_eq(memcmp(got, sent, BYTES), 0);
    cr_assert_eq(read(pair[0], got, 1), 0, "the duplicate is closed behind it");
}

Test(outbox, progress_of_another_turn_says_nothing)
{
    int ends[2];
    make_pipe(ends, O_NONBLOCK);
    hold(ends[1], OUTPUT_WRITE, "first", 5);
    end_turn();
    hold(ends[1], OUTPUT_WRITE, "second", 6);
    end_turn();
    char got[16] = "";
    cr_assert_eq(read(ends[0], got, sizeof got), 11);
    cr_assert_str_eq(got, "firstsecond");
}
