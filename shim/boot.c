#include "shim/boot.h"
#include "heap/commit.h"
#include "heap/disk.h"
#include "heap/fault.h"
#include "heap/moved.h"
#include "heap/proc.h"
#include "heap/region.h"
#include "heap/restore.h"
#include "heap/room.h"
#include "heap/say.h"
#include "heap/window.h"
#include "net/address_resolve.h"
#include "net/fdtable.h"
#include "net/peers.h"
#include "net/remote.h"
#include "net/unsent.h"
#include "shim/call_limits.h"
#include "shim/call_memory.h"
#include "shim/call_signal.h"
#include "shim/config.h"
#include "shim/crash.h"
#include "shim/deepbind.h"
#include "shim/heir.h"
#include "shim/identity.h"
#include "shim/process.h"
#include "shim/sigsys.h"
#include "shim/threads.h"

#include <asm/prctl.h>
#include <fcntl.h>
#include <linux/prctl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/rseq.h>
#include <time.h>
#include <unistd.h>

#define LOCK_WAIT_MS 5000
#define RSEQ_BYTES 32
#define LEAST_ROOM 8 /* descriptors above the program's: resuming takes more, but those it can take elsewhere */

static struct config config;
static uint64_t started_ns;

/* A store that cannot be used ends the program before it began: running on without what the operator asked
 * for would lose what he relies on. */
static _Noreturn void refuse(struct store *store, int error)
{
    char line[512];
    store_explain(store, error, line, sizeof line);
    say_die_of(error < 0 ? error : 0, "%s", line);
}

static struct progress *map_progress(const struct store *store)
{
    long fd = disk_open(store->directory_fd, "progress", O_RDWR | O_CREAT, 0600);
    void *page = window_alloc(PAGE_BYTES);
    long at = fd < 0 ? fd : page ? disk_truncate((int)fd, PAGE_BYTES) : -ENOMEM;
    if (at >= 0) /* on a full disk a write to a hole would be a SIGBUS */
        at = disk_allocate((int)fd, 0, PAGE_BYTES);
    if (at >= 0)
        at = sys(SYS_mmap, page, PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);
    if (sys_failed(at)) /* without it an output may leave twice */
        say_die_of(at, "cannot map progress in the store %s (%s)", store->path, say_error(at));
    sys(SYS_close, fd);
    return page;
}

static void find_kenctl(struct session *s)
{
    if (config.kenctl)
        say_format(s->kenctl, sizeof s->kenctl, "%s", config.kenctl);
    else
        identity_find_kenctl(s->kenctl, sizeof s->kenctl, config_library());
    crash_helper(s->kenctl);
}

/* Who is listed, and the key: made anew by each incarnation, and never in an image. */
static struct remote *open_remote(void)
{
    char line[512];
    auth_boot();
    if (!config.peers || !*config.peers)
        return NULL;
    struct remote *r = window_alloc(sizeof *r);
    if (!r)
        say_die_of(-ENOMEM, "out of memory");
    int e = remote_open(r, config.peers, config.key_file, ADDRESS_GETENT, line, sizeof line);
    if (e < 0)
        say_die_of(e, "%s", line);
    return r;
}

static int owned(long fd, const char *name)
{
    if (sys_failed(fd))
        say_die_of(fd, "cannot read /proc/%s (%s); mount /proc", name, say_error(fd));
    long high = disk_high_fd(fd);
    if (sys_failed(high))
        say_die_of(high, "no room for descriptors (%s); raise the limit (ulimit -n)", say_error(high));
    return (int)high;
}

static int open_own(const char *name)
{
    return owned(proc_open(name, O_RDONLY), name);
}

/* The window and the session in it: the same for a fresh run and a resumed one. */
static struct session *open_session(const struct store *store, uint64_t base)
{
    long at = window_open(base);
    struct session *s = sys_failed(at) ? NULL : window_alloc(sizeof *s);
    if (!s)
        say_die_of(sys_failed(at) ? at : -ENOMEM, "cannot reserve the address space at 0x%lx (%s)", base, say_error(at));
    s->store = *store;
    s->error_fd = s->life[0] = s->life[1] = s->chaos.fd = -1;
    fault_move(&s->fault);
    FAULT("boot.window");
    s->patch_vdso = config.patch_vdso;
    s->proc_fd = owned(proc_find(), "");
    proc_use(s->proc_fd);
    int r = tracker_open(&s->tracker, config.tracker);
    if (sys_in_trouble(r))
        say_die_of(r, "cannot track dirty pages: %s", say_error(r));
    if (r < 0)
        say_die("this kernel cannot track dirty pages as asked (%s); unset KEN_TRACKER", say_error(r));
    s->maps_fd = open_own("self/maps");
    s->memory_fd = open_own("self/mem");
    if (areas_open(&s->areas))
        say_die_of(-ENOMEM, "out of memory");
    FAULT("boot.tracker");
    s->progress = map_progress(&s->store);
    find_kenctl(s);
    s->remote = open_remote();
    s->started_ns = started_ns;
    return s;
}

