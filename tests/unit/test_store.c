/* The store: its lock, its identity, and what is told about directories that are not as they should be. */
#define _GNU_SOURCE
#include <sched.h>
#include "tests/unit/log_fixture.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <time.h>

static struct store_birth birth = {
    .build = "0123456789abcdefghi", .cpu_words = 3, .cpu = {1, 2, 3}, .window_base = 0x200000000000,
    .command_hash = 77, .segment_bytes = SEGMENT_BYTES, .executable = "/bin/true", .command = "true --fast"};

static void begin(void) { make_root(); }
static void end(void) { disk_set_hook(NULL, NULL); store_close(&store); remove_root(); }
TestSuite(store, .init = begin, .fini = end);

static const char *explained(int error)
{
    static char line[2048];
    store_explain(&store, error, line, sizeof line);
    return line;
}

#define assert_explained(error, ...)                                                                         \
    do {                                                                                                     \
        const char *const words[] = {__VA_ARGS__};                                                    \
        const char *line = explained(error);                                                                 \
        for (size_t w = 0; w < sizeof words / sizeof *words; w++)                                            \
            cr_assert(strstr(line, words[w]), "no '%s' in: %s", words[w], line);                             \
    } while (0)

Test(store, fresh_then_exists)
{
    snprintf(directory, sizeof directory, "%s/a/b/store", root);
    cr_assert_eq(store_open(&store, directory, 0), STORE_FRESH);
    struct stat status;
    cr_assert_eq(stat(directory, &status), 0);
    cr_assert_eq(status.st_mode & 07777, 0700);
    cr_assert_eq(store_format(&store, &birth), 0);
    struct super first = store.super;
    store_close(&store);
    cr_assert_eq(store_open(&store, directory, 0), STORE_EXISTS);
    cr_assert(!memcmp(&first, &store.super, sizeof first));
    cr_assert_eq(store.super.window_base, birth.window_base);
    cr_assert_str_eq(store.super.command, "true --fast");
    cr_assert_eq(stat(store_file("image"), &status), 0);
    cr_assert_eq(status.st_mode & 07777, 0600);
    for (unsigned n = 0; n < 2; n++) {
        cr_assert_eq(stat(store_file(snapshot_files[n]), &status), 0);
        cr_assert_eq(status.st_size, SEGMENT_BYTES);
        cr_assert_geq(status.st_blocks * 512, SEGMENT_BYTES);
    }
    cr_assert_geq(store.lock_fd, 900);
    cr_assert(fcntl(store.lock_fd, F_GETFD) & FD_CLOEXEC);
}

Test(store, relative_directory_survives_chdir)
{
    cr_assert_eq(chdir(root), 0);
    cr_assert_eq(store_open(&store, "here//", 0), STORE_FRESH);
    cr_assert_eq(chdir("/"), 0);
    cr_assert_eq(store_format(&store, &birth), 0);
    cr_assert(strstr(store.path, "/here") && store.path[0] == '/' && store.path[strlen(store.path) - 1] == 'e');
}

/* The holder's pid is told; a killed holder's lock is waited for. */
static pid_t hold_in_child(int *ready)
{
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    pid_t child = fork();
    if (!child) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that fails leaves nobody behind */
        if (store_open(&store, directory, 0) < 0)
            _exit(1);
        if (write(ends[1], "x", 1) != 1)
            _exit(1);
        pause();
        _exit(0);
    }
    char x;
    cr_assert_eq(read(ends[0], &x, 1), 1);
    *ready = ends[0];
    return child;
}

Test(store, lock_tells_the_holder)
{
    int ready;
    pid_t child = hold_in_child(&ready);
    cr_assert_eq(store_open(&store, directory, 0), -EBUSY);
    cr_assert_eq(store.holder_pid, child);
    char words[64];
    snprintf(words, sizeof words, "in use by process %d", (int)child);
    cr_assert(strstr(explained(-EBUSY), words), "%s", explained(-EBUSY));
    cr_assert_eq(store_open(&store, directory, 30), -EBUSY);
    kill(child, SIGKILL);
    cr_assert_eq(store_open(&store, directory, 5000), STORE_FRESH);
    waitpid(child, NULL, 0);
}

