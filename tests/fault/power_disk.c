#define _GNU_SOURCE
#include "tests/fault/power_disk.h"
#include "heap/disk.h"
#include "tests/fault/power_fold.h"

#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const names[NAMES] = {"super", "super.tmp", "super.old", "image", "log.0", "log.1"};

enum kind { OP_NOTHING, OP_WRITE, OP_ZERO, OP_SIZE, OP_SYNC, OP_CREATE, OP_RENAME, OP_UNLINK, OP_SYNC_NAMES, OP_MARK };

struct power_op {
    enum kind kind;
    bool durable; /* a write with RWF_DSYNC */
    int file, name, to;
    uint64_t offset, bytes;
    uint8_t *data;
    uint64_t acknowledged, attempted;
};

#define FILES 64 /* inodes in one trace */
struct file {
    ino_t inode;
    uint8_t *flushed;
    uint64_t size;
    size_t *pending; /* operations of the trace that touch it and were not flushed */
    size_t pending_count, pending_room;
};

static struct power_op *trace;
static size_t length, room, at;
static struct file files[FILES];
static int file_count;
static int entries[NAMES]; /* flushed directory: name -> file, -1 */
static size_t name_ops[256]; /* changes of it that were not */
static size_t name_op_count;
static int now[NAMES]; /* while recording: name -> file */
static int created = -1; /* a name whose inode is not known yet */
static char store[256];
static uint64_t acknowledged, attempted;
static const uint64_t *sync_target, *synced;
static size_t background_from; /* the sync in the background covers the operations before this one */
static uint64_t background;    /* what it will have synced; 0: none runs */

uint64_t power_random(uint64_t *s)
{
    uint64_t z = (*s += 0x9e3779b97f4a7c15UL);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9UL;
    z = (z ^ z >> 27) * 0x94d049bb133111ebUL;
    return z ^ z >> 31;
}

static const char *path_of(const char *directory, const char *name)
{
    static char path[400];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    return path;
}

static int name_index(const char *name)
{
    for (int i = 0; i < NAMES; i++)
        if (name && !strcmp(names[i], name))
            return i;
    return -1;
}

static int new_file(ino_t inode)
{
    if (file_count == FILES)
        errx(1, "too many files in one trace");
    struct file *f = &files[file_count];
    if (!f->flushed && !(f->flushed = malloc(FILE_BYTES)))
        err(1, "malloc");
    memset(f->flushed, 0, FILE_BYTES);
    f->inode = inode;
    f->size = 0;
    f->pending_count = 0;
    return file_count++;
}

static struct power_op *add(enum kind kind)
{
    if (length == room && !(trace = realloc(trace, (room = room ? room * 2 : 1024) * sizeof *trace)))
        err(1, "realloc");
    trace[length] = (struct power_op){.kind = kind, .file = -1, .acknowledged = acknowledged, .attempted = attempted};
    return &trace[length++];
}

static void see_background(void)
{
    if (!background || *synced < background)
        return;
    struct power_op *op = add(OP_SYNC);
    op->file = now[NAME_IMAGE];
    op->bytes = background_from;
    background = 0;
}

static void find_created(void)
{
    struct stat s;
    if (created < 0 || stat(path_of(store, names[created]), &s))
        return;
    files[now[created]].inode = s.st_ino;
    created = -1;
}

static int file_of(int fd)
{
    struct stat s;
    if (fd < 0 || fstat(fd, &s))
        return -1;
    for (int i = file_count; i-- > 0;)
        if (files[i].inode == s.st_ino)
            return i;
    return -1;
}

