/* The machine that ends a turn. Its order, told once:
 *
 *   1. capture     the other threads stop; descriptors, signals, timers, limits write what the kernel knows into memory
 *   2. commit      memory and context become durable, with one write
 *   3. release     the outputs of the turn leave, in order
 *   4. apply       the image file follows the log
 *
 * A crash before 2 is done: the turn never happened, and nobody saw anything of it.
 * A crash after it: the next incarnation comes back out of commit(), makes the kernel's side again, and
 * goes on with 3.
 */
#include "shim/turn.h"
#include "heap/commit.h"
#include "heap/fault.h"
#include "heap/say.h"
#include "net/fdtable.h"
#include "net/outbox.h"
#include "net/peers.h"
#include "shim/boot.h"
#include "shim/call_limits.h"
#include "shim/call_signal.h"
#include "shim/call_time.h"
#include "shim/children.h"
#include "shim/config.h"
#include "shim/heir.h"
#include "shim/thread.h"
#include "shim/threads.h"

#include <time.h>

#define SHARE_NS 5000000L  /* turns without outputs share a commit for so long */
#define QUIET_NS 50000000L /* without outputs and without waiting, a turn lasts for about so long */

static enum run_state state = RUN_RUNNING;
static bool resumed;

uint64_t turn_number(void)
{
    return session ? session->image.meta->turn : 0;
}

bool turn_resumed(void)
{
    if (!resumed)
        return false; /* not written: a dirty page less in each turn */
    resumed = false;
    return true;
}

int64_t turn_grace_ns(void)
{
    if (!outbox_held())
        return peers_heavy() ? 0 : SHARE_NS;
    return threads_alone() ? 0 : TURN_GROUP_NS;
}

bool turn_overdue(void)
{
    struct thread_quiet *quiet = &thread_self()->quiet;
    if (++quiet->calls % 16)
        return false;
    int64_t now = sys_clock_ns(CLOCK_MONOTONIC);
    if (quiet->turn == turn_number() && now >= quiet->since_ns)
        return now - quiet->since_ns > QUIET_NS;
    quiet->turn = turn_number();
    quiet->since_ns = now;
    return false;
}

static void capture(void)
{
    outbox_compact();
    if (fd_shares() && !children_any())
        fd_alone();
    FAULT("turn.begin");
    fd_capture();
    session->image.meta->highest_fd = (uint32_t)(fd_highest > 0 ? fd_highest : 0);
    FAULT("turn.descriptors");
    signal_capture();
    FAULT("turn.signals");
    limits_capture();
    time_capture();
    FAULT("turn.captured");
}

/* Memory was copied: others, and signals, may change it again. */
static void copied(void)
{
    threads_go();
    signal_captured();
}

static void commit_and_release(enum run_state to)
{
    threads_stop();
    chaos_at(&session->chaos, CHAOS_ENDED, turn_number() + 1);
    capture();
    threads_capture(session->image.meta);
    FAULT("turn.stopped");
    if (MUTANT("turn.released_before_commit", to != RUN_FINISHED, false))
        outbox_release();
    if (commit(session, to, copied) == COMMIT_RESUMED) {
        boot_resumed();
        resumed = true;
    }
    FAULT("turn.committed");
    peers_committed();
    if (to != RUN_FINISHED)
        outbox_release();
    FAULT("turn.released");
    chaos_at(&session->chaos, CHAOS_RELEASED, turn_number());
    commit_apply(session);
    FAULT("turn.applied");
    chaos_at(&session->chaos, CHAOS_APPLIED, turn_number());
}

void turn_end(enum turn_reason reason)
{
    if (!session || call_passive)
        return;
    if (heir_concerned && !heir_turn(reason))
        return;
    if (reason == TURN_EXIT)
        state = RUN_EXITING;
    commit_and_release(state);
    if (heir_concerned)
        heir_turned();
}

/* What the peers do not have stays in the store. The image knows of the file before there is one. */
static void leave_to_next_run(void)
{
    if (peers_leaves())
        turn_end(TURN_EXIT);
    FAULT("exit.leaving");
    int r = peers_leave(config_linger_ms());
    if (r < 0)
        say_die_of(r, "cannot keep what peers did not take in %s (%s); start the same command again", session->store.path,
                   say_error(r));
    FAULT("exit.left");
}

void turn_finish(int status)
{
    session->image.meta->exit_status = status;
    peers_farewell();
    turn_end(TURN_EXIT);
    FAULT("exit.released");
    outbox_drain(); /* what full descriptors did not take yet */
    FAULT("exit.drained");
    for (long until = 0; peers_linger(&until, config_linger_ms());)
        if (peers_owe())
            turn_end(TURN_EXIT);
    leave_to_next_run();
    /* In a later incarnation as well: the status of the first one, which is in the image. */
    session->image.meta->exit_status = status;
    commit_and_release(MUTANT("exit.not_finished", RUN_EXITING, RUN_FINISHED));
    FAULT("exit.finished");
    log_sync(&session->log);
    FAULT("exit.synced");
    transport_farewell();
}

void turn_go_on(void)
{
    state = RUN_RUNNING;
    turn_end(TURN_FLUSH);
}
