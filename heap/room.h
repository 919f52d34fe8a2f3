/* Room for libken's own descriptors: between what the program may have and what the kernel allows.
 *
 * RLIMIT_NOFILE's soft limit is the program's. libken's own descriptors, and those that it needs for a moment, may lie
 * between that and the hard limit: for them the soft one is raised while they are made. Where the two are one, the program's is
 * lowered by ROOM_OWN; it is told what it had. A hard limit that it lowers itself is lowered for its eyes only (shim/call_limits.c).
 *
 * Other threads of the program may see the raised limit for a moment: a descriptor of theirs may then lie beyond it.
 */
#ifndef KEN_HEAP_ROOM_H
#define KEN_HEAP_ROOM_H

#include "heap/sys.h"

#include <sys/resource.h>

#define ROOM_OWN 64

/* The soft limit becomes the hard one; *was: what it is to be afterwards. False: there is nothing to gain. */
bool room_raise(struct rlimit *was);
void room_lower(const struct rlimit *was);

/* The highest soft limit that leaves room for libken, at most limit->rlim_cur. */
uint64_t room_leave(const struct rlimit *limit);

/* From where on libken's own descriptors lie, as far as the program has none there. */
long room_start(void);

/* Moves a descriptor to a number from `least` on, or as near to it as the limit allows; closes `fd`. The number, or -errno:
 * `fd` is as it was. Async-signal-safe. */
long room_move(long fd, long least);

/* sys() for calls that make a descriptor. */
#define sys_fd(...)                                                                                \
    __extension__({                                                                                \
        struct rlimit room_was;                                                                    \
        long room_made = sys(__VA_ARGS__);                                                         \
        if (room_made == -EMFILE && room_raise(&room_was)) {                                       \
            room_made = sys(__VA_ARGS__);                                                          \
            room_lower(&room_was);                                                                 \
        }                                                                                          \
        room_made;                                                                                 \
    })

#endif
