/* Syncing the image in the background, so that segments can be used again.
 *
 * One fsync at a time goes through io_uring; its completion is read from shared memory at the next commit.
 * The default kind of ring is meant: its worker posts completions itself, where a ring with deferred task
 * work would interrupt the program's own blocking calls. A failing fsync is final: the kernel has marked
 * the pages clean, so only the log still has them, and only a restart reads it.
 */
#include "heap/disk.h"
#include "heap/fault.h"
#include "heap/log_inner.h"
#include "heap/loose.h"

#include <string.h>

static bool ring_open(struct log *log)
{
    struct log_ring *ring = &log->ring;
    if (ring->mapped || ring->refused)
        return ring->mapped;
    if (FAULT_CALL(SYS_io_uring_setup, io_uring_queue_init(2, &ring->uring, 0))) {
        ring->refused = true;
        return false;
    }
    ring->fd = (int)disk_high_fd(ring->uring.ring_fd);
    ring->uring.ring_fd = ring->uring.enter_ring_fd = ring->fd;
    io_uring_ring_dontfork(&ring->uring);
    ring->mapped = true;
    return true;
}

static bool ring_submit(struct log *log)
{
    struct io_uring_sqe *sqe = ring_open(log) ? io_uring_get_sqe(&log->ring.uring) : NULL;
    if (!sqe)
        return false;
    io_uring_prep_fsync(sqe, log->image_fd, 0);
    if (FAULT_CALL(SYS_io_uring_enter, io_uring_submit(&log->ring.uring)) == 1)
        return true;
    /* The entry may still be queued: a new ring is the clean way on, should it ever be needed. */
    io_uring_queue_exit(&log->ring.uring);
    log->ring.mapped = false;
    log->ring.refused = true;
    return false;
}

static void finish(struct log *log, int result)
{
    if (result < 0) {
        store_distrust_cache(log->store);
        disk_die("syncing the image of", log->store->path, result);
    }
    FAULT("sync.end");
    log->synced = log->sync_target;
    log->synced_bytes = log->sync_bytes;
    log->sync_target = 0;
}

static void sync_foreground(struct log *log)
{
    long r;
    while ((r = sys(SYS_fsync, log->image_fd)) == -EINTR)
        ;
    finish(log, (int)r);
}

/* A completion of a kind that is no answer about the disk. */
static bool is_no_answer(int result)
{
    return result == -EINTR || result == -ECANCELED || result == -EAGAIN || result == -ENOMEM;
}

static void settle(struct log *log, bool all)
{
    if (log->loose)
        MUTANT("loose.never_settled", (void)0, loose_settle(log->loose, log, all));
    log->owed = 0;
    if (all)
        log->owed_next = 0;
}

void log_sync_start(struct log *log, uint64_t sequence)
{
    if (log->sync_target || log->synced >= sequence)
        return;
    bool all = sequence == log->applied;
    MUTANT("loose.settled_late", (void)0, settle(log, all));
    int64_t size = disk_size(log->image_fd);
    log->sync_target = sequence;
    log->sync_bytes = size > 0 ? (uint64_t)size : 0;
    FAULT("sync.start");
    if (MUTANT("sync.left_out", true, log->sync == SYNC_PROCESS)) {
        finish(log, 0);
        return;
    }
    long asked = disk_ask(DISK_SYNC, log->image_fd, NULL, NULL, 0, 0);
    if (asked < 0)
        finish(log, (int)asked);
    else if (!ring_submit(log))
        sync_foreground(log);
    MUTANT("loose.settled_late", settle(log, all), (void)0);
}

static void reap(struct log *log, struct io_uring_cqe *cqe)
{
    int result = (int)FAULT_CALL(SYS_fsync, cqe->res);
    io_uring_cqe_seen(&log->ring.uring, cqe);
    if (is_no_answer(result))
        sync_foreground(log);
    else
        finish(log, result);
}

void log_sync_poll(struct log *log)
{
    struct io_uring_cqe *cqe = NULL;
    if (log->sync_target && !io_uring_peek_cqe(&log->ring.uring, &cqe))
        reap(log, cqe);
}

static void wait_running(struct log *log)
{
    struct io_uring_cqe *cqe = NULL;
    while (log->sync_target) {
        int r = (int)FAULT_CALL(SYS_io_uring_enter, io_uring_wait_cqe(&log->ring.uring, &cqe));
        if (!r)
            reap(log, cqe);
        else if (r != -EINTR && r != -EAGAIN)
            sync_foreground(log);
    }
}

void log_sync_wait(struct log *log, uint64_t sequence)
{
    wait_running(log);
    while (log->synced < sequence && log->synced < log->applied) {
        log_sync_start(log, log->applied);
        wait_running(log);
    }
}

void log_sync(struct log *log)
{
    log_sync_wait(log, log->applied);
}

void log_attach_after_restore(struct log *log)
{
    if (log->ring.mapped)
        sys(SYS_close, log->ring.fd);
    memset(&log->ring, 0, sizeof log->ring);
    log->sync_target = 0;
}

void log_close(struct log *log)
{
    if (log->ring.mapped)
        io_uring_queue_exit(&log->ring.uring);
    memset(&log->ring, 0, sizeof log->ring);
    log->sync_target = 0;
    log->ready = false;
    for (unsigned n = 0; n < 2; n++) {
        disk_close(&log->segment[n].direct_fd);
        disk_close(&log->segment[n].buffered_fd);
    }
}
