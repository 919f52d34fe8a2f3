/* The inbox: no byte of an inherited pipe is lost or served twice, whenever the process dies. */
#include "net_host.h"

#include <pty.h>
#include <sys/stat.h>

TestSuite(inbox, .init = host_open, .fini = host_close);

static long take(struct inbox *in, void *to, size_t room)
{
    struct iovec v = {to, room};
    return inbox_take(in, &v, 1);
}

static struct description *inherit(int ends[2])
{
    cr_assert_eq(pipe(ends), 0);
    struct description *d = fd_adopt(ends[0], FD_INHERITED);
    cr_assert(d && d->inbox);
    return d;
}

Test(inbox, serves_what_the_pipe_held_and_no_more_than_asked)
{
    int ends[2];
    struct description *d = inherit(ends);
    char got[16];
    cr_assert_eq(write(ends[1], "abcdefgh", 8), 8);
    cr_assert_eq(inbox_fill(d->inbox, ends[0], 3), 3);
    cr_assert_eq(inbox_unread(d->inbox), 3);
    cr_assert(inbox_any());
    cr_assert_eq(take(d->inbox, got, sizeof got), 3);
    cr_assert_eq(memcmp(got, "abc", 3), 0);
    cr_assert_not(inbox_any());
    cr_assert_eq(read(ends[0], got, sizeof got), 5, "the rest stays in the pipe");
}

Test(inbox, empty_and_ended_are_told_apart)
{
    int ends[2];
    struct description *d = inherit(ends);
    cr_assert_eq(inbox_fill(d->inbox, ends[0], 10), -EAGAIN);
    close(ends[1]);
    cr_assert_eq(inbox_fill(d->inbox, ends[0], 10), 0);
}

Test(inbox, outputs_and_regular_files_have_none)
{
    int ends[2];
    char name[] = "/tmp/ken-net-file-XXXXXX";
    int file = mkstemp(name);
    cr_assert_eq(pipe(ends), 0);
    cr_assert_null(fd_adopt(ends[1], FD_INHERITED)->inbox);
    cr_assert_null(fd_adopt(file, FD_INHERITED)->inbox);
    unlink(name);
}

Test(inbox, a_lost_turn_is_served_again)
{
    int ends[2];
    struct description *d = inherit(ends);
    char got[16];
    cr_assert_eq(write(ends[1], "committedlost", 13), 13);
    inbox_fill(d->inbox, ends[0], 9);
    take(d->inbox, got, 9);
    struct inbox committed = *d->inbox;
    inbox_fill(d->inbox, ends[0], 4);
    take(d->inbox, got, 4);
    struct inbox *next = d->inbox->next;
    *d->inbox = committed;
    d->inbox->next = next;
    cr_assert_eq(inbox_reopen(), 0);
    cr_assert_eq(inbox_unread(d->inbox), 4);
    cr_assert_eq(take(d->inbox, got, sizeof got), 4);
    cr_assert_eq(memcmp(got, "lost", 4), 0);
}

Test(inbox, a_journal_that_power_loss_shortened_is_lengthened)
{
    int ends[2];
    struct description *d = inherit(ends);
    char got[16];
    cr_assert_eq(write(ends[1], "12345678", 8), 8);
    inbox_fill(d->inbox, ends[0], 8);
    take(d->inbox, got, 8);
    cr_assert_eq(ftruncate(d->inbox->file, 3), 0);
    cr_assert_eq(inbox_reopen(), 0);
    cr_assert_eq(inbox_unread(d->inbox), 0);
    cr_assert_eq(write(ends[1], "next", 4), 4);
    inbox_fill(d->inbox, ends[0], 8);
    cr_assert_eq(take(d->inbox, got, sizeof got), 4);
    cr_assert_eq(memcmp(got, "next", 4), 0);
}