static void record_data(const struct disk_event *e)
{
    int file = file_of(e->fd);
    if (file < 0)
        return;
    bool is_size = e->op == DISK_TRUNCATE, is_image = file == now[NAME_IMAGE];
    uint64_t offset = is_size ? 0 : fold(e->offset), bytes = is_size ? fold_size(e->bytes) : e->bytes;
    if (offset + bytes > FILE_BYTES || (is_image && !is_size && !fold_holds(e->offset, e->bytes)))
        errx(1, "%lu bytes at %lu are beyond what these tests are made for", e->bytes, e->offset);
    struct power_op *op = add(is_size ? OP_SIZE : e->op == DISK_PUNCH ? OP_ZERO : OP_WRITE);
    op->file = file;
    op->durable = e->op == DISK_WRITE_DURABLE;
    op->offset = offset;
    op->bytes = bytes;
    if (op->kind == OP_WRITE) {
        op->data = malloc(e->bytes);
        memcpy(op->data, e->data, e->bytes);
    }
}

static void record_open(const struct disk_event *e)
{
    struct stat s;
    int name = name_index(e->path);
    if (name < 0 || !((int)e->offset & O_CREAT))
        return;
    if (fstatat(e->fd, e->path, &s, 0)) {
        struct power_op *op = add(OP_CREATE);
        op->name = name;
        op->file = now[name] = new_file(0);
        created = name;
    } else if ((int)e->offset & O_TRUNC) {
        struct power_op *op = add(OP_SIZE);
        op->file = now[name];
    }
}

static void record_sync(const struct disk_event *e)
{
    struct stat s;
    int file = file_of(e->fd);
    if (file >= 0 && file == now[NAME_IMAGE] && sync_target && *sync_target) {
        background = *sync_target;
        background_from = length;
    } else if (file >= 0) {
        struct power_op *op = add(OP_SYNC);
        op->file = file;
        op->bytes = length;
    } else if (!fstat(e->fd, &s) && S_ISDIR(s.st_mode)) {
        add(OP_SYNC_NAMES);
    }
}

static long hook(void *context, const struct disk_event *e)
{
    static int renamed_from;
    (void)context;
    find_created();
    see_background();
    switch (e->op) {
    case DISK_OPEN:
        record_open(e);
        break;
    case DISK_WRITE:
    case DISK_WRITE_DURABLE:
    case DISK_TRUNCATE:
    case DISK_PUNCH:
        record_data(e);
        break;
    case DISK_SYNC:
        record_sync(e);
        break;
    case DISK_RENAME:
        /* The hook is told the old name only; what the store renames is known. */
        renamed_from = name_index(e->path);
        if (renamed_from >= 0 && now[renamed_from] >= 0) {
            struct power_op *op = add(OP_RENAME);
            op->name = renamed_from;
            op->to = renamed_from == NAME_SUPER ? NAME_SUPER_OLD : NAME_SUPER;
            now[op->to] = now[op->name];
            now[op->name] = -1;
        }
        break;
    case DISK_UNLINK:
        if (name_index(e->path) >= 0 && now[name_index(e->path)] >= 0) {
            struct power_op *op = add(OP_UNLINK);
            op->name = name_index(e->path);
            now[op->name] = -1;
        }
        break;
    default:
        break;
    }
    return 0;
}

void power_clear(const char *directory)
{
    for (int name = 0; name < NAMES; name++)
        unlink(path_of(directory, names[name]));
    unlink(path_of(directory, "lock"));
    rmdir(path_of(directory, "pin"));
}

static void read_flushed(int name)
{
    struct stat s;
    int fd = open(path_of(store, names[name]), O_RDONLY);
    entries[name] = -1;
    if (fd < 0)
        return;
    if (fstat(fd, &s) || fold_size((uint64_t)s.st_size) > FILE_BYTES)
        errx(1, "%s is too long", names[name]);
    int file = new_file(s.st_ino);
    uint8_t *flushed = files[file].flushed;
    files[file].size = fold_size((uint64_t)s.st_size);
    if (name == NAME_IMAGE ? !fold_read(fd, flushed, files[file].size) : pread(fd, flushed, (size_t)s.st_size, 0) != s.st_size)
        err(1, "%s", names[name]);
    entries[name] = file;
    close(fd);
}

static struct file *beginning; /* the flushed state that the trace began with */
static int beginning_entries[NAMES], beginning_count;

