/* Raw system calls, made from libken's own text.
 *
 * libken never enters the kernel through libc: libc may be mid-update, and Syscall User
 * Dispatch lets only calls from libken's text pass. Every function returns the result or
 * -errno and leaves errno alone. Thread-safe and async-signal-safe.
 * Source: the x86-64 system call convention, System V ABI AMD64, appendix A.2.
 */
#ifndef KEN_HEAP_SYS_H
#define KEN_HEAP_SYS_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>

static inline long sys_call6(long nr, long a, long b, long c, long d, long e, long f)
{
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

/* In a build for the tests of faults a call can be told to fail (heap/fault.h). The restorer, which calls nothing,
 * has its own way for that. */
#if defined KEN_FAULTS && !defined KEN_RESTORER
long fault_call(const char *site, long nr, long a, long b, long c, long d, long e, long f);
#define SYS_TEXT(x) #x
#define SYS_LINE(x) SYS_TEXT(x)
#define SYS_SITE __FILE__ "#" SYS_LINE(__LINE__)
#define sys_own(...) fault_call(SYS_SITE, __VA_ARGS__)
#elif defined KEN_FAULTS
#define sys_own(...) planned_call(plan, __LINE__, __VA_ARGS__)
#else
#define sys_own sys_call6
#endif

/* sys(SYS_close, fd): up to six arguments, integers or pointers. */
#define SYS_ARG(x) ((long)(x))
#define SYS_PICK(_1, _2, _3, _4, _5, _6, _7, name, ...) name
#define sys(...) SYS_PICK(__VA_ARGS__, SYS6, SYS5, SYS4, SYS3, SYS2, SYS1, SYS0, 0)(__VA_ARGS__)
#define SYS0(n) sys_own(n, 0, 0, 0, 0, 0, 0)
#define SYS1(n, a) sys_own(n, SYS_ARG(a), 0, 0, 0, 0, 0)
#define SYS2(n, a, b) sys_own(n, SYS_ARG(a), SYS_ARG(b), 0, 0, 0, 0)
#define SYS3(n, a, b, c) sys_own(n, SYS_ARG(a), SYS_ARG(b), SYS_ARG(c), 0, 0, 0)
#define SYS4(n, a, b, c, d) sys_own(n, SYS_ARG(a), SYS_ARG(b), SYS_ARG(c), SYS_ARG(d), 0, 0)
#define SYS5(n, a, b, c, d, e)                                                                     \
    sys_own(n, SYS_ARG(a), SYS_ARG(b), SYS_ARG(c), SYS_ARG(d), SYS_ARG(e), 0)
#define SYS6(n, a, b, c, d, e, f)                                                                  \
    sys_own(n, SYS_ARG(a), SYS_ARG(b), SYS_ARG(c), SYS_ARG(d), SYS_ARG(e), SYS_ARG(f))

/* True for the kernel's error results, which are -4095..-1. */
static inline bool sys_failed(long result)
{
    return (unsigned long)result > -4096UL;
}

/* True for what a machine in trouble answers: no memory, no descriptors, no room, a disk that fails, an interruption. It says
 * nothing about the thing that was asked for, and may be over in a moment. */
static inline bool sys_in_trouble(long result)
{
    return result == -ENOMEM || result == -ENOBUFS || result == -EMFILE || result == -ENFILE || result == -ENOLCK ||
           result == -EIO || result == -ENOSPC || result == -EDQUOT || result == -EINTR;
}

#ifndef KEN_RESTORER
/* What the kernel's clock shows, in nanoseconds. */
static inline int64_t sys_clock_ns(long clock)
{
    struct timespec now = {0, 0};
    sys(SYS_clock_gettime, clock, &now);
    return now.tv_sec * 1000000000L + now.tv_nsec;
}

/* Fills it with random bytes, all of it: a store's identity that were half zeros might be another's. */
static inline void sys_random(void *to, size_t bytes)
{
    for (size_t done = 0; done < bytes;) {
        long n = sys(SYS_getrandom, (char *)to + done, bytes - done, 0);
        done += n > 0 ? (size_t)n : 0;
    }
}
#endif

#define PAGE_BYTES 4096UL
#define PAGE_DOWN(x) ((x) & ~(PAGE_BYTES - 1))
#define PAGE_UP(x) (((x) + PAGE_BYTES - 1) & ~(PAGE_BYTES - 1))

#endif