Test(inbox, what_was_read_is_given_back_after_the_commit)
{
    int ends[2];
    struct description *d = inherit(ends);
    char piece[8192] = {1};
    struct stat s;
    for (int i = 0; i < 400; i++) {
        cr_assert_eq(write(ends[1], piece, sizeof piece), sizeof piece);
        cr_assert_eq(inbox_fill(d->inbox, ends[0], sizeof piece), sizeof piece);
        cr_assert_eq(take(d->inbox, piece, sizeof piece), sizeof piece);
        inbox_committed();
    }
    fstat(d->inbox->file, &s);
    cr_assert_eq(s.st_size, 400 * 8192, "offsets are never used again");
    cr_assert_lt(s.st_blocks * 512, 2 << 20, "%ld", (long)s.st_blocks * 512);
}

Test(inbox, a_closed_one_is_removed_only_after_the_commit)
{
    int ends[2];
    struct description *d = inherit(ends);
    char name[48];
    strcpy(name, d->inbox->name);
    int journal = d->inbox->file;
    fd_forget(ends[0]);
    cr_assert_eq(fcntl(journal, F_GETFD), -1);
    cr_assert_eq(faccessat(host_directory, name, F_OK, 0), 0);
    inbox_committed();
    cr_assert_neq(faccessat(host_directory, name, F_OK, 0), 0);
}

Test(inbox, a_terminal_is_read_and_appended)
{
    int master, slave;
    cr_assert_eq(openpty(&master, &slave, NULL, NULL, NULL), 0);
    struct description *d = fd_adopt(slave, FD_INHERITED);
    cr_assert_eq(d->kind, FD_TTY);
    cr_assert(d->inbox && d->inbox->no_splice);
    cr_assert_eq(inbox_fill(d->inbox, slave, 100), -EAGAIN);
    cr_assert_eq(write(master, "a line\n", 7), 7);
    struct pollfd p = {slave, POLLIN, 0};
    poll(&p, 1, 1000);
    cr_assert_eq(inbox_fill(d->inbox, slave, 100), 7);
    char got[16];
    cr_assert_eq(take(d->inbox, got, sizeof got), 7);
    cr_assert_eq(memcmp(got, "a line\n", 7), 0);
}

static unsigned char stream_byte(size_t i)
{
    return (unsigned char)(i * 31 + (i >> 8));
}

/* A child is an incarnation: it begins with the parent's memory (the committed image), takes input without ever
 * committing, and is killed at some instant. The parent then resumes, checks some of the stream itself ("commits"),
 * and starts the next. */
Test(inbox, killed_anywhere_nothing_is_lost, .timeout = 60)
{
    enum { BYTES = 3000000 };
    int ends[2];
    struct description *d = inherit(ends);
    pid_t writer = fork();
    if (writer == 0) {
        close(ends[0]);
        for (size_t at = 0; at < BYTES;) {
            unsigned char piece[777];
            size_t n = BYTES - at < sizeof piece ? BYTES - at : sizeof piece;
            for (size_t i = 0; i < n; i++)
                piece[i] = stream_byte(at + i);
            ssize_t w = write(ends[1], piece, n);
            at += w > 0 ? (size_t)w : 0;
        }
        _exit(0);
    }
    close(ends[1]);
    size_t at = 0;
    bool ended = false;
    for (int round = 0; !ended; round++) {
        pid_t child = round < 60 ? fork() : -1;
        if (child == 0) {
            unsigned char piece[3000];
            for (;;) {
                inbox_fill(d->inbox, ends[0], (size_t)(1 + rand() % 3000));
                take(d->inbox, piece, sizeof piece);
            }
        }
        if (child > 0) {
            usleep((useconds_t)(rand() % 3000));
            kill(child, SIGKILL);
            waitpid(child, NULL, 0);
        }
        cr_assert_eq(inbox_reopen(), 0);
        for (int i = 0; i < 100000 && !ended; i++) {
            unsigned char piece[1024];
            if (!inbox_unread(d->inbox)) {
                if (round < 60)
                    break;
                long r = inbox_fill(d->inbox, ends[0], sizeof piece);
                if (r == 0)
                    ended = true;
                if (r == -EAGAIN)
                    usleep(100);
            }
            long n = take(d->inbox, piece, sizeof piece);
            for (long k = 0; k < n; k++)
                cr_assert_eq(piece[k], stream_byte(at + (size_t)k), "at %zu", at + (size_t)k);
            at += (size_t)n;
        }
    }
    cr_assert_eq(at, (size_t)BYTES);
    waitpid(writer, NULL, 0);
}