void power_begin(const char *directory)
{
    for (size_t i = 0; i < length; i++)
        free(trace[i].data);
    length = at = name_op_count = 0;
    file_count = 0;
    acknowledged = attempted = 0;
    created = -1;
    background = 0;
    snprintf(store, sizeof store, "%s", directory);
    for (int name = 0; name < NAMES; name++)
        read_flushed(name);
    if (!beginning && !(beginning = calloc(NAMES, sizeof *beginning)))
        err(1, "calloc");
    beginning_count = file_count;
    for (int i = 0; i < file_count; i++) {
        beginning[i].size = files[i].size;
        if (!beginning[i].flushed && !(beginning[i].flushed = malloc(FILE_BYTES)))
            err(1, "malloc");
        memcpy(beginning[i].flushed, files[i].flushed, FILE_BYTES);
    }
    memcpy(beginning_entries, entries, sizeof entries);
    memcpy(now, entries, sizeof now);
    disk_set_hook(hook, NULL);
}

void power_end(void)
{
    add(OP_NOTHING);
    disk_set_hook(NULL, NULL);
}

size_t power_length(void) { return length; }

void power_acknowledge(uint64_t sequence)
{
    see_background();
    acknowledged = sequence;
    add(OP_MARK);
}

void power_attempt(uint64_t sequence)
{
    see_background();
    attempted = sequence;
    add(OP_MARK);
}

void power_watch(const uint64_t *target, const uint64_t *now_synced)
{
    sync_target = target;
    synced = now_synced;
}

void power_rewind(void)
{
    at = name_op_count = 0;
    memcpy(entries, beginning_entries, sizeof entries);
    for (int i = 0; i < file_count; i++) {
        files[i].pending_count = 0;
        files[i].size = 0;
        if (i < beginning_count) {
            files[i].size = beginning[i].size;
            memcpy(files[i].flushed, beginning[i].flushed, FILE_BYTES);
        } else {
            memset(files[i].flushed, 0, FILE_BYTES);
        }
    }
    if (length)
        power_step();
}

static void apply(uint8_t *bytes, uint64_t *size, const struct power_op *op)
{
    if (op->kind == OP_WRITE) {
        memcpy(bytes + op->offset, op->data, op->bytes);
        if (*size < op->offset + op->bytes)
            *size = op->offset + op->bytes;
    } else if (op->kind == OP_ZERO) {
        memset(bytes + op->offset, 0, op->bytes);
    } else {
        if (op->bytes < *size)
            memset(bytes + op->bytes, 0, *size - op->bytes);
        *size = op->bytes;
    }
}

static uint64_t start_of(const struct power_op *op)
{
    return op->kind == OP_SIZE ? op->bytes : op->offset;
}

static uint64_t end_of(const struct power_op *op)
{
    return op->kind == OP_SIZE ? UINT64_MAX : op->offset + op->bytes;
}

/* The operations up to `last`: all of them, or those that lie under `one`. */
static void flush(struct file *f, size_t last, const struct power_op *one)
{
    size_t kept = 0;
    for (size_t i = 0; i < f->pending_count; i++) {
        const struct power_op *op = &trace[f->pending[i]];
        if (f->pending[i] <= last && (!one || (start_of(op) < end_of(one) && end_of(op) > start_of(one))))
            apply(f->flushed, &f->size, op);
        else
            f->pending[kept++] = f->pending[i];
    }
    f->pending_count = kept;
}

static void change_name(int table[NAMES], const struct power_op *op)
{
    if (op->kind == OP_CREATE) {
        table[op->name] = op->file;
    } else if (op->kind == OP_UNLINK) {
        table[op->name] = -1;
    } else if (table[op->name] >= 0) {
        table[op->to] = table[op->name];
        table[op->name] = -1;
    }
}

static void pend(struct file *f, size_t op)
{
    if (f->pending_count == f->pending_room &&
        !(f->pending = realloc(f->pending, (f->pending_room = f->pending_room ? f->pending_room * 2 : 64) * sizeof *f->pending)))
        err(1, "realloc");
    f->pending[f->pending_count++] = op;
}

