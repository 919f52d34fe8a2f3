#include "shim/call_process.h"
#include "heap/alloc.h"
#include "heap/say.h"
#include "heap/session.h"
#include "net/fdtable.h"
#include "net/outbox.h"
#include "net/peers.h"
#include "net/pidfd.h"
#include "net/stream.h"
#include "shim/call_memory.h"
#include "shim/call_limits.h"
#include "shim/call_signal.h"
#include "shim/children.h"
#include "shim/config.h"
#include "shim/futex_owner.h"
#include "shim/heir.h"
#include "shim/process.h"
#include "shim/threads.h"
#include "shim/turn.h"

#include <sched.h>
#include <signal.h>
#include <string.h>

long clone_raw(unsigned long flags, void *stack, long parent_tid, long child_tid, long tls);
long clone_raw_thread(unsigned long flags, void *stack, long parent_tid, long child_tid, long tls);
long clone_raw_spawn(unsigned long flags, void *stack, long parent_tid, long child_tid, long tls);

/* Puts the frame's registers on top of the child's stack. */
static void *push_registers(unsigned long stack, const ucontext_t *frame)
{
    static const int order[] = {REG_R15, REG_R14, REG_R13, REG_R12, REG_R10, REG_R9, REG_R8,
                                REG_RDI, REG_RSI, REG_RBP, REG_RBX, REG_RDX, REG_RIP};
    enum { COUNT = sizeof order / sizeof *order };
    greg_t *saved = (greg_t *)stack - COUNT;
    for (unsigned i = 0; i < COUNT; i++)
        saved[i] = frame->uc_mcontext.gregs[order[i]];
    return saved;
}

long clone_shared(unsigned long flags, unsigned long stack, long parent_tid, long child_tid, long tls,
                  const ucontext_t *frame)
{
    return clone_raw(flags, push_registers(stack, frame), parent_tid, child_tid, tls);
}

long clone_thread(unsigned long flags, unsigned long stack, long parent_tid, long child_tid, long tls,
                  const ucontext_t *frame)
{
    return clone_raw_thread(flags, push_registers(stack, frame), parent_tid, child_tid, tls);
}

void process_spawned(void);
void process_spawned(void)
{
    stream_spawned();
    limits_give_back();
}

/* posix_spawn(): the child borrows the memory while its parent waits, and is another program soon. It takes the connections
 * that it is lent into its own descriptors, and changes nothing else. */
static long clone_spawn(struct call *c, unsigned long flags, unsigned long stack)
{
    stream_lend();
    long pid = clone_raw_spawn(flags, push_registers(stack, c->frame), c->arg[2], c->arg[3], c->arg[4]);
    stream_lent(pid > 0);
    return pid;
}

/* What the parent emitted before must not come out behind what the child emits, and nobody looks at what that makes of the
 * memory. */
static void before_child(void)
{
    verify_all(&session->image);
    if (outbox_held() || peers_spoke())
        turn_end(TURN_FLUSH);
}

static bool is_plain_fork(unsigned long flags)
{
    return !(flags & ~(0xffUL | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID | CLONE_PARENT_SETTID));
}

/* With CLONE_PIDFD the third argument is where that is put. */
static long after_child(const struct call *c, unsigned long flags, long pid)
{
    if (pid > 0) {
        children_add(pid);
        fd_forked();
    }
    if (pid > 0 && (flags & CLONE_PIDFD)) {
        int fd = *(const int *)c->arg[2];
        pidfd_learn(fd, fd_enter(fd, FD_PIDFD, O_RDWR | O_CLOEXEC), pid);
    }
    return pid;
}

/* A child with a copy of the memory: it may return through the handler. */
static long fork_copy(struct call *c, unsigned long flags, unsigned long stack)
{
    before_child();
    long unshared = flags & CLONE_VFORK ? 0 : memory_unshare();
    if (unshared < 0)
        return unshared;
    bool followed = !stack && is_plain_fork(flags) && heir_before_fork();
    bool lends = !heir_candidate; /* what a candidate has was lent to it */
    if (lends)
        stream_lend();
    alloc_fork_prepare();
    long pid = sys(SYS_clone, flags, 0, c->arg[2], c->arg[3], c->arg[4]);
    if (pid != 0) {
        alloc_fork_parent();
        if (followed)
            heir_after_fork(pid);
        if (lends)
            stream_lent(pid > 0);
        return after_child(c, flags, pid);
    }
    call_passive = !followed;
    if (!followed)
        limits_give_back();
    alloc_fork_child();
    transport_forked();
    if (lends)
        stream_forked();
    signal_forked();
    if (followed)
        heir_begin();
    else
        heir_not();
    if (stack && c->frame)
        c->frame->uc_mcontext.gregs[REG_RSP] = (greg_t)stack;
    return 0;
}

