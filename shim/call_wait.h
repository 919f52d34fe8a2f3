/* Waiting for the outside: the rhythm that every blocking handler of descriptors keeps.
 *
 *     try without blocking      an answer: return it (outputs held for long are let go first)
 *     non-blocking caller       "would block" with outputs held is a boundary as well
 *     nothing held              wait for input for a moment (turn_grace_ns()), only then end the turn
 *     outputs held              end the turn now, unless other threads of the program are awake
 *     block
 *
 * Threads share their commits. One that comes to rest with outputs held while others are awake goes to its wait as it is,
 * and is saved there: the last one that comes to rest commits for all, with one record, and lets everything go. Should
 * somebody compute for long, the first wait that has lasted for the time of grace ends the turn instead. The output
 * rule is kept by every commit being one of the whole process: whatever is held then was produced by a state that it covers.
 *
 * turn_end() may return in a new process: what a handler needs after it lies on its stack or in libken's
 * memory, and deadlines are kept in the program's monotonic time, which a reboot does not set back.
 */
#ifndef KEN_SHIM_CALL_WAIT_H
#define KEN_SHIM_CALL_WAIT_H

#include "net/outbox.h"
#include "shim/call.h"

#include <poll.h>
#include <time.h>

#define WAIT_HELD_NS 1000000L    /* outputs are held for at most this while answers keep coming */
#define WAIT_HELD_ENTRIES 64
#define WAIT_TAILS 16            /* tails that a wait looks after at a time */
#define WAIT_AGAIN (-600L)       /* something moved: look again */

struct deadline {
    int64_t at; /* program's monotonic time in ns; INT64_MAX: never */
};

/* The deadline `ns` from now; negative: never. */
struct deadline wait_until(int64_t ns);

/* What remains in ns: 0 when passed, -1 for never. */
int64_t wait_left(const struct deadline *);

/* The remaining time as a timespec for the kernel; NULL for never. */
struct timespec *wait_timespec(const struct deadline *, struct timespec *);

/* A time limit of a call in ns: -1 for NULL, -EINVAL when it is none. */
int64_t wait_ns(const struct timespec *);

/* There is an answer: returns it, after the outputs left if they were held for long. */
long wait_answer(long result);

/* There is none and the caller does not wait: the held outputs leave, then the result is returned. */
long wait_refused(long result);

/* About to block for `fds`. True: look again, something came while the turn was kept open; false: the turn has ended, by this
 * thread or by another one that took this wait along. */
bool wait_settle(const struct pollfd *fds, unsigned count, const struct deadline *);

/* A call that may have waited, or ended the turn, has taken something from `fd` or put something into it: the next commit looks
 * at it again. Returns the result. */
long wait_accounted(int fd, long result);

/* One blocking kernel wait with the program's signals deliverable; the result or -EINTR. */
long wait_kernel(struct call *);

/* The same for a wait with a time limit, or with descriptors of libken's own; it stands for the call `nr`. WAIT_AGAIN: both may
 * be others now, prepare it anew; this process may be another one, with peers to serve. */
long wait_prepared(struct call *, long nr);

/* Blocks until the descriptor is ready, serving tails meanwhile. 1 ready, 0 too late, or -EINTR when a handler ran and the
 * call `nr` would not be made again after it. */
long wait_ready(int fd, short events, const struct deadline *, long nr);

/* Blocks until some tail has moved. 0, -EAGAIN when it is too late, or -EINTR as above. */
long wait_tails(const struct deadline *, long nr);

struct waiting {
    int fd;
    short events;
    bool nonblocking;
    int64_t timeout_ns; /* 0: none (SO_RCVTIMEO and its like) */
    long (*attempt)(struct call *);
    bool accounts; /* what it takes is written down elsewhere: with several threads only under libken's lock */
    struct call *blocking; /* what to call when nothing but the descriptor is waited for; NULL: poll, then attempt */
};

/* What every wait watches besides its own descriptors: outputs that did not fit, and the peers. At most WAIT_EXTRAS;
 * then wait_serve(): true when frames came that a commit must cover, or the turn now has outputs. */
#define WAIT_EXTRAS (WAIT_TAILS + 2)
bool wait_has_extras(void);
int wait_extras(struct pollfd *);
bool wait_woken(const struct pollfd *extras, int); /* after a wait that ended with something ready; true: look at everything again */
bool wait_serve(void);

/* Who waits for a child serves peers meanwhile: for up to `ms`, or until `fd` (-1: none) is readable, and then looks again. *result is
 * 0 or more, WAIT_AGAIN (end the turn first) or -EINTR. False: nobody can be waiting for us. */
bool wait_beside(int fd, unsigned ms, long nr, long *result);

/* The whole rhythm for one descriptor. */
long wait_rhythm(struct call *, const struct waiting *);

/* The whole rhythm for many descriptors. */
struct watch {
    struct pollfd *fds; /* to be waited for */
    unsigned count;
    struct deadline until;
    bool masked;
    uint64_t mask; /* of signals, for the wait, if `masked` */
    long (*probe)(struct watch *); /* looks without waiting: the answer, -errno, or 0 */
    long (*block)(struct watch *); /* waits and answers by one wait_prepared(), if nothing else is watched; NULL: never so */
};
long wait_watch(struct watch *);

/* The mask that a call carries, if it does (not NULL). 0 or -errno. */
long wait_mask(struct watch *, const void *mask, size_t size);

/* The outputs leave before the call is made: for everything that cannot be held. */
long wait_flushed(struct call *);

/* Ends the turn if the descriptor has outputs that did not leave, and waits until they have. */
void wait_drain(int fd);

/* The same before a close: a socket's tail leaves in the background. */
void wait_close(int fd);

/* Waits for a peer to say something, `ns` at most, and takes it in: 0, or what wait_ready() fails with. An acknowledgement alone
 * may be what makes room, and is nothing that wait_ready() comes back for. */
long wait_peers(int64_t ns, long nr);

/* Polls one descriptor without waiting: its revents, or -errno. */
long wait_peek(int fd, short events);

#endif
