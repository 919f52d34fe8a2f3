/* What takes names from files: those that the program has open are to be found again (net/nameless.h). */
#define _GNU_SOURCE
#include "net/nameless.h"
#include "heap/sys.h"
#include "shim/call_net.h"

#include <fcntl.h>

static long unlink_at(struct call *c, int directory, const char *path)
{
    struct loss loss = nameless_before(directory, path);
    long r = call_raw(c);
    nameless_after(&loss, r);
    return r;
}

long call_unlink(struct call *c)
{
    return unlink_at(c, AT_FDCWD, (const char *)c->arg[0]);
}

long call_unlinkat(struct call *c)
{
    return c->arg[2] & AT_REMOVEDIR ? call_raw(c) : unlink_at(c, (int)c->arg[0], (const char *)c->arg[1]);
}

/* Both the file that gets another name and the one whose name that was. */
static long rename_at(struct call *c, int from, const char *old, int to, const char *new)
{
    struct loss moved = nameless_before(from, old), replaced = nameless_before(to, new);
    long r = nameless_again(&moved, &replaced) ? sys(SYS_unlinkat, from, old, 0) : call_raw(c);
    nameless_after(&moved, r);
    nameless_after(&replaced, r);
    return r;
}

long call_rename(struct call *c)
{
    return rename_at(c, AT_FDCWD, (const char *)c->arg[0], AT_FDCWD, (const char *)c->arg[1]);
}

long call_renameat(struct call *c)
{
    return rename_at(c, (int)c->arg[0], (const char *)c->arg[1], (int)c->arg[2], (const char *)c->arg[3]);
}
