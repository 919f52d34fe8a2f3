#include "heap/mapping.h"
#include "heap/digits.h"
#include "heap/sys.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

long mapping_read(int maps_fd, char *buffer, size_t size)
{
    size_t used = 0;
    long n = sys(SYS_lseek, maps_fd, 0, SEEK_SET);
    while (!sys_failed(n)) {
        if (used == size)
            return -ENOBUFS;
        n = sys(SYS_read, maps_fd, buffer + used, size - used);
        if (n == 0)
            return (long)used;
        if (n > 0)
            used += (size_t)n;
        else if (n == -EINTR)
            n = 0;
    }
    return n;
}

/* 7f01-7f02 r-xp 00001000 fe:00 1234      /path */
bool mapping_next(const char **cursor, const char *end, struct mapping_line *line)
{
    const char *p = *cursor;
    if (p >= end)
        return false;
    const char *stop = memchr(p, '\n', (size_t)(end - p));
    if (!stop)
        return false;
    line->start = digits_hex(&p, 16);
    p++;
    line->end = digits_hex(&p, 16);
    p++;
    line->prot = (p[0] == 'r' ? PROT_READ : 0) | (p[1] == 'w' ? PROT_WRITE : 0) |
                 (p[2] == 'x' ? PROT_EXEC : 0);
    line->shared = p[3] == 's';
    p += 5;
    line->offset = digits_hex(&p, 16);
    p++;
    uint64_t major = digits_hex(&p, 16);
    p++;
    line->device = major << 32 | digits_hex(&p, 16);
    p++;
    line->inode = digits_decimal(&p);
    while (p < stop && *p == ' ')
        p++;
    line->name = p;
    line->name_length = (size_t)(stop - p);
    *cursor = stop + 1;
    return true;
}

bool mapping_named(const struct mapping_line *line, const char *name)
{
    return strlen(name) == line->name_length && memcmp(line->name, name, line->name_length) == 0;
}