Test(store, lock_waits_for_a_holder_that_ends)
{
    int ready;
    pid_t child = hold_in_child(&ready);
    pid_t killer = fork();
    if (!killer) {
        usleep(150000);
        kill(child, SIGKILL);
        _exit(0);
    }
    cr_assert_eq(store_open(&store, directory, 3000), STORE_FRESH);
    waitpid(child, NULL, 0);
    waitpid(killer, NULL, 0);
}

/* While it passes from a parent to its child nobody else finds it free. */
Test(store, lock_passes_without_a_gap)
{
    static struct store other;
    int ends[2];
    char x;
    cr_assert_eq(pipe(ends), 0);
    cr_assert_eq(store_open(&store, directory, 0), STORE_FRESH);
    pid_t child = fork();
    if (!child) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(ends[0]);
        if (store_lock_pass(&store) != -EBUSY || store.holder_pid != getppid() || store_lock_next(&store))
            _exit(1);
        if (store_holder(store.lock_fd) != getppid() || write(ends[1], "x", 1) != 1)
            _exit(2);
        while (store_holder(store.lock_fd))
            usleep(1000);
        if (write(ends[1], "x", 1) != 1)
            _exit(3);
        usleep(50000);
        if (store_lock_pass(&store) || write(ends[1], "x", 1) != 1)
            _exit(4);
        pause();
    }
    close(ends[1]); /* a child that failed is heard of */
    cr_assert_eq(read(ends[0], &x, 1), 1);
    cr_assert_eq(store_holder(store.lock_fd), child, "who asks is not told of himself, but of the next one");
    close(store.lock_fd);
    for (int n = 0; n < 2; n++) {
        cr_assert_eq(read(ends[0], &x, 1), 1);
        cr_assert_eq(store_open(&other, directory, 0), -EBUSY, "it is free, step %d", n);
        cr_assert_eq(other.holder_pid, child);
    }
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    cr_assert_eq(store_open(&other, directory, 0), STORE_FRESH);
}

Test(store, children_do_not_take_the_lock_along)
{
    cr_assert_eq(store_open(&store, directory, 0), STORE_FRESH);
    pid_t child = fork();
    if (!child)
        _exit(0); /* its end closes its copies */
    waitpid(child, NULL, 0);
    child = fork();
    if (!child) {
        static struct store other;
        _exit(store_open(&other, directory, 0) == -EBUSY && other.holder_pid == getppid() ? 0 : 1);
    }
    int status;
    waitpid(child, &status, 0);
    cr_assert_eq(status, 0);
}

/* Every kind of bad superblock is told apart, and left as it is. */
static void make_store(void)
{
    format_store();
    smash("image", 0, "contents", 8);
    store_close(&store);
}

static void assert_untouched(int expected)
{
    struct snapshot before = {0}, after = {0};
    struct stat a, b;
    snapshot_take(&before);
    cr_assert_eq(stat(store_file("super"), &a), 0);
    cr_assert_eq(store_open(&store, directory, 0), expected);
    cr_assert_eq(stat(store_file("super"), &b), 0);
    cr_assert(a.st_ino == b.st_ino && a.st_size == b.st_size && a.st_mtim.tv_nsec == b.st_mtim.tv_nsec);
    snapshot_take(&after);
    for (int i = 0; i < 3; i++)
        cr_assert(before.size[i] == after.size[i] && !memcmp(before.data[i], after.data[i], (size_t)before.size[i]));
    cr_assert(store.lock_fd == -1 && store.directory_fd == -1);
}

Test(store, newer_format)
{
    make_store();
    uint32_t version = STORE_VERSION + 6;
    smash("super", offsetof(struct super, version), &version, sizeof version);
    assert_untouched(STORE_NEWER);
    assert_explained(STORE_NEWER, "format 9", "--fresh", directory);
}

/* A whole store of format 1: not damaged, and said to be older. */
Test(store, older_format)
{
    struct super super;
    make_store();
    super = store.super;
    super.version = STORE_VERSION - 1;
    super.checksum = XXH3_64bits((const uint8_t *)&super + 16, sizeof super - 16);
    smash("super", 0, &super, sizeof super);
    assert_untouched(STORE_OLDER);
    assert_explained(STORE_OLDER, "format 2", "older", "--fresh");
}

