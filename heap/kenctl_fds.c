/* The descriptors of a saved process, from libken's own table in the image. */
#include "heap/kenctl.h"
#include "heap/kenctl_elf.h"
#include "heap/kenctl_saved.h"
#include "net/fdtable.h"

#include <string.h>

enum { LISTED_MOST = 24 };

static const char *kind_name(unsigned kind)
{
    static const char *const names[] = {
        [FD_FREE] = "nothing",    [FD_FILE] = "file",       [FD_DIR] = "directory",
        [FD_DEVICE] = "device",   [FD_TTY] = "terminal",    [FD_FIFO] = "fifo",
        [FD_PIPE] = "pipe",       [FD_SOCKET] = "socket",   [FD_EPOLL] = "epoll",
        [FD_EVENT] = "eventfd",   [FD_TIMER] = "timerfd",   [FD_SIGNAL] = "signalfd",
        [FD_INOTIFY] = "inotify", [FD_MEMFD] = "memfd",     [FD_PIDFD] = "pidfd",
    };
    return kind < sizeof names / sizeof *names && names[kind] ? names[kind] : "other";
}

/* libken as it is mapped in the process: its file, and what its addresses are shifted by. */
static bool find_libken(const struct saved *s, struct elf *elf, uint64_t *shift)
{
    struct objects objects = {0};
    bool found = false;
    if (saved_objects(s, &objects) != 0)
        return false;
    for (size_t i = 0; i < objects.count && !found; i++) {
        const struct object *object = &objects.list[i];
        uint64_t address;
        if (strncmp(object->name, "libken.so", strlen("libken.so")) != 0 ||
            elf_open(elf, object->path, object->inode) != 0)
            continue;
        found = elf_address_of(elf, object->offset, &address);
        if (found)
            *shift = object->start - address;
        else
            elf_close(elf);
    }
    objects_free(&objects);
    return found;
}

static void print_table(const struct saved *s, uint64_t slots, uint64_t descriptions, int highest)
{
    struct slot slot;
    struct description description;
    unsigned count = 0;
    for (int fd = 0; fd <= highest && fd < FD_LIMIT; fd++) {
        if (!saved_read(s, slots + (uint64_t)fd * sizeof slot, &slot, sizeof slot) || !slot.description)
            continue;
        uint64_t at = descriptions + ((uint64_t)slot.description - 1) * sizeof description;
        if (!saved_read(s, at, &description, sizeof description))
            continue;
        if (count < LISTED_MOST)
            printf("%s%d %s", count ? ", " : "descriptors: ", fd, kind_name(description.kind));
        count++;
    }
    if (count > LISTED_MOST)
        printf(" and %u more", count - LISTED_MOST);
    if (count)
        putchar('\n');
}

void saved_print_descriptors(const struct saved *s)
{
    struct elf elf;
    uint64_t shift;
    if (!find_libken(s, &elf, &shift))
        return;
    int highest = -1;
    uint64_t slots = elf_variable(&elf, "fd_slots", FD_LIMIT * sizeof(struct slot));
    uint64_t descriptions = elf_variable(&elf, "descriptions", FD_LIMIT * sizeof(struct description));
    uint64_t top = elf_variable(&elf, "fd_highest", sizeof highest);
    elf_close(&elf);
    /* A stripped library has no such symbols; then nothing is said. */
    if (slots && descriptions && top && saved_read(s, top + shift, &highest, sizeof highest))
        print_table(s, slots + shift, descriptions + shift, highest);
}