static void open_log(struct session *s)
{
    int r = log_open(&s->log, &s->store, config.sync, s->store.image_fd);
    if (r)
        refuse(&s->store, r);
    s->log.trust_cache = !store_distrusts_cache(&s->store);
    s->loose.image = &s->image;
    s->log.loose = &s->loose;
}

/* Brings the image file up to the log. */
static void recover(struct session *s)
{
    struct image_writer writer = {.fd = s->store.image_fd};
    long bytes = sys(SYS_lseek, writer.fd, 0, SEEK_END);
    long at = bytes > 0 ? sys(SYS_mmap, 0, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, writer.fd, 0) : -EINVAL;
    if (!sys_failed(at)) {
        writer.twin = (uint8_t *)at;
        writer.twin_bytes = (uint64_t)bytes;
    }
    long r = log_recover(&s->log, &writer);
    if (r < 0)
        refuse(&s->store, (int)r);
    if (writer.twin)
        sys(SYS_munmap, at, bytes);
}

static void record_identity(struct session *s)
{
    struct meta *m = s->image.meta;
    sys(SYS_arch_prctl, ARCH_GET_FS, &m->fs_base);
    sys(SYS_arch_prctl, ARCH_GET_GS, &m->gs_base);
    sys(SYS_prctl, PR_GET_TID_ADDRESS, &m->clear_child_tid);
    sys(SYS_get_robust_list, 0, &m->robust_list, &m->robust_list_bytes);
    m->rseq = __rseq_size ? m->fs_base + (uint64_t)__rseq_offset : 0;
    m->rseq_bytes = RSEQ_BYTES;
    m->rseq_signature = RSEQ_SIG;
    identity_memory_map(m);
    identity_program(m->program, sizeof m->program);
}

/* A finished process does not go on, nor one that never came to its first commit. */
static bool goes_on(const struct meta *m)
{
    return m->magic == META_MAGIC && m->turn > 0 && m->state != RUN_FINISHED;
}

/* What a finished run had read is no input of the next one. */
static void forget_input(struct session *s)
{
    s->succeeds = false;
    int r = store_drop_journals(&s->store);
    if (r)
        refuse(&s->store, r);
}

static _Noreturn void refuse_image(const struct session *s)
{
    say_die("the image in %s is damaged: its parts do not fit each other; it was left as it is, --fresh starts over",
            s->store.path);
}

/* Recovers in memory only, where there is reason for doubt: the image file does not stand for itself (the machine went
 * down, or the process while it wrote), or this is not the place to resume it. */
static bool would_go_on(struct session *s)
{
    uint8_t *memory;
    uint64_t bytes;
    long r = log_overlay(&s->log, &memory, &bytes);
    if (r < 0)
        refuse(&s->store, (int)r);
    if (!s->log.sequence)
        return false;
    const struct meta *m = (const struct meta *)memory;
    /* What lies behind the last sync is all in the log; what was synced and is not there any more is lost. */
    long there = sys(SYS_lseek, s->store.image_fd, 0, SEEK_END);
    if (image_examine(memory, bytes) || there < 0 || (uint64_t)there < m->durable_bytes)
        refuse_image(s);
    bool yes = goes_on(m);
    if (m->state == RUN_FINISHED)
        forget_input(s);
    sys(SYS_munmap, memory, bytes);
    return yes;
}

/* Whether the store holds a process that goes on; then the image file is up to date. Before anything is written to the
 * file it is certain that the result is good. */
