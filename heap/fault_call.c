/* Libken's own system calls, told to fail. Compiled in with the build option `faults` only.
 *
 * A call is known by its site, FILE#LINE, and by the way that led there: a hash over the return addresses, as
 * far as they lie in libken (built with frame pointers). So the one pwrite of disk.c is many calls, one for each who asks.
 */
#define _GNU_SOURCE
#include "heap/fault.h"
#include "heap/restorer.h"
#include "heap/say.h"
#include "heap/sys.h"

#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>

#define WAY_DEPTH 6
#define SHORT 1 /* in place of an error */

extern const char __ehdr_start[] __attribute__((visibility("hidden")));
extern const char etext[] __attribute__((visibility("hidden")));

/* The frame pointer may be the program's own where assembly stands between: asked of the kernel, not followed. */
static bool peek(uintptr_t at, uintptr_t frame[2])
{
    struct iovec here = {frame, 16}, there = {(void *)at, 16};
    long pid = sys_call6(SYS_getpid, 0, 0, 0, 0, 0, 0);
    return sys_call6(SYS_process_vm_readv, pid, (long)&here, 1, (long)&there, 1, 0) == 16;
}

static uint32_t way_here(uintptr_t at)
{
    uint32_t hash = 2166136261u;
    uintptr_t frame[2];
    for (int depth = 0; depth < WAY_DEPTH && peek(at, frame); depth++) {
        uintptr_t offset = frame[1] - (uintptr_t)__ehdr_start;
        if (offset >= (uintptr_t)(etext - __ehdr_start))
            break;
        hash = (hash ^ (uint32_t)offset) * 16777619u;
        if (frame[0] <= at)
            break;
        at = frame[0];
    }
    return (hash >> 8 ^ hash) & 0xffffff;
}

/* Where one system call is many, the argument that says which, or the kind of file. */
static long command_of(long nr, long a, long b, long c)
{
    struct stat s;
    switch (nr) {
    case SYS_read:
    case SYS_readv:
    case SYS_write:
    case SYS_writev:
        return sys_call6(SYS_fstat, a, (long)&s, 0, 0, 0, 0) ? 0 : s.st_mode >> 12;
    case SYS_fcntl:
    case SYS_ioctl:
    case SYS_futex:
    case SYS_epoll_ctl:
    case SYS_open: /* its flags */
        return b;
    case SYS_prctl:
    case SYS_arch_prctl:
        return a;
    case SYS_madvise:
    case SYS_openat: /* its flags */
        return c;
    default:
        return 0;
    }
}

static void append(const char *path, const char *line, size_t bytes)
{
    long fd = sys_call6(SYS_open, (long)path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666, 0, 0, 0);
    if (sys_failed(fd))
        return;
    sys_call6(SYS_write, fd, (long)line, (long)bytes, 0, 0, 0);
    sys_call6(SYS_close, fd, 0, 0, 0, 0, 0);
}

static const struct {
    const char *name;
    long number;
} calls[] = {
    {"openat", SYS_openat}, {"open", SYS_open}, {"read", SYS_read}, {"pread64", SYS_pread64}, {"pwrite64", SYS_pwrite64},
    {"pwritev", SYS_pwritev}, {"pwritev2", SYS_pwritev2}, {"fsync", SYS_fsync}, {"fdatasync", SYS_fdatasync},
    {"ftruncate", SYS_ftruncate}, {"fallocate", SYS_fallocate}, {"renameat", SYS_renameat}, {"renameat2", SYS_renameat2},
    {"unlinkat", SYS_unlinkat}, {"linkat", SYS_linkat}, {"mkdirat", SYS_mkdirat}, {"mmap", SYS_mmap},
    {"munmap", SYS_munmap}, {"mprotect", SYS_mprotect}, {"madvise", SYS_madvise}, {"ioctl", SYS_ioctl}, {"fstat", SYS_fstat},
    {"fcntl", SYS_fcntl}, {"userfaultfd", SYS_userfaultfd}, {"sendfile", SYS_sendfile}, {"sendmmsg", SYS_sendmmsg},
    {"splice", SYS_splice}, {"write", SYS_write}, {"sendto", SYS_sendto}, {"memfd_create", SYS_memfd_create},
    {"dup3", SYS_dup3}, {"socket", SYS_socket}, {"bind", SYS_bind}, {"listen", SYS_listen}, {"getrandom", SYS_getrandom},
    {"clock_gettime", SYS_clock_gettime}, {"rt_sigaction", SYS_rt_sigaction}, {"rt_sigprocmask", SYS_rt_sigprocmask},
    {"newfstatat", SYS_newfstatat}, {"getdents64", SYS_getdents64}, {"utimensat", SYS_utimensat}, {"lseek", SYS_lseek},
    {"getcwd", SYS_getcwd}, {"prctl", SYS_prctl}, {"poll", SYS_poll},
};

