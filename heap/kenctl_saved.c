#include "heap/kenctl_saved.h"
#include "heap/kenctl.h"
#include "heap/say.h"
#include "heap/sys.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TRIES = 5, TRY_PAUSE_US = 50000 };

/* Who holds the store's lock: the program, if it runs. */
static pid_t find_holder(const struct store *store)
{
    int fd = openat(store->directory_fd, "lock", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    long holder = store_holder(fd);
    close(fd);
    return holder > 0 ? (pid_t)holder : 0;
}

static bool has_table(const struct saved *s, uint64_t at, uint64_t count, uint64_t most, uint64_t size)
{
    return count <= most && at + count * size <= s->bytes;
}

static bool has_names(const struct saved *s)
{
    for (uint32_t i = 0; i < s->meta->files; i++)
        if (!memchr(s->files[i].path, 0, sizeof s->files[i].path) ||
            !memchr(s->files[i].pin, 0, sizeof s->files[i].pin))
            return false;
    return true;
}

/* The tables lie where the format puts them; their sizes are what the metadata may claim. The header is
 * copied, so that a program that runs cannot change them behind our back. */
static bool find_tables(struct saved *s)
{
    if (s->bytes < sizeof s->header)
        return false;
    memcpy(&s->header, s->image, sizeof s->header);
    const struct meta *m = &s->header;
    if (m->magic != META_MAGIC ||
        !has_table(s, CHUNK_AT, m->chunks, CHUNK_MAX, sizeof(struct chunk)) ||
        !has_table(s, AREA_AT, m->areas, AREA_MAX, sizeof(struct area)) ||
        !has_table(s, FILE_AT, m->files, FILE_MAX, sizeof(struct file)) ||
        !has_table(s, VDSO_AT, m->vdso_bytes, META_BYTES - VDSO_AT, 1) ||
        m->vdso_pieces > VDSO_PIECES)
        return false;
    s->meta = m;
    s->chunks = (const void *)(s->image + CHUNK_AT);
    s->areas = (const void *)(s->image + AREA_AT);
    s->files = (const void *)(s->image + FILE_AT);
    return has_names(s);
}

static _Alignas(4096) uint8_t no_record[4096];
static struct iovec no_parts[1];

static bool try_open(struct saved *s, const char *directory)
{
    char line[2 * STORE_PATH_BYTES];
    memset(s, 0, sizeof *s);
    int state = store_open_read_only(&s->store, directory);
    if (state < 0) {
        store_explain(&s->store, state, line, sizeof line);
        say("%s", line);
        return false;
    }
    s->empty = true;
    if (s->store.directory_fd >= 0)
        s->holder = find_holder(&s->store);
    if (state == STORE_FRESH)
        return true;
    s->log.buffer = no_record; /* or the log would reserve room for one */
    s->log.parts = no_parts;
    int error = log_open(&s->log, &s->store, SYNC_POWER, s->store.image_fd);
    if (!error) {
        s->records = log_overlay(&s->log, &s->image, &s->bytes);
        error = s->records < 0 ? (int)s->records : 0;
    }
    if (error) {
        if (error > -10000) { /* the store's own faults were told */
            store_explain(&s->store, error, line, sizeof line);
            say("%s", line);
        }
        return false;
    }
    if (s->bytes >= sizeof *s->meta && ((const struct meta *)(const void *)s->image)->turn == 0)
        return true;
    s->empty = s->bytes == 0;
    if (s->empty || find_tables(s))
        return true;
    say("the store %s/image is damaged: its metadata are not what the format says", s->store.path);
    return false;
}

static bool open_silently(struct saved *s, const char *directory)
{
    int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
    if (nowhere >= 0)
        say_to(nowhere);
    bool opened = try_open(s, directory);
    say_to(2);
    close(nowhere);
    if (!opened)
        saved_close(s);
    return opened;
}

bool saved_open(struct saved *s, const char *directory)
{
    for (int i = 1; i < TRIES; i++) {
        if (open_silently(s, directory))
            return true;
        if (!s->holder)
            break; /* it will not change */
        usleep(TRY_PAUSE_US);
    }
    bool opened = try_open(s, directory);
    if (!opened)
        saved_close(s);
    return opened;
}

bool saved_went_on(const struct saved *s)
{
    struct saved now;
    if (!s->holder)
        return false;
    bool same = saved_open(&now, s->store.path);
    same = same && now.empty == s->empty && (s->empty || now.meta->turn == s->meta->turn);
    saved_close(&now);
    return !same;
}

void saved_close(struct saved *s)
{
    if (s->image)
        munmap(s->image, s->bytes);
    if (s->log.store)
        log_close(&s->log);
    store_close(&s->store);
    s->image = NULL;
    s->log.store = NULL;
    s->store.directory_fd = s->store.lock_fd = s->store.image_fd = -1;
}

const void *saved_page(const struct saved *s, uint64_t address)
{
    uint64_t number = address >> CHUNK_SHIFT, within = PAGE_DOWN(address & (CHUNK_BYTES - 1));
    uint64_t page = within / PAGE_BYTES;
    for (uint32_t slot = 0; number != CHUNK_FREE && slot < s->meta->chunks; slot++) {
        const struct chunk *chunk = &s->chunks[slot];
        if (chunk->number != number)
            continue;
        uint64_t offset = layout_slot(slot) + within;
        bool present = chunk->present[page / 64] >> (page % 64) & 1;
        return present && offset + PAGE_BYTES <= s->bytes ? s->image + offset : NULL;
    }
    return NULL;
}

const struct area *saved_area(const struct saved *s, uint64_t address)
{
    for (uint32_t i = 0; i < s->meta->areas; i++)
        if (address >= s->areas[i].start && address < s->areas[i].end)
            return &s->areas[i];
    return NULL;
}

/* The name that people know. A process that was resumed has mapped the pins themselves, so that a later entry
 * may carry a pin's path; the first entry with the same pin was made before. */
static const char *original_path(const struct saved *s, const struct file *file)
{
    for (uint32_t i = 0; file->pin[0] && i < s->meta->files; i++)
        if (strncmp(s->files[i].pin, file->pin, sizeof file->pin) == 0)
            return s->files[i].path;
    return file->path;
}

/* <store>/pin/<name>: the length of the store's part, or 0. */
static int pin_place(const char *path)
{
    const char *slash = strrchr(path, '/');
    static const char parent[] = "/pin";
    size_t length = slash ? (size_t)(slash - path) : 0, cut = sizeof parent - 1;
    bool is_pin = length > cut && memcmp(slash - cut, parent, cut) == 0 &&
                  strlen(slash + 1) == STORE_PIN_BYTES - 1 && slash[17] == '.';
    return is_pin ? (int)(length - cut) : 0;
}

static void name_from(const struct saved *s, struct object *object, const char *pin)
{
    for (uint32_t i = 0; i < s->meta->files; i++) {
        if (strncmp(s->files[i].pin, pin, sizeof s->files[i].pin) != 0)
            continue;
        const char *slash = strrchr(s->files[i].path, '/');
        char *name = strdup(slash ? slash + 1 : s->files[i].path);
        if (name) {
            free(object->name);
            object->name = name;
        }
        return;
    }
}

void saved_name_pins(struct objects *objects)
{
    struct saved s;
    char open_store[STORE_PATH_BYTES] = "", store[STORE_PATH_BYTES];
    bool usable = false;
    for (size_t i = 0; i < objects->count; i++) {
        struct object *object = &objects->list[i];
        int length = pin_place(object->path);
        if (!length || snprintf(store, sizeof store, "%.*s", length, object->path) >= (int)sizeof store)
            continue;
        if (strcmp(store, open_store) != 0) {
            if (usable)
                saved_close(&s);
            strcpy(open_store, store);
            usable = open_silently(&s, store);
        }
        if (usable && !s.empty)
            name_from(&s, object, object->path + length + strlen("/pin/"));
    }
    if (usable)
        saved_close(&s);
}

bool saved_file_path(const struct saved *s, const struct file *file, char *path, size_t bytes)
{
    int length = file->pin[0] ? snprintf(path, bytes, "%s/pin/%.*s", s->store.path,
                                         (int)sizeof file->pin, file->pin)
                              : snprintf(path, bytes, "%.*s", (int)sizeof file->path, file->path);
    return length > 0 && (size_t)length < bytes;
}

static bool read_from_file(const struct saved *s, const struct area *area, uint64_t address, void *to,
                           size_t bytes)
{
    char path[2 * STORE_PATH_BYTES];
    if (area->file >= s->meta->files || !saved_file_path(s, &s->files[area->file], path, sizeof path))
        return false;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return false;
    memset(to, 0, bytes); /* the rest of the last page */
    ssize_t got = pread(fd, to, bytes, (off_t)(area->offset + (address - area->start)));
    close(fd);
    return got > 0;
}

/* Within one page. */
static bool read_piece(const struct saved *s, uint64_t address, void *to, size_t bytes)
{
    const uint8_t *page = saved_page(s, address);
    if (page) {
        memcpy(to, page + (address & (PAGE_BYTES - 1)), bytes);
        return true;
    }
    const struct area *area = saved_area(s, address);
    if (!area)
        return false;
    if (area->kind == AREA_FILE_PRIVATE)
        return read_from_file(s, area, address, to, bytes);
    if (area->kind != AREA_ANONYMOUS && area->kind != AREA_STACK)
        return false;
    memset(to, 0, bytes);
    return true;
}

bool saved_read(const struct saved *s, uint64_t address, void *to, size_t bytes)
{
    for (size_t done = 0; done < bytes;) {
        size_t piece = PAGE_BYTES - ((address + done) & (PAGE_BYTES - 1));
        if (piece > bytes - done)
            piece = bytes - done;
        if (!read_piece(s, address + done, (char *)to + done, piece))
            return false;
        done += piece;
    }
    return true;
}

int saved_objects(const struct saved *s, struct objects *objects)
{
    for (uint32_t i = 0; i < s->meta->areas; i++) {
        const struct area *area = &s->areas[i];
        char path[2 * STORE_PATH_BYTES], name[sizeof(struct file)];
        if (area->kind != AREA_FILE_PRIVATE || area->file >= s->meta->files)
            continue;
        const struct file *file = &s->files[area->file];
        if (!saved_file_path(s, file, path, sizeof path))
            continue;
        const char *original = original_path(s, file), *slash = strrchr(original, '/');
        snprintf(name, sizeof name, "%s", slash ? slash + 1 : original);
        struct stat status;
        struct object object = {area->start, area->end, area->offset, 0, path, name};
        if (stat(path, &status) == 0)
            object.inode = status.st_ino;
        int error = objects_add(objects, &object);
        if (error)
            return error;
    }
    return 0;
}