static bool is_resumable(struct session *s)
{
    char line[512];
    struct meta m = {0};
    s->succeeds = true;
    bool here = identity_matches(&s->store.super, line, sizeof line);
    bool sound = !image_examine_file(s->store.image_fd);
    s->log.trust_cache &= sound;
    if (!here || !sound) {
        if (!would_go_on(s))
            return false;
        if (!here)
            say_die("%s", line);
    }
    FAULT("boot.recover");
    recover(s);
    long n = disk_read(s->store.image_fd, &m, sizeof m, 0);
    if (n < 0) /* not to be taken for a store that holds nothing */
        refuse(&s->store, (int)n);
    if (m.state == RUN_FINISHED)
        forget_input(s);
    return goes_on(&m);
}

static _Noreturn void resume(struct session *s)
{
    FAULT("boot.recovered");
    int r = image_open(&s->image, s->store.image_fd, true);
    if (r == -EBADMSG)
        refuse_image(s);
    if (r)
        say_die_of(r, "cannot open the image in %s (%s)", s->store.path, say_error(r));
    if (verify_open(&s->image, s->store.path))
        say_die_of(-ENOMEM, "out of memory");
    log_use_twin(&s->log, s->image.twin);
    s->log.synced_bytes = s->image.meta->durable_bytes;
    FAULT("boot.image");
    chaos_open(&s->chaos, config.chaos, config.report, s->image.meta->turn);
    chaos_at(&s->chaos, CHAOS_RECOVERED, s->image.meta->turn);
    moved_undo(s->store.kept_fd, s->image.meta->turn);
    s->resumed = true;
    uint64_t all = ~0UL;
    sys(SYS_rt_sigprocmask, SIG_SETMASK, &all, 0, 8);
    struct restore_self self = {0, RSEQ_BYTES, RSEQ_SIG};
    struct rlimit was;
    if (room_raise(&was)) /* limits_resume() lowers it again */
        s->files_limit = was.rlim_cur;
    if (__rseq_size)
        self.rseq = (uint64_t)__builtin_thread_pointer() + (uint64_t)__rseq_offset;
    r = restore(s, &self);
    say_die_of(r, "cannot restore the process of %s (%s); the store is untouched", s->store.path, say_error(r));
}

bool boot_by_plt_only(void)
{
    return config.plt_only;
}

/* Before anything is opened: a number that the saved program has must not become one of libken's. */
static void stay_above(const char *store)
{
    char path[STORE_PATH_BYTES + 8];
    struct meta m = {0};
    say_format(path, sizeof path, "%s/image", store);
    long fd = sys_fd(SYS_open, path, O_RDONLY | O_CLOEXEC, 0);
    if (sys_failed(fd))
        return;
    bool known = sys(SYS_pread64, fd, &m, sizeof m, 0) == (long)sizeof m && m.magic == META_MAGIC;
    sys(SYS_close, fd);
    if (!known)
        return;
    struct rlimit now = {0, RLIM_INFINITY};
    sys(SYS_prlimit64, 0, RLIMIT_NOFILE, NULL, &now);
    if (goes_on(&m) && m.highest_fd + LEAST_ROOM >= now.rlim_max)
        say_die("the process in the store %s has descriptors up to %u, and %lu are allowed here: raise the hard limit "
                "(ulimit -Hn)", store, m.highest_fd, (unsigned long)now.rlim_max);
    disk_stay_above(m.highest_fd, goes_on(&m));
}

/* Whoever gave up root may look at itself only when it is said to be dumpable. */
static void open_tracker(struct session *s)
{
    long dumpable = sys(SYS_prctl, PR_GET_DUMPABLE, 0, 0, 0, 0);
    sys(SYS_prctl, PR_SET_DUMPABLE, 1, 0, 0, 0);
    int r = tracker_open(&s->tracker, config.tracker);
    disk_close(&s->memory_fd); /* the parent's */
    s->memory_fd = open_own("self/mem");
    long maps = s->maps_fd >= 0 ? s->maps_fd : disk_high_fd(proc_open("self/maps", O_RDONLY));
    sys(SYS_prctl, PR_SET_DUMPABLE, dumpable == 1, 0, 0, 0);
    if (r < 0 || sys_failed(maps))
        say_die_of(r < 0 ? r : maps, "cannot track the pages of the daemon (%s)", say_error(r < 0 ? r : maps));
    s->maps_fd = (int)maps;
}

