#include "heap/entries.h"
#include "heap/sys.h"

/* As getdents64(2) puts them. */
struct entry {
    uint64_t inode, offset;
    uint16_t bytes;
    uint8_t type;
    char name[];
};

long entries_each(int fd, long (*visit)(void *context, const char *name), void *context)
{
    char buffer[4096] __attribute__((aligned(8)));
    long n, r = 0;
    while (!r && (n = sys(SYS_getdents64, fd, buffer, sizeof buffer)) > 0)
        for (long at = 0; at < n && !r; at += ((const struct entry *)(buffer + at))->bytes)
            r = visit(context, ((const struct entry *)(buffer + at))->name);
    return r ? r : n;
}