Test(store, foreign_magic)
{
    make_store();
    smash("super", 0, "SQLite f", 8);
    assert_untouched(STORE_FOREIGN);
    assert_explained(STORE_FOREIGN, "store/super", "not libken's", "KEN_STORE");
}

Test(store, truncated_super)
{
    make_store();
    for (int size = 4095; size >= 0; size = size * 2 / 3 - 1) {
        cr_assert_eq(truncate(store_file("super"), size), 0);
        assert_untouched(STORE_DAMAGED);
    }
    assert_explained(STORE_DAMAGED, "store/super", "damaged", "--fresh");
}

Test(store, any_flipped_bit_of_the_super)
{
    make_store();
    for (uint64_t i = 0; i < 4096; i += i < 256 ? 1 : 61) {
        unsigned bit = random_next() % 8;
        flip_bit("super", i, bit);
        int r = store_open(&store, directory, 0);
        cr_assert(r == STORE_DAMAGED || (i < 8 && r == STORE_FOREIGN) || (i >= 16 && i < 20 && r == STORE_NEWER),
                  "byte %lu: %d", i, r);
        flip_bit("super", i, bit);
    }
    cr_assert_eq(store_open(&store, directory, 0), STORE_EXISTS);
}

Test(store, missing_image_and_super)
{
    make_store();
    char aside[160];
    snprintf(aside, sizeof aside, "%s/super.kept", directory);
    cr_assert_eq(rename(store_file("super"), aside), 0);
    cr_assert_eq(store_open(&store, directory, 0), STORE_INCOMPLETE);
    assert_explained(STORE_INCOMPLETE, "store/super", "missing", "--fresh");
    cr_assert_eq(rename(aside, store_file("super")), 0);
    cr_assert_eq(unlink(store_file("image")), 0);
    cr_assert_eq(store_open(&store, directory, 0), STORE_INCOMPLETE);
    assert_explained(STORE_INCOMPLETE, "store/image", "missing");
}

Test(store, somebody_elses_directory)
{
    cr_assert_eq(mkdir(directory, 0700), 0);
    put_file("image", "a picture", 9);
    cr_assert_eq(store_open(&store, directory, 0), STORE_FOREIGN);
    assert_explained(STORE_FOREIGN, "store/image", "nothing was touched");
    cr_assert_eq(unlink(store_file("image")), 0);
    put_file("log.0", "Jan 1 started", 13);
    cr_assert_eq(store_open(&store, directory, 0), STORE_FOREIGN);
    cr_assert_eq(store_set_aside(directory), 0, "what is not ours is not moved");
}

Test(store, directory_that_others_may_write)
{
    cr_assert_eq(mkdir(directory, 0777), 0);
    cr_assert_eq(chmod(directory, 0777), 0);
    cr_assert_eq(store_open(&store, directory, 0), STORE_UNSAFE);
    assert_explained(STORE_UNSAFE, directory, "chmod");
    cr_assert_eq(chmod(directory, 0700), 0);
    if (!geteuid()) {
        cr_assert_eq(chown(directory, 12345, 12345), 0);
        cr_assert_eq(store_open(&store, directory, 0), STORE_UNSAFE);
    }
}

Test(store, directories_that_cannot_be)
{
    char path[256];
    snprintf(path, sizeof path, "%s/file", root);
    close(open(path, O_CREAT | O_WRONLY, 0600));
    cr_assert_eq(store_open(&store, path, 0), -ENOTDIR);
    assert_explained(-ENOTDIR, path, "not a directory");
    snprintf(path, sizeof path, "%s/file/store", root);
    cr_assert_eq(store_open(&store, path, 0), -ENOTDIR);
    cr_assert_eq(store_open(&store, "", 0), -ENOENT);
    char longest[2000];
    memset(longest, 'x', sizeof longest);
    longest[sizeof longest - 1] = '\0';
    cr_assert_eq(store_open(&store, longest, 0), STORE_TOO_LONG);
    cr_assert(store_open(&store, "/proc/ken-store", 0) < 0);
    cr_assert(explained(-ENOENT)[0]);
}

