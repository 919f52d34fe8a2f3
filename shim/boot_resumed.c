/* Behind the restorer: the process goes on, and the kernel's side of it is made again. */
#include "heap/commit.h"
#include "heap/disk.h"
#include "heap/fault.h"
#include "heap/proc.h"
#include "heap/region.h"
#include "heap/restore.h"
#include "heap/say.h"
#include "net/bulk.h"
#include "net/fdtable.h"
#include "net/outbox.h"
#include "net/pool.h"
#include "net/terminal.h"
#include "shim/boot.h"
#include "shim/call_limits.h"
#include "shim/call_signal.h"
#include "shim/call_time.h"
#include "shim/crash.h"
#include "shim/credentials.h"
#include "shim/heir.h"
#include "shim/process.h"
#include "shim/sigsys.h"
#include "shim/threads.h"

#include <fcntl.h>
#include <signal.h>
#include <time.h>

/* For kenrun --chaos: the turn, and how many microseconds it took. */
static void report(const struct session *s)
{
    char line[64];
    if (s->chaos.fd < 0)
        return;
    size_t length = say_format(line, sizeof line, "%lu %lu\n", s->image.meta->turn,
                               ((uint64_t)sys_clock_ns(CLOCK_MONOTONIC) - s->started_ns) / 1000);
    chaos_tell(&s->chaos, line, length);
}

/* What the kernel's side is made again from, and what leaves before there is another commit: libken's own memory, the
 * outputs that are held among it. */
static void verify_own(struct session *s)
{
    extern const char bss_start[] __asm__("__bss_start") __attribute__((visibility("hidden")));
    extern const char bss_end[] __asm__("_end") __attribute__((visibility("hidden")));
    uintptr_t start, end;
    verify_range(&s->image, PAGE_DOWN((uintptr_t)bss_start), PAGE_UP((uintptr_t)bss_end));
    pool_span(&start, &end);
    verify_range(&s->image, start, end);
    bulk_span(&start, &end);
    verify_range(&s->image, start, end);
    start = (uintptr_t)outbox.large;
    verify_range(&s->image, start, PAGE_UP(start + outbox.large_used));
}

void boot_resumed(void)
{
    struct session *s = session;
    const struct meta *m = s->image.meta;
    FAULT("resume.begin");
    proc_use(s->proc_fd);
    heir_boot();
    disk_stay_above(m->highest_fd, false); /* the program's numbers are not taken yet */
    s->error_fd = (int)disk_high_fd(sys(SYS_fcntl, 2, F_DUPFD_CLOEXEC, m->highest_fd + 1));
    verify_own(s);
    tracker_allow_apart(&s->tracker, !boot_by_plt_only());
    areas_resume(s);
    restore_done(s);
    log_attach_after_restore(&s->log);
    FAULT("resume.log");
    region_set_file_backed();
    crash_helper(s->kenctl);
    FAULT("resume.process");
    process_resume();
    s->sigsys = !boot_by_plt_only() && sigsys_on();
    tracker_allow_apart(&s->tracker, s->sigsys);
    FAULT("resume.net");
    fault_only_mine(true);
    threads_resume();
    FAULT("resume.threads");
    time_resume(); /* timers may name threads */
    time_resume_vdso();
    FAULT("resume.time");
    int r = fd_reopen();
    if (r) /* without it the program would take its loss for the truth, and that would be committed */
        say_die_of(r, "cannot go on from %s (%s); the store is as it was, start the same command again", s->store.path,
                   say_error(r));
    fault_only_mine(false);
    FAULT("resume.descriptors");
    chaos_at(&s->chaos, CHAOS_RESUMING, m->turn);
    limits_resume(s->files_limit); /* a low limit on descriptors comes last */
    credentials_resume();
    FAULT("resume.limits");
    signal_resume();
    if (terminal_reopened())
        sys(SYS_kill, sys(SYS_getpid), SIGWINCH); /* programs draw their screen again for it */
    FAULT("resume.signals");
    threads_go();
    uint64_t age = ((uint64_t)sys_clock_ns(CLOCK_REALTIME) - m->committed_ns) / 1000000;
    say_to(s->error_fd >= 0 ? s->error_fd : 2); /* a daemon's own leads nowhere */
    say("%s resumed from %s: turn %lu, committed %lu.%lu%lu%lu s ago", m->program, s->store.path, m->turn,
        age / 1000, age / 100 % 10, age / 10 % 10, age % 10);
    say_to(2);
    disk_close(&s->error_fd);
    report(s);
    FAULT("resume.done");
}