/* `at` is the number of operations that have begun; the last of them is on its way. */
bool power_step(void)
{
    if (at == length)
        return false;
    const struct power_op *before = at ? &trace[at - 1] : NULL, *op = &trace[at];
    if (before && before->kind == OP_WRITE && before->durable)
        flush(&files[before->file], at - 1, before);
    if (before && before->kind == OP_SYNC)
        flush(&files[before->file], before->bytes - 1, NULL);
    if (before && before->kind == OP_SYNC_NAMES) {
        for (size_t i = 0; i < name_op_count; i++)
            change_name(entries, &trace[name_ops[i]]);
        name_op_count = 0;
    }
    if (op->kind == OP_WRITE || op->kind == OP_ZERO || op->kind == OP_SIZE)
        pend(&files[op->file], at);
    if (op->kind == OP_CREATE || op->kind == OP_RENAME || op->kind == OP_UNLINK)
        name_ops[name_op_count++] = at;
    if (name_op_count == sizeof name_ops / sizeof *name_ops)
        errx(1, "too many changes of names");
    at++;
    return true;
}

uint64_t power_acknowledged(void) { return trace[at - 1].acknowledged; }
uint64_t power_attempted(void) { return trace[at - 1].attempted; }

static bool touches(const struct power_op *op, uint64_t sector)
{
    return start_of(op) < (sector + 1) * SECTOR && end_of(op) > sector * SECTOR;
}

/* The sectors that pending operations touch, and how many versions each has. */
static unsigned touched(const struct file *f, uint32_t *sectors, uint32_t *versions, unsigned most)
{
    static uint16_t count[FILE_BYTES / SECTOR];
    unsigned n = 0;
    uint64_t reach = 0;
    memset(count, 0, sizeof count);
    for (size_t i = 0; i < f->pending_count; i++) {
        const struct power_op *op = &trace[f->pending[i]];
        uint64_t end = op->kind == OP_SIZE ? f->size : op->offset + op->bytes;
        uint64_t from = op->kind == OP_SIZE ? op->bytes : op->offset;
        for (uint64_t s = from / SECTOR; s * SECTOR < end && s < FILE_BYTES / SECTOR; s++)
            count[s]++;
        if (reach < end)
            reach = end;
    }
    for (uint32_t s = 0; s * SECTOR < reach; s++)
        if (count[s] && n < most) {
            sectors[n] = s;
            versions[n++] = count[s];
        }
    return n;
}

uint64_t power_states(void)
{
    static uint32_t sectors[FILE_BYTES / SECTOR], versions[FILE_BYTES / SECTOR];
    uint64_t states = name_op_count + 1;
    for (int i = 0; i < file_count; i++) {
        unsigned n = touched(&files[i], sectors, versions, FILE_BYTES / SECTOR);
        for (unsigned k = 0; k < n; k++)
            if (__builtin_mul_overflow(states, (uint64_t)versions[k] + 1, &states))
                return UINT64_MAX;
        if (__builtin_mul_overflow(states, files[i].pending_count ? 2UL : 1UL, &states))
            return UINT64_MAX;
    }
    return states;
}

static uint64_t take(uint64_t *counter, uint64_t choices)
{
    uint64_t choice = *counter % choices;
    *counter /= choices;
    return choice;
}

/* The first `version` of the pending operations that touch the sector. */
static void put_sector(const struct file *f, uint8_t *bytes, uint32_t sector, uint32_t version)
{
    uint64_t from = sector * (uint64_t)SECTOR, to = from + SECTOR;
    for (size_t i = 0; i < f->pending_count && version; i++) {
        const struct power_op *op = &trace[f->pending[i]];
        if (!touches(op, sector))
            continue;
        version--;
        uint64_t a = start_of(op) > from ? start_of(op) : from, b = end_of(op) < to ? end_of(op) : to;
        if (op->kind == OP_WRITE)
            memcpy(bytes + a, op->data + (a - op->offset), b - a);
        else
            memset(bytes + a, 0, b - a);
    }
}

