#include "heap/room.h"

#include <fcntl.h>

#define USUAL 900      /* programs with a high limit have fewer descriptors, as a rule */
#define SMALL 4096     /* a table of descriptors that long costs a fork little */
#define STEP 128

static bool limits(struct rlimit *now)
{
    return !sys_failed(sys(SYS_prlimit64, 0, RLIMIT_NOFILE, NULL, now));
}

bool room_raise(struct rlimit *was)
{
    if (!limits(was) || was->rlim_cur == was->rlim_max)
        return false;
    struct rlimit all = {was->rlim_max, was->rlim_max};
    return !sys_failed(sys(SYS_prlimit64, 0, RLIMIT_NOFILE, &all, NULL));
}

void room_lower(const struct rlimit *was)
{
    sys(SYS_prlimit64, 0, RLIMIT_NOFILE, was, NULL);
}

uint64_t room_leave(const struct rlimit *limit)
{
    uint64_t own = limit->rlim_max >= 4 * ROOM_OWN ? ROOM_OWN : limit->rlim_max / 4;
    uint64_t most = limit->rlim_max - own;
    return limit->rlim_cur < most ? limit->rlim_cur : most;
}

long room_start(void)
{
    struct rlimit now;
    bool beyond = limits(&now) && now.rlim_cur <= SMALL && now.rlim_max >= now.rlim_cur + ROOM_OWN;
    return beyond ? (long)now.rlim_cur : USUAL;
}

long room_move(long fd, long least)
{
    struct rlimit was;
    long most = limits(&was) ? (long)room_leave(&(struct rlimit){was.rlim_max, was.rlim_max}) : least;
    bool raised = room_raise(&was);
    long high = -EMFILE;
    for (least = least < most ? least : most; least > 2 && high < 0; least -= STEP)
        high = sys(SYS_fcntl, fd, F_DUPFD_CLOEXEC, least);
    if (raised)
        room_lower(&was);
    if (high >= 0)
        sys(SYS_close, fd);
    return high;
}