/* Wherever the build is: room/file.c#line. */
static const char *plain(const char *site)
{
    const char *room = site;
    for (const char *at = site, *last = site; (at = strchr(at, '/')); last = ++at)
        room = last;
    return room;
}

static void note(const struct fault *f, const char *site, uint32_t way, long nr, long command, const char *verdict)
{
    char line[128];
    append(f->calls_log, line, say_format(line, sizeof line, "%s@%x %ld %ld%s\n", plain(site), way, nr, command, verdict));
}

void fault_read_call(struct fault *f, const char *text)
{
    size_t n = strcspn(text, "@:");
    if (n < sizeof f->call_site)
        memcpy(f->call_site, text, n);
    text += n;
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
        if (!strcmp(calls[i].name, f->call_site))
            f->call = calls[i].number;
    f->call_way = ~0u;
    if (*text == '@') {
        f->call_way = 0;
        for (text++; *text && *text != ':'; text++)
            f->call_way = f->call_way * 16 + (uint32_t)(*text - (*text >= 'a' ? 'a' - 10 : '0'));
    }
    text += *text == ':';
    f->call_first = fault_number_at(&text);
    text = fault_word(f->call_name, sizeof f->call_name, text + (*text == ':'));
    f->call_error = strcmp(f->call_name, "SHORT") ? 0 : SHORT;
    for (int error = 1; !f->call_error && error < 134; error++)
        if (!strcmp(say_error(error), f->call_name))
            f->call_error = -error;
    f->call_count = *text ? fault_number_at(&text) : 1;
    /* A test that asks for what does not exist must not pass. */
    if ((f->call < 0 && !strchr(f->call_site, '#')) || !f->call_error || !f->call_first)
        sys_call6(SYS_exit_group, 71, 0, 0, 0, 0, 0);
}

static bool is_due(struct fault *f)
{
    uint32_t now = __atomic_add_fetch(&f->calls, 1, __ATOMIC_RELAXED);
    return now >= f->call_first && now - f->call_first < f->call_count;
}

/* 0: the call is made; else what it is to answer instead. */
static long decide(const char *site, uintptr_t frame, long nr, long command)
{
    struct fault *f = fault_state();
    if (!f->ready || (!f->call_site[0] && !f->calls_log[0]) || (f->only && f->only != (uintptr_t)__builtin_thread_pointer()))
        return 0;
    bool is_asked = f->call_site[0] && (f->call == nr || !strcmp(f->call_site, plain(site)));
    if (f->call_site[0] && !is_asked)
        return 0;
    uint32_t way = way_here(frame);
    if (!is_asked)
        note(f, site, way, nr, command, "");
    else if ((f->call_way == ~0u || f->call_way == way) && is_due(f)) {
        if (f->calls_log[0] && f->call_error != SHORT)
            note(f, site, way, nr, command, " failed");
        return f->call_error;
    }
    return 0;
}

static bool is_stream(long fd)
{
    int kind = 0, size = sizeof kind;
    return !sys_call6(SYS_getsockopt, fd, SOL_SOCKET, SO_TYPE, (long)&kind, (long)&size, 0) && kind == SOCK_STREAM;
}

/* A part that the kernel could have taken: whole blocks, where there are several. */
static size_t part_of(size_t bytes)
{
    size_t half = bytes / 2;
    return half >= PAGE_BYTES ? PAGE_DOWN(half) : half;
}

static long vector_short(long nr, long a, const struct iovec *v, long count, long d, long e, long f)
{
    struct iovec one = *v;
    if (count < 2)
        one.iov_len = part_of(one.iov_len);
    return one.iov_len ? sys_call6(nr, a, (long)&one, 1, d, e, f) : 0;
}