long call_fork(struct call *c)
{
    struct call plain = {.frame = c->frame};
    return fork_copy(&plain, SIGCHLD, 0);
}

/* The child of a vfork borrows its parent's stack, in which the parent's handler now sits: so it gets a copy of
 * the memory instead, and the parent waits all the same. */
long call_vfork(struct call *c)
{
    struct call plain = {.frame = c->frame};
    return fork_copy(&plain, CLONE_VFORK | SIGCHLD, 0);
}

long call_clone(struct call *c)
{
    unsigned long flags = (unsigned long)c->arg[0], stack = (unsigned long)c->arg[1];
    if ((flags & CLONE_THREAD) && c->frame && stack)
        return call_clone_thread(c);
    if (!(flags & CLONE_VM) || !c->frame || !stack)
        return fork_copy(c, flags & ~(unsigned long)CLONE_VM, stack);
    before_child();
    if ((flags & CLONE_VFORK) && !(flags & CLONE_FILES))
        return after_child(c, flags, clone_spawn(c, flags, stack));
    return after_child(c, flags, clone_shared(flags, stack, c->arg[2], c->arg[3], c->arg[4], c->frame));
}

/* glibc and others fall back to clone(2). */
long call_clone3(struct call *c)
{
    (void)c;
    return -ENOSYS;
}

static bool has_prefix(const char *text, const char *prefix)
{
    return !strncmp(text, prefix, strlen(prefix));
}

#define ENVIRONMENT_MAX 4096

/* The environment for the new program: libken first in LD_PRELOAD, the store of this one. */
static char **protected_environment(char **from)
{
    static char *list[ENVIRONMENT_MAX + 3];
    static char preload[4096], store[STORE_PATH_BYTES + 16];
    unsigned count = 0;
    say_format(preload, sizeof preload, "LD_PRELOAD=%s", config_library());
    say_format(store, sizeof store, "KEN_STORE=%s", session->store.path);
    for (; from && *from && count < ENVIRONMENT_MAX; from++) {
        if (has_prefix(*from, "LD_PRELOAD="))
            say_format(preload, sizeof preload, "LD_PRELOAD=%s:%s", config_library(), *from + 11);
        else if (!has_prefix(*from, "KEN_STORE=") && !has_prefix(*from, "KEN_FRESH="))
            list[count++] = *from;
    }
    list[count++] = preload;
    list[count++] = store;
    list[count] = NULL;
    return list;
}

/* The store is marked finished first: what this program was is over when the new one begins. If the new one cannot be
 * started, the next commit says that this one runs. */
long call_execve(struct call *c)
{
    struct call with = *c;
    if (heir_concerned)
        heir_decline();
    if (call_passive)
        return call_raw(c);
    long *environment = &with.arg[c->nr == SYS_execveat ? 3 : 2];
    *environment = (long)protected_environment((char **)*environment);
    turn_finish(0);
    signal_settle();
    limits_give_back();
    long r = call_raw(&with);
    limits_take_back();
    turn_go_on();
    return r;
}

long call_setsid(struct call *c)
{
    long r = call_raw(c);
    if (!sys_failed(r))
        heir_leads();
    return r;
}

long call_exit(struct call *c)
{
    if (c->nr == SYS_exit) {
        if (outbox_held())
            turn_end(TURN_FLUSH); /* the other threads may wait for long */
        owner_exits();
        threads_exit(c->arg[0]);
    }
    heir_exit((int)c->arg[0]);
    if (children_daemon() || heir_went_on())
        say("the program went on as a daemon, in a child, which is not protected: run it in the foreground");
    turn_finish((int)c->arg[0]);
    return sys(SYS_exit_group, session->image.meta->exit_status);
}
