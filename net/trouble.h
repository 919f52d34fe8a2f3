/* A machine in trouble: no memory, no descriptors, no room, a disk that fails. Such an error says nothing about the thing that
 * was asked for, so it must not become part of what the program is; the process ends instead, and the next one goes on from the
 * last commit. Everything else is an answer.
 */
#ifndef KEN_NET_TROUBLE_H
#define KEN_NET_TROUBLE_H

#include "heap/say.h"
#include "heap/sys.h"

static inline bool trouble_is(long r)
{
    return sys_in_trouble(r);
}

/* Ends the process when `r` is trouble, else returns it. `what` completes `cannot ...`. */
static inline long trouble_none(long r, const char *what)
{
    if (trouble_is(r))
        say_die_of(r, "cannot %s: %s%s; what was committed before is safe, start the same command again", what, say_error(r),
                   r == -EMFILE ? " (raise the hard limit on descriptors, ulimit -Hn)" : "");
    return r;
}

#endif