/* As an ordinary user, in a directory that belongs to root; and on a read-only file system. */
Test(store, read_only_places)
{
    if (geteuid())
        cr_skip_test("only root can set this up");
    cr_assert_eq(chmod(root, 0755), 0);
    pid_t child = fork();
    if (!child) {
        if (setresuid(65534, 65534, 65534))
            _exit(2);
        _exit(store_open(&store, directory, 0) == -EACCES && strstr(explained(-EACCES), "cannot be written") ? 0 : 1);
    }
    int status;
    waitpid(child, &status, 0);
    cr_assert_eq(status, 0);
    make_store();
    child = fork();
    if (!child) {
        if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
            mount(root, root, NULL, MS_BIND, NULL) || mount(NULL, root, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL))
            _exit(77);
        _exit(store_open(&store, directory, 0) == -EROFS && strstr(explained(-EROFS), "cannot be written") ? 0 : 1);
    }
    waitpid(child, &status, 0);
    if (WEXITSTATUS(status) == 77)
        cr_skip_test("no mount namespaces here");
    cr_assert_eq(status, 0);
}

/* A crash, or an error, at each operation of store_format(): the old store, or a fresh one. */
static long fail_at(void *context, const struct disk_event *e)
{
    int *left = context;
    if (e->op == DISK_PAUSE)
        return 0;
    return (*left)-- > 0 ? 0 : -EIO; /* and all that follows: the process is gone */
}

static void interrupt_format(bool over_old)
{
    int steps = 0;
    struct stat status;
    char name[STORE_PIN_BYTES];
    for (;; steps++) {
        if (over_old) {
            cr_assert_eq(recover_log(SYNC_POWER), 0);
            commit_and_apply(3, 3);
            log_close(&redo);
            cr_assert_eq(stat("/bin/true", &status), 0);
            cr_assert_eq(store_pin(&store, "/bin/true", 0, status.st_ino, name), 0);
        }
        struct super old = store.super;
        int left = steps;
        disk_set_hook(fail_at, &left);
        int r = store_format(&store, &birth);
        disk_set_hook(NULL, NULL);
        if (!r)
            break;
        store_close(&store);
        r = store_open(&store, directory, 0);
        cr_assert(r == STORE_FRESH || r == STORE_EXISTS, "step %d: %d", steps, r);
        if (r == STORE_EXISTS && !memcmp(&old, &store.super, sizeof old)) {
            cr_assert(over_old);
            cr_assert_eq(recover_log(SYNC_POWER), 1);
            log_close(&redo);
        } else if (r == STORE_EXISTS) {
            cr_assert_eq(recover_log(SYNC_POWER), 0);
            cr_assert_eq(disk_size(store.image_fd), 0);
            log_close(&redo);
        }
        if (over_old) {
            cr_assert_eq(store_format(&store, &birth), 0);
        }
    }
    cr_assert_gt(steps, 10);
    cr_assert_eq(recover_log(SYNC_POWER), 0);
    log_close(&redo);
}

Test(store, format_interrupted_first) { cr_assert_eq(store_open(&store, directory, 0), 0); interrupt_format(false); }
Test(store, format_interrupted_again) { format_store(); interrupt_format(true); }

/* After the loss of power the new superblock must not find the old image: the order of what becomes durable. */
struct order {
    bool cut, image_durable, named;
    unsigned segments_durable;
};
static long watch_order(void *context, const struct disk_event *e)
{
    struct order *o = context;
    bool is_image = e->fd == store.image_fd;
    o->cut |= e->op == DISK_TRUNCATE && is_image && e->bytes == 0;
    o->image_durable |= e->op == DISK_SYNC && is_image && o->cut;
    o->segments_durable += e->op == DISK_SYNC && o->image_durable && !o->named;
    if (e->op == DISK_RENAME && !strcmp(e->path, "super.tmp")) {
        cr_assert(o->cut && o->image_durable);
        cr_assert_geq(o->segments_durable, 4); /* the image, two segments, super.tmp */
        o->named = true;
    }
    return 0;
}

Test(store, format_makes_the_parts_durable_first)
{
    struct order order = {0};
    format_store();
    disk_set_hook(watch_order, &order);
    cr_assert_eq(store_format(&store, &birth), 0);
    cr_assert(order.named);
}

