#include "heap/kenctl_frames.h"
#include "heap/kenctl_elf.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int objects_add(struct objects *objects, const struct object *object)
{
    struct object *list = realloc(objects->list, (objects->count + 1) * sizeof *list);
    if (!list)
        return -ENOMEM;
    objects->list = list;
    list[objects->count] = *object;
    list[objects->count].path = strdup(object->path);
    list[objects->count].name = strdup(object->name);
    if (!list[objects->count].path || !list[objects->count].name)
        return -ENOMEM;
    objects->count++;
    return 0;
}

/* A file that was replaced since shows as deleted: its old name still tells people what it is. */
static void strip_deleted(char *path)
{
    static const char mark[] = " (deleted)";
    size_t length = strlen(path), cut = sizeof mark - 1;
    if (length > cut && strcmp(path + length - cut, mark) == 0)
        path[length - cut] = '\0';
}

int objects_of_process(struct objects *objects, int pid)
{
    char name[64];
    snprintf(name, sizeof name, "/proc/%d/maps", pid);
    FILE *maps = fopen(name, "re");
    if (!maps)
        return -errno;
    int error = 0;
    char *line = NULL;
    size_t room = 0;
    while (!error && getline(&line, &room, maps) > 0) {
        struct object o = {0};
        int path = 0;
        line[strcspn(line, "\n")] = '\0';
        if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %*s %" SCNx64 " %*s %" SCNu64 " %n", &o.start,
                   &o.end, &o.offset, &o.inode, &path) != 4 || !path || !line[path])
            continue;
        o.path = line + path;
        strip_deleted(o.path);
        char *slash = strrchr(o.path, '/');
        o.name = slash ? slash + 1 : o.path;
        error = objects_add(objects, &o);
    }
    free(line);
    fclose(maps);
    return error;
}

const struct object *objects_find(const struct objects *objects, uint64_t address)
{
    for (size_t i = 0; i < objects->count; i++)
        if (address >= objects->list[i].start && address < objects->list[i].end)
            return &objects->list[i];
    return NULL;
}

void objects_free(struct objects *objects)
{
    for (size_t i = 0; i < objects->count; i++) {
        free(objects->list[i].path);
        free(objects->list[i].name);
    }
    free(objects->list);
    *objects = (struct objects){0};
}

void frame_print(int fd, const char *prefix, unsigned n, const struct frame *frame,
                 const struct objects *objects)
{
    const struct object *object = objects_find(objects, frame->ip);
    if (frame->signal) {
        dprintf(fd, "%s  #%u 0x%" PRIx64 " <a signal arrived>\n", prefix, n, frame->ip);
        return;
    }
    if (!object) {
        dprintf(fd, "%s  #%u 0x%" PRIx64 "\n", prefix, n, frame->ip);
        return;
    }
    /* A call may be its function's last instruction: look up the call, not what follows it. */
    uint64_t back = frame->exact ? 0 : 1;
    uint64_t address = frame->ip - object->start + object->offset, distance = 0;
    const char *function = NULL;
    struct elf elf;
    if (object->inode && elf_open(&elf, object->path, object->inode) == 0) {
        if (elf_address_of(&elf, address - back, &address))
            address += back;
        function = elf_function(&elf, address - back, &distance);
    } else {
        memset(&elf, 0, sizeof elf);
    }
    if (function)
        dprintf(fd, "%s  #%u 0x%" PRIx64 " %s+0x%" PRIx64 " (%s)\n", prefix, n, frame->ip, function,
                distance + back, object->name);
    else
        dprintf(fd, "%s  #%u 0x%" PRIx64 " %s+0x%" PRIx64 "\n", prefix, n, frame->ip, object->name,
                address);
    elf_close(&elf);
}