/* Makes the call with a part of what it was asked for; 0 where that is no fair answer. */
static long take_part(long nr, long a, long b, long c, long d, long e, long f)
{
    struct msghdr part;
    struct iovec one;
    switch (nr) {
    case SYS_read:
    case SYS_pread64:
    case SYS_write:
    case SYS_pwrite64:
        return c > 1 ? sys_call6(nr, a, b, (long)part_of((size_t)c), d, e, f) : 0;
    case SYS_getrandom:
        return b > 1 ? sys_call6(nr, a, b / 2, c, 0, 0, 0) : 0;
    case SYS_sendto:
    case SYS_recvfrom:
        return c > 1 && is_stream(a) ? sys_call6(nr, a, b, (long)part_of((size_t)c), d, e, f) : 0;
    case SYS_writev:
    case SYS_readv:
    case SYS_pwritev:
    case SYS_pwritev2:
        return vector_short(nr, a, (const struct iovec *)b, c, d, e, f);
    case SYS_sendmsg:
    case SYS_recvmsg:
        part = *(const struct msghdr *)b;
        if (!is_stream(a) || !part.msg_iovlen)
            return 0;
        one = part.msg_iov[0];
        if (part.msg_iovlen == 1)
            one.iov_len = part_of(one.iov_len);
        part.msg_iov = &one;
        part.msg_iovlen = 1;
        return one.iov_len ? sys_call6(nr, a, (long)&part, c, 0, 0, 0) : 0;
    case SYS_sendmmsg:
        return c > 1 ? sys_call6(nr, a, b, c / 2, d, 0, 0) : 0;
    case SYS_sendfile:
        return d > 1 ? sys_call6(nr, a, b, c, d / 2, 0, 0) : 0;
    case SYS_copy_file_range:
    case SYS_splice:
        return e > 1 ? sys_call6(nr, a, b, c, d, e / 2, f) : 0;
    case SYS_tee:
        return c > 1 ? sys_call6(nr, a, b, c / 2, d, 0, 0) : 0;
    default:
        return 0;
    }
}

__attribute__((noinline)) long fault_call(const char *site, long nr, long a, long b, long c, long d, long e, long f)
{
    struct fault *s = fault_state();
    uintptr_t frame = (uintptr_t)__builtin_frame_address(0);
    bool looks = s->call_site[0] || s->calls_log[0];
    long instead = looks ? decide(site, frame, nr, command_of(nr, a, b, c)) : 0;
    if (instead == SHORT) {
        long r = take_part(nr, a, b, c, d, e, f);
        if (r && s->calls_log[0])
            note(s, site, way_here(frame), nr, 0, " short");
        if (r)
            return r;
        instead = 0;
    }
    if (instead && nr != SYS_close)
        return instead;
    long r = sys_call6(nr, a, b, c, d, e, f); /* a close that fails has closed */
    return instead ? instead : r;
}

__attribute__((noinline)) long fault_instead(const char *site, long nr)
{
    long instead = decide(site, (uintptr_t)__builtin_frame_address(0), nr, 0);
    return instead == SHORT ? 0 : instead;
}

/* --- the restorer's: it cannot call out, so it is told beforehand, and asked afterwards ------------------------ */

#define RESTORER_SITE "heap/restorer.c#"

void fault_plan(struct plan *plan)
{
    struct fault *f = fault_state();
    size_t n = strlen(RESTORER_SITE);
    f->plan = plan;
    if (strncmp(f->call_site, RESTORER_SITE, n) != 0 || f->call_error == SHORT)
        return;
    const char *digits = f->call_site + n;
    plan->fail_line = fault_number_at(&digits);
    plan->fail_first = f->call_first;
    plan->fail_count = f->call_count;
    plan->fail_error = f->call_error;
    if (f->calls_log[0])
        note(f, f->call_site, 0, 0, 0, " failed"); /* there is nobody left to say so when it does */
}

void fault_plan_done(void)
{
    struct fault *f = fault_state();
    const struct plan *plan = f->plan;
    if (!plan || f->call_site[0] || !f->calls_log[0])
        return;
    for (uint32_t i = 0; i < plan->seen_count; i++) {
        char site[64];
        say_format(site, sizeof site, RESTORER_SITE "%u", plan->seen[i].line);
        for (uint32_t n = 0; n < plan->seen[i].calls; n++)
            note(f, site, 0, (long)plan->seen[i].nr, 0, "");
    }
}