static uint64_t any_size(const struct file *f, uint64_t choice)
{
    uint64_t size = f->size;
    for (size_t i = 0; i < f->pending_count && choice; i++, choice--) {
        const struct power_op *op = &trace[f->pending[i]];
        if (op->kind == OP_SIZE)
            size = op->bytes;
        else if (op->kind == OP_WRITE && size < op->offset + op->bytes)
            size = op->offset + op->bytes;
    }
    return size;
}

/* Garbage within what was on its way. */
static void flip(const struct file *f, uint8_t *bytes, uint64_t *random)
{
    for (unsigned n = 1 + power_random(random) % 4; n-- && f->pending_count;) {
        const struct power_op *op = &trace[f->pending[power_random(random) % f->pending_count]];
        if (op->kind == OP_WRITE && op->bytes)
            bytes[op->offset + power_random(random) % op->bytes] ^= (uint8_t)(1u << power_random(random) % 8);
    }
}

static uint64_t survive(const struct file *f, uint8_t *bytes, enum cut_style style, uint64_t *random, uint64_t *counter)
{
    static uint32_t sectors[FILE_BYTES / SECTOR], versions[FILE_BYTES / SECTOR];
    uint64_t size = f->size, reach = size;
    for (size_t i = 0; i < f->pending_count; i++) {
        const struct power_op *op = &trace[f->pending[i]];
        if (reach < op->offset + op->bytes)
            reach = op->offset + op->bytes;
    }
    memcpy(bytes, f->flushed, reach < FILE_BYTES ? reach : FILE_BYTES);
    if (style == CUT_DROP || !f->pending_count)
        return size;
    size_t first = style == CUT_PREFIX ? power_random(random) % (f->pending_count + 1) : f->pending_count;
    if (style == CUT_KEEP || style == CUT_PREFIX || style == CUT_WRITES) {
        for (size_t i = 0; i < first; i++)
            if (style != CUT_WRITES || power_random(random) % 2)
                apply(bytes, &size, &trace[f->pending[i]]);
        return size;
    }
    unsigned n = touched(f, sectors, versions, FILE_BYTES / SECTOR);
    for (unsigned k = 0; k < n; k++)
        put_sector(f, bytes, sectors[k], (uint32_t)(style == CUT_COUNTED ? take(counter, versions[k] + 1UL)
                                                                         : power_random(random) % (versions[k] + 1UL)));
    size = any_size(f, style == CUT_COUNTED ? take(counter, 2) * f->pending_count
                                            : power_random(random) % (f->pending_count + 1));
    if (style == CUT_FLIPS)
        flip(f, bytes, random);
    return size;
}

static bool write_file(int fd, const uint8_t *bytes, uint64_t size, bool is_image)
{
    bool written = is_image ? fold_write(fd, bytes, size) : pwrite(fd, bytes, size, 0) == (ssize_t)size;
    return written && !ftruncate(fd, (off_t)(is_image ? unfold_size(size) : size));
}

void power_cut(const char *directory, enum cut_style style, uint64_t *random, uint64_t counter)
{
    static uint8_t bytes[FILE_BYTES];
    int table[NAMES];
    size_t changes = style == CUT_DROP ? 0 : style == CUT_KEEP ? name_op_count
                     : style == CUT_COUNTED ? take(&counter, name_op_count + 1) : power_random(random) % (name_op_count + 1);
    memcpy(table, entries, sizeof table);
    for (size_t i = 0; i < changes; i++)
        change_name(table, &trace[name_ops[i]]);
    for (int name = 0; name < NAMES; name++) {
        const char *path = path_of(directory, names[name]);
        if (table[name] < 0) {
            unlink(path);
            continue;
        }
        uint64_t size = survive(&files[table[name]], bytes, style, random, &counter);
        int fd = open(path, O_WRONLY | O_CREAT, 0600);
        if (fd < 0 || !write_file(fd, bytes, size, name == NAME_IMAGE))
            err(1, "%s", path);
        close(fd);
    }
}
