/* Beginning a fresh run. The order is what makes it safe against a crash at any step:
 *
 *   super -> super.old     from here on the directory opens as STORE_FRESH; empty where there was none
 *   pins, image, segments  emptied, zero-written, durable
 *   super.tmp -> super     from here on it is the new run
 */
#define _GNU_SOURCE
#define XXH_INLINE_ALL
#include "heap/disk.h"
#include "heap/entries.h"
#include "heap/fault.h"
#include "heap/say.h"
#include "heap/store.h"
#include "heap/sys.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <time.h>
#include <xxhash.h>

#define SET_ASIDE_WAIT_MS 5000 /* a killed process keeps its lock for a moment */

static uint64_t checksum(const void *block, size_t bytes)
{
    return XXH3_64bits((const char *)block + 16, bytes - 16);
}

struct removal {
    int fd;
    const char *prefix;
    unsigned removed;
};

static long remove_matching(void *context, const char *name)
{
    struct removal *r = context;
    if (!strcmp(name, ".") || !strcmp(name, "..") || strncmp(name, r->prefix, strlen(r->prefix)) != 0)
        return 0;
    r->removed++;
    FAULT("format.remove");
    return disk_unlink(r->fd, name);
}

/* Removes the files of a directory whose names begin with `prefix`, until a pass finds none. */
static int remove_files(int fd, const char *prefix)
{
    struct removal all = {fd, prefix, 1};
    long r = 0;
    while (all.removed && !r) {
        all.removed = 0;
        sys(SYS_lseek, fd, 0, SEEK_SET);
        r = entries_each(fd, remove_matching, &all);
    }
    return (int)r;
}

int store_drop_journals(const struct store *s)
{
    int fd = (int)disk_open(s->directory_fd, ".", O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0)
        return fd;
    int r = remove_files(fd, STORE_JOURNAL);
    disk_close(&fd);
    return r ? r : remove_files(s->kept_fd, "");
}

