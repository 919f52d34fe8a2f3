/* Renames of directories that a lost turn made are undone; others are left alone. */
#define _GNU_SOURCE
#include "heap/moved.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char place[] = "/tmp/ken-moved-XXXXXX";
static int kept;

static void begin(void)
{
    cr_assert(mkdtemp(place) && !chdir(place));
    cr_assert_eq(mkdir("kept", 0700), 0);
    kept = open("kept", O_PATH | O_DIRECTORY);
    cr_assert_geq(kept, 0);
}

static void end(void)
{
    char command[100];
    close(kept);
    snprintf(command, sizeof command, "rm -rf %s", place);
    cr_assert_eq(system(command), 0);
}

TestSuite(moved, .init = begin, .fini = end);

static bool there(const char *path)
{
    return !access(path, F_OK);
}

static void move(const char *from, const char *to, unsigned flags, uint64_t turn)
{
    int fd = open(from, O_PATH | O_DIRECTORY), parent = open(".", O_PATH | O_DIRECTORY);
    cr_assert_eq(moved_note(kept, fd, parent, to, "", flags, turn), 0);
    close(fd);
    close(parent);
    cr_assert_eq(renameat2(AT_FDCWD, from, AT_FDCWD, to, flags), 0);
}

Test(moved, what_a_lost_turn_did_is_undone_the_last_first)
{
    mkdir("a", 0700);
    mkdir("a/within", 0700);
    move("a", "b", 0, 7);
    move("b", "c", 0, 8);
    move("c", "d", 0, 8);
    moved_undo(kept, 7);
    cr_assert(there("b/within") && !there("a") && !there("c") && !there("d"));
    cr_assert(!there("kept/" MOVED_FILE));
}

Test(moved, what_is_durable_stays)
{
    mkdir("a", 0700);
    move("a", "b", 0, 7);
    moved_forget(kept);
    cr_assert(!there("kept/" MOVED_FILE));
    moved_undo(kept, 3);
    cr_assert(there("b") && !there("a"));
    move("b", "c", 0, 8);
    moved_undo(kept, 8);
    cr_assert(there("c") && !there("b"));
}

Test(moved, directories_that_changed_places_change_back)
{
    mkdir("a", 0700);
    mkdir("b", 0700);
    mkdir("a/first", 0700);
    move("a", "b", RENAME_EXCHANGE, 4);
    cr_assert(there("b/first"));
    moved_undo(kept, 3);
    cr_assert(there("a/first") && !there("b/first"));
}

static void note_making(const char *name, unsigned flags, uint64_t turn)
{
    int parent = open(".", O_PATH | O_DIRECTORY);
    cr_assert_eq(moved_note_made(kept, NULL, parent, name, "", flags, turn), 0);
    close(parent);
}

static void make(const char *name)
{
    int fd = open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
    cr_assert_geq(fd, 0);
    close(fd);
}

Test(moved, names_that_a_lost_turn_made_go)
{
    for (uint64_t turn = 5; turn < 7; turn++) {
        note_making("made", 0, turn);
        make("made");
        note_making("deep", MOVED_LASTING, turn);
        mkdir("deep", 0700);
        note_making("deep/file", 0, turn);
        make("deep/file");
        note_making("symbolic", 0, turn);
        cr_assert_eq(symlink("deep", "symbolic"), 0);
        moved_undo(kept, 5);
        for (int i = 0; i < 4; i++)
            cr_assert_eq(there((const char *[]){"made", "deep", "deep/file", "symbolic"}[i]), turn == 5, "%d in turn %lu", i, turn);
        if (turn == 5)
            cr_assert(!unlink("made") && !unlink("deep/file") && !rmdir("deep") && !unlink("symbolic"));
    }
    note_making("never", 0, 9);
    moved_undo(kept, 5);
}

Test(moved, a_second_name_goes)
{
    struct stat is;
    make("first");
    cr_assert_eq(stat("first", &is), 0);
    int parent = open(".", O_PATH | O_DIRECTORY);
    cr_assert_eq(moved_note_made(kept, &is, parent, "second", "", 0, 5), 0);
    cr_assert_eq(link("first", "second"), 0);
    moved_undo(kept, 4);
    cr_assert(there("first") && !there("second"));
    cr_assert_eq(moved_note_made(kept, &is, parent, "second", "", 0, 5), 0);
    make("second");
    moved_undo(kept, 4);
    cr_assert(there("second"), "it is another file");
    close(parent);
}

Test(moved, what_others_made_is_left_alone)
{
    note_making("other", 0, 9);
    make("other"); /* somebody was faster, and it was told so */
    note_making("other", MOVED_FAILED, 9);
    note_making("full", 0, 9);
    mkdir("full", 0700);
    make("full/foreign");
    make("old");
    cr_assert_eq(usleep(20000), 0);
    note_making("old", 0, 9); /* as if the clock had been set */
    moved_undo(kept, 5);
    cr_assert(there("other") && there("full/foreign") && there("old"));
    note_making("mine", 0, 9);
    note_making("mine", MOVED_FAILED, 9);
    note_making("mine", 0, 9);
    make("mine");
    moved_undo(kept, 5);
    cr_assert(!there("mine"), "the second attempt was its own");
}

Test(moved, a_rename_that_was_not_made_is_not_undone)
{
    mkdir("a", 0700);
    int fd = open("a", O_PATH | O_DIRECTORY), parent = open(".", O_PATH | O_DIRECTORY);
    cr_assert_eq(moved_note(kept, fd, parent, "b", "", 0, 5), 0);
    close(fd);
    close(parent);
    mkdir("b", 0700); /* somebody else's */
    moved_undo(kept, 1);
    cr_assert(there("a") && there("b"));
}

Test(moved, a_name_that_is_taken_again_is_left_alone)
{
    mkdir("a", 0700);
    move("a", "b", 0, 5);
    mkdir("a", 0700);
    moved_undo(kept, 1);
    cr_assert(there("a") && there("b"));
}

Test(moved, a_torn_record_counts_as_none)
{
    struct stat s;
    mkdir("a", 0700);
    mkdir("x", 0700);
    move("a", "b", 0, 5);
    cr_assert_eq(stat("kept/" MOVED_FILE, &s), 0);
    off_t first = s.st_size;
    move("x", "y", 0, 5);
    cr_assert_eq(stat("kept/" MOVED_FILE, &s), 0);
    for (off_t cut = s.st_size - 1; cut >= first; cut = cut > first + 20 ? cut - 7 : cut - 1) {
        char whole[4096];
        int fd = open("kept/" MOVED_FILE, O_RDONLY);
        ssize_t bytes = read(fd, whole, sizeof whole);
        close(fd);
        cr_assert_eq(truncate("kept/" MOVED_FILE, cut), 0);
        moved_undo(kept, 4);
        cr_assert(there("a") && !there("b") && there("y") && !there("x"), "cut at %ld of %ld", (long)cut, (long)s.st_size);
        cr_assert_eq(rename("a", "b"), 0);
        fd = open("kept/" MOVED_FILE, O_WRONLY | O_CREAT, 0600);
        cr_assert_eq(write(fd, whole, (size_t)bytes), bytes);
        close(fd);
    }
}

Test(moved, rubbish_is_no_journal)
{
    int fd = open("kept/" MOVED_FILE, O_WRONLY | O_CREAT, 0600);
    for (int i = 0; i < 2000; i++)
        cr_assert_eq(write(fd, "\xff\x01\x00", 3), 3);
    close(fd);
    moved_undo(kept, 0);
    cr_assert(!there("kept/" MOVED_FILE));
}