Test(store, format_again_drops_the_old_run)
{
    char name[STORE_PIN_BYTES];
    struct stat status;
    format_store();
    struct store_id id = store.super.id;
    cr_assert_eq(stat("/bin/true", &status), 0);
    cr_assert_eq(store_pin(&store, "/bin/true", status.st_dev, status.st_ino, name), 0);
    for (int i = 0; i < 300; i++) {
        char path[64];
        snprintf(path, sizeof path, "pin/%d", i);
        put_file(path, "", 0);
    }
    smash("image", 100, "old", 3);
    cr_assert_eq(truncate(store_file("log.0"), 3 * SEGMENT_BYTES), 0);
    cr_assert_eq(store_format(&store, &birth), 0);
    cr_assert(memcmp(&id, &store.super.id, sizeof id) != 0);
    cr_assert_eq(disk_size(store.image_fd), 0);
    cr_assert_eq(store_pin_open(&store, name), -ENOENT);
    cr_assert_eq(stat(store_file("log.0"), &status), 0);
    cr_assert_eq(status.st_size, SEGMENT_BYTES);
    cr_assert_eq(rmdir(store_file("pin")), 0, "it is empty");
}

Test(store, set_aside)
{
    cr_assert_eq(store_set_aside(directory), 0);
    make_store();
    listen_to_messages();
    cr_assert_eq(store_set_aside(directory), 1);
    const char *said = messages(), *name = strstr(said, root);
    cr_assert(name && strstr(said, ".old-2"), "%s", said);
    char kept[256];
    snprintf(kept, sizeof kept, "%.*s", (int)strcspn(name, "\n"), name);
    cr_assert_eq(access(directory, F_OK), -1);
    cr_assert_eq(store_open(&store, kept, 0), STORE_EXISTS, "%s", kept);
    store_close(&store);
    for (int i = 0; i < 3; i++) {
        make_store();
        cr_assert_eq(store_set_aside(directory), 1);
    }
    make_store();
    smash("super", 300, "damage", 6);
    cr_assert_eq(store_set_aside(directory), 1);
}

/* Pins. */
static char source[128];
static uint64_t make_source(const char *contents)
{
    struct stat status;
    snprintf(source, sizeof source, "%s/libfoo.so", root);
    int fd = open(source, O_CREAT | O_WRONLY | O_TRUNC, 0755);
    cr_assert(fd >= 0 && write(fd, contents, strlen(contents)) == (ssize_t)strlen(contents));
    fstat(fd, &status);
    close(fd);
    return status.st_ino;
}

static void assert_pinned(const char *name, const char *contents)
{
    char found[64] = "";
    int fd = (int)store_pin_open(&store, name);
    cr_assert(fd >= 0, "%s", say_error(fd));
    cr_assert_eq(read(fd, found, sizeof found - 1), (ssize_t)strlen(contents));
    cr_assert_str_eq(found, contents);
    close(fd);
}

Test(store, pin_by_link)
{
    char name[STORE_PIN_BYTES], again[STORE_PIN_BYTES], other[STORE_PIN_BYTES];
    struct stat status;
    format_store();
    uint64_t inode = make_source("version 1");
    cr_assert_eq(store_pin(&store, source, 0, inode, name), 0);
    cr_assert(store.pins_dirty);
    cr_assert_eq(store_sync_pins(&store), 0);
    cr_assert(!store.pins_dirty);
    cr_assert_eq(store_pin(&store, source, 0, inode, again), 0);
    cr_assert(!store.pins_dirty);
    cr_assert_str_eq(name, again);
    cr_assert_eq(stat(source, &status), 0);
    cr_assert_eq(status.st_nlink, 2);
    cr_assert_eq(unlink(source), 0); /* the package is upgraded */
    inode = make_source("version two");
    assert_pinned(name, "version 1");
    cr_assert_eq(store_pin(&store, source, 0, inode, other), 0);
    cr_assert_str_neq(name, other);
    cr_assert_eq(store_pin(&store, source, 0, inode + 1000, other), -ESTALE);
    cr_assert_eq(store_pin(&store, "/nowhere", 0, 1, other), -ESTALE);
    cr_assert_eq(store_pin_open(&store, "nonsense"), -ENOENT);
}