void boot_inherit(void)
{
    struct session *s = session;
    int r = store_lock_pass(&s->store); /* it is free, unless a restart of the parent was faster */
    if (r)
        refuse(&s->store, r);
    fault_apart(false);
    FAULT("heir.locked");
    log_inherit(&s->log);
    /* All that the parent logged is in the page cache. To apply it from the beginning would take the image back to what it was, and a
     * kill in between would leave it there for a restart that trusts it. */
    s->log.trust_cache = !store_distrusts_cache(&s->store);
    recover(s);
    FAULT("heir.recovered");
    if ((r = image_inherit(&s->image, s->log.sequence > 0)))
        say_die_of(r, "cannot set up the image in %s (%s)", s->store.path, say_error(r));
    log_use_twin(&s->log, s->image.twin);
    s->log.synced_bytes = s->image.meta->durable_bytes;
    open_tracker(s);
    tracker_allow_apart(&s->tracker, s->sigsys);
    areas_inherit(s);
    s->apart = false;
}

/* What the last run left for its peers: proved before anything is changed. */
static size_t find_unsent(struct session *s, const void **unsent)
{
    size_t bytes = 0;
    int r = unsent_map(s->store.directory_fd, unsent, &bytes);
    if (r == -EPROTO)
        say_die("%s/unsent was left for peers by another version of libken; start the same command once with that "
                "version, or --fresh", s->store.path);
    if (r < 0) {
        say_format(s->store.fault_path, sizeof s->store.fault_path, "%s", UNSENT_FILE);
        refuse(&s->store, r == -EBADMSG ? STORE_DAMAGED : r);
    }
    return bytes;
}

static void inherit(const void *unsent, size_t bytes)
{
    if (bytes && peers_inherit(unsent) < 0)
        say_die_of(-ENOMEM, "out of memory");
    if (bytes)
        sys(SYS_munmap, unsent, bytes);
}

static void begin(struct session *s, char **argv)
{
    struct store_birth birth = {.window_base = window_base(), .segment_bytes = VARIANT("small.segments", 64 << 10, 0)};
    char command[2048];
    const void *unsent;
    size_t unsent_bytes = MUTANT("unsent.forgotten", 0, find_unsent(s, &unsent));
    FAULT("boot.unsent");
    if (s->succeeds) /* killed before its first commit: all of it is lost */
        moved_undo(s->store.kept_fd, 0);
    identity_birth(&birth, argv, command, sizeof command);
    int r = store_format(&s->store, &birth);
    if (r)
        refuse(&s->store, r);
    FAULT("boot.formatted");
    open_log(s);
    recover(s);
    if (s->progress)
        memset(s->progress, 0, MUTANT("boot.old_progress", 0, PAGE_BYTES)); /* the last run's turns had the same numbers */
    if ((r = image_open(&s->image, s->store.image_fd, false)))
        say_die_of(r, "cannot set up the image in %s (%s)", s->store.path, say_error(r));
    log_use_twin(&s->log, s->image.twin);
    FAULT("boot.fresh_image");
    chaos_open(&s->chaos, config.chaos, config.report, 0);
    deepbind_divert();
    record_identity(s);
    session = s;
    region_on_drop(memory_dropped);
    region_on_grow(memory_grown);
    process_boot();
    memory_boot();
    fd_boot();
    signal_boot();
    limits_boot();
    threads_boot(s->image.meta);
    heir_boot();
    inherit(unsent, unsent_bytes);
    FAULT("boot.ready");
    call_passive = false;
    s->sigsys = !config.plt_only && sigsys_on();
    tracker_allow_apart(&s->tracker, s->sigsys);
    if (!s->sigsys)
        say("no Syscall User Dispatch: only calls that the program itself makes by name are seen; what libc does "
            "inside stdio, getaddrinfo or dlopen is not covered");
}

__attribute__((constructor)) static void boot(int argc, char **argv, char **envp)
{
    struct store store = {0};
    (void)argc;
    started_ns = (uint64_t)sys_clock_ns(CLOCK_MONOTONIC);
    fault_boot(envp);
    FAULT("boot.begin");
    config_find_library();
    config_read(&config, argv, envp);
    config_hide(envp);
    if (config.error)
        say_die("%s", config.error);
    if (config.fresh) {
        int r = store_set_aside(config.store);
        if (r < 0)
            refuse(&store, r);
    }
    stay_above(config.store);
    int r = store_open(&store, config.store, LOCK_WAIT_MS);
    if (r < 0)
        refuse(&store, r);
    struct session *s = open_session(&store, r == STORE_EXISTS ? store.super.window_base : 0);
    if (r == STORE_EXISTS) {
        open_log(s);
        if (is_resumable(s))
            resume(s);
        log_close(&s->log);
    }
    begin(s, argv);
}