static int empty_pins(struct store *s)
{
    int r = disk_mkdir(s->directory_fd, "pin", 0700);
    if (r != -EEXIST)
        return r;
    FAULT("format.pins");
    int fd = (int)disk_open(s->directory_fd, "pin", O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    if (fd < 0)
        return fd;
    r = remove_files(fd, "");
    disk_close(&fd);
    return r;
}

static int empty_image(struct store *s)
{
    disk_close(&s->image_fd);
    long fd = disk_open(s->directory_fd, "image", O_RDWR | O_CREAT | O_NOFOLLOW, 0600);
    if (fd < 0)
        return (int)fd;
    s->image_fd = (int)fd;
    int r = disk_truncate(s->image_fd, 0);
    FAULT("format.image");
    /* Durable before the superblock: the old image under a new superblock would be resumed. */
    return r ? r : MUTANT("format.image_unsynced", 0, disk_sync(s->image_fd));
}

/* A segment with a valid head was zero-written to its size before it got the head. */
static bool is_prepared(int fd, uint64_t bytes)
{
    struct segment_head head;
    return disk_size(fd) >= (int64_t)bytes && disk_read(fd, &head, sizeof head, 0) == (long)sizeof head &&
           head.magic == SEGMENT_MAGIC && head.checksum == checksum(&head, sizeof head);
}

/* Unwritten extents make each first write wait for a journal commit, hence the zeros. What an earlier run
 * left in here is told apart by its store id. */
static int prepare_segment(struct store *s, unsigned number, uint64_t bytes, const struct store_id *id)
{
    char name[8];
    say_format(name, sizeof name, "log.%u", number);
    int fd = (int)disk_open(s->directory_fd, name, O_RDWR | O_CREAT | O_NOFOLLOW, 0600);
    if (fd < 0)
        return fd;
    int r = 0;
    if (!is_prepared(fd, bytes)) {
        (void)((r = disk_truncate(fd, 0)) || (r = disk_allocate(fd, 0, bytes)) ||
               (r = disk_write_zeros(fd, 0, bytes)) || (r = disk_sync(fd)));
    } else if (disk_size(fd) > (int64_t)bytes) {
        r = disk_truncate(fd, bytes);
    }
    FAULT("format.segment");
    struct segment_head head = {
        .magic = SEGMENT_MAGIC, .version = STORE_VERSION, .segment = number, .id = *id};
    head.checksum = checksum(&head, sizeof head);
    if (!r)
        r = disk_write(fd, &head, sizeof head, 0);
    FAULT("format.head");
    if (!r)
        r = disk_sync(fd);
    disk_close(&fd);
    return r;
}

static void fill_super(struct super *super, const struct store_birth *birth)
{
    struct utsname names;
    memset(super, 0, sizeof *super);
    super->magic = SUPER_MAGIC;
    super->version = STORE_VERSION;
    super->page_bytes = PAGE_BYTES;
    sys_random(&super->id, sizeof super->id);
    memcpy(super->build, birth->build, sizeof super->build);
    super->cpu_words = birth->cpu_words < STORE_CPU_WORDS ? birth->cpu_words : STORE_CPU_WORDS;
    memcpy(super->cpu, birth->cpu, super->cpu_words * sizeof *super->cpu);
    super->window_base = birth->window_base;
    super->segment_bytes = birth->segment_bytes ? birth->segment_bytes : STORE_SEGMENT_BYTES;
    super->created_ns = (uint64_t)sys_clock_ns(CLOCK_REALTIME);
    super->command_hash = birth->command_hash;
    if (!sys(SYS_uname, &names))
        say_format(super->kernel, sizeof super->kernel, "%s", names.release);
    say_format(super->executable, sizeof super->executable, "%s", birth->executable ? birth->executable : "");
    say_format(super->command, sizeof super->command, "%s", birth->command ? birth->command : "");
    super->checksum = checksum(super, sizeof *super);
}

static int write_super(struct store *s, const struct super *super)
{
    int fd = (int)disk_open(s->directory_fd, "super.tmp", O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return fd;
    int r = disk_write(fd, super, sizeof *super, 0);
    if (!r)
        r = MUTANT("format.super_unsynced", 0, disk_sync(fd));
    disk_close(&fd);
    FAULT("format.super");
    if (!r)
        r = disk_rename(s->directory_fd, "super.tmp", "super");
    FAULT("format.renamed");
    return r ? r : disk_sync(s->directory_fd);
}

/* Where there was no superblock an empty super.old tells that whatever lies here is a store in the making, even if the
 * power goes while a segment's head is on its way. */
static int mark_beginning(struct store *s)
{
    int fd = (int)disk_open(s->directory_fd, "super.old", O_WRONLY | O_CREAT | O_NOFOLLOW, 0600);
    if (fd < 0)
        return fd;
    disk_close(&fd);
    return 0;
}

int store_format(struct store *s, const struct store_birth *birth)
{
    struct super super;
    if (s->read_only || birth->segment_bytes % BLOCK_BYTES ||
        (birth->segment_bytes && birth->segment_bytes < 16 * BLOCK_BYTES))
        return -EINVAL;
    fill_super(&super, birth);
    FAULT("format.begin");
    int r = disk_rename(s->directory_fd, "super", "super.old");
    FAULT("format.aside");
    if (r == -ENOENT)
        r = mark_beginning(s);
    if (r || (r = MUTANT("format.aside_unsynced", 0, disk_sync(s->directory_fd))) || (r = empty_pins(s)) || (r = empty_image(s)) ||
        (r = prepare_segment(s, 0, super.segment_bytes, &super.id)) ||
        (r = prepare_segment(s, 1, super.segment_bytes, &super.id)) || (r = write_super(s, &super)))
        return r;
    FAULT("format.durable");
    s->super = super;
    s->pins_dirty = false;
    disk_unlink(s->directory_fd, STORE_DISTRUST);
    r = disk_unlink(s->directory_fd, "super.old");
    return r == -ENOENT ? 0 : r;
}

/* "20261123-131545", UTC. Howard Hinnant's civil_from_days. */
static void format_time(char *text, size_t bytes, long seconds)
{
    long days = seconds / 86400, rest = seconds % 86400;
    long z = days + 719468, era = z / 146097, doe = z - era * 146097;
    long yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    long doy = doe - (365 * yoe + yoe / 4 - yoe / 100), mp = (5 * doy + 2) / 153;
    long day = doy - (153 * mp + 2) / 5 + 1, month = mp < 10 ? mp + 3 : mp - 9;
    long date = (yoe + era * 400 + (month <= 2)) * 10000 + month * 100 + day;
    /* say_format() does not pad: a digit before the time, which then becomes the dash. */
    say_format(text, bytes, "%ld%ld", date, 1000000 + rest / 3600 * 10000 + rest / 60 % 60 * 100 + rest % 60);
    text[8] = '-';
}

static int rename_aside(struct store *s)
{
    char name[STORE_PATH_BYTES + 64], stamp[32];
    format_time(stamp, sizeof stamp, sys_clock_ns(CLOCK_REALTIME) / 1000000000);
    long r = -EEXIST;
    for (unsigned attempt = 0; r == -EEXIST && attempt < 1000; attempt++) {
        if (attempt)
            say_format(name, sizeof name, "%s.old-%s.%u", s->path, stamp, attempt);
        else
            say_format(name, sizeof name, "%s.old-%s", s->path, stamp);
        r = sys(SYS_renameat2, AT_FDCWD, s->path, AT_FDCWD, name, RENAME_NOREPLACE);
    }
    if (!r)
        say("the old store is kept as %s", name);
    return (int)r;
}

int store_set_aside(const char *directory)
{
    struct store s;
    int r = store_open_read_only(&s, directory);
    store_close(&s);
    /* What is not ours stays where it is; store_open() will tell. */
    if (r == STORE_FRESH || r == STORE_FOREIGN)
        return 0;
    /* Whatever is wrong with it, only its user's lock keeps it from being moved. */
    r = store_open(&s, directory, SET_ASIDE_WAIT_MS);
    if ((r < 0 && r > STORE_FOREIGN) || r == STORE_UNSAFE)
        return r;
    FAULT("aside.begin");
    r = rename_aside(&s);
    FAULT("aside.done");
    store_close(&s);
    return r ? r : 1;
}