static long refuse_links(void *context, const struct disk_event *e)
{
    return e->op == DISK_LINK ? *(int *)context : 0;
}

Test(store, pin_by_copy)
{
    char name[STORE_PIN_BYTES];
    int errors[] = {-EXDEV, -EPERM, -EMLINK};
    format_store();
    for (int i = 0; i < 3; i++) {
        char contents[32];
        snprintf(contents, sizeof contents, "copied %d", i);
        unlink(source);
        uint64_t inode = make_source(contents);
        disk_set_hook(refuse_links, &errors[i]);
        cr_assert_eq(store_pin(&store, source, 0, inode, name), 0);
        cr_assert_eq(store_pin(&store, source, 0, inode, name), 0);
        disk_set_hook(NULL, NULL);
        make_source("overwritten in place");
        assert_pinned(name, contents);
    }
    struct stat status;
    int fd = (int)store_pin_open(&store, name);
    fstat(fd, &status);
    cr_assert_eq(status.st_nlink, 1);
}

Test(store, pin_across_file_systems)
{
    struct stat here, there;
    char name[STORE_PIN_BYTES];
    cr_assert_eq(stat(root, &here), 0);
    if (stat("/dev/shm", &there) || here.st_dev == there.st_dev)
        cr_skip_test("no second file system");
    format_store();
    char path[] = "/dev/shm/ken-pin-XXXXXX";
    int fd = mkstemp(path);
    cr_assert_eq(write(fd, "far away", 8), 8);
    fstat(fd, &there);
    cr_assert_eq(store_pin(&store, path, there.st_dev, there.st_ino, name), 0);
    unlink(path);
    assert_pinned(name, "far away");
}

Test(store, pin_that_was_written_in_place)
{
    char name[STORE_PIN_BYTES];
    format_store();
    uint64_t inode = make_source("version 1");
    cr_assert_eq(store_pin(&store, source, 0, inode, name), 0);
    usleep(20000);
    make_source("version 2"); /* the same inode, the same size */
    cr_assert_eq(store_pin_open(&store, name), -ESTALE);
}

Test(store, descriptors_stay_below_the_limit)
{
    int fd = open("/dev/null", O_RDONLY);
    int high = (int)disk_high_fd(fd);
    cr_assert_geq(high, 900);
    cr_assert_eq(fcntl(fd, F_GETFD), -1);
    close(high);
    pid_t child = fork();
    if (!child) {
        struct rlimit { unsigned long cur, max; } limit = {200, 200};
        sys(SYS_prlimit64, 0, 7, &limit, NULL);
        fd = open("/dev/null", O_RDONLY);
        high = (int)disk_high_fd(fd);
        _exit(high >= 128 && high < 200 ? 0 : 1);
    }
    int status;
    waitpid(child, &status, 0);
    cr_assert_eq(status, 0);
    cr_assert_eq(disk_high_fd(-ENOENT), -ENOENT);
}

/* The power went while the first head of a first run was on its way, and left garbage of it. */
static long stop_at_head(void *context, const struct disk_event *e)
{
    (void)context;
    bool is_head = e->op == DISK_WRITE && e->bytes == sizeof(struct segment_head) && e->offset == 0 &&
                   ((const struct segment_head *)e->data)->magic == SEGMENT_MAGIC;
    return is_head ? -EIO : 0;
}

Test(store, a_first_run_in_the_making_is_known_by_its_mark)
{
    uint64_t garbage = SEGMENT_MAGIC ^ 4;
    cr_assert_eq(store_open(&store, directory, 0), STORE_FRESH);
    disk_set_hook(stop_at_head, NULL);
    cr_assert_eq(store_format(&store, &birth), -EIO);
    disk_set_hook(NULL, NULL);
    store_close(&store);
    smash("log.0", 0, &garbage, sizeof garbage);
    cr_assert_eq(store_open(&store, directory, 0), STORE_FRESH);
    cr_assert_eq(store_format(&store, &birth), 0);
    cr_assert_eq(access(store_file("super.old"), F_OK), -1);
    store_close(&store);
}
