/* The fast entrance: the exported symbols of interpose.def, each a few lines long.
 *
 * Three names, three layers: `recv` (here), call_recvfrom (the handler), the raw system call. errno is
 * set here, at the edge, and nowhere else.
 */
#include "shim/call.h"

#include <poll.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

/* glibc's headers declare socket addresses as a transparent union of pointers. */
#define POINTER(address) ((address).__sockaddr__)

/* Of glibc: prints "*** buffer overflow detected ***" and aborts. */
_Noreturn void __chk_fail(void);

static long edge(long result)
{
    if (sys_failed(result)) {
        errno = (int)-result;
        return -1;
    }
    return result;
}

#define ARGUMENTS(...) ARGUMENTS_(__VA_ARGS__, 0, 0, 0, 0, 0, 0)
#define ARGUMENTS_(a, b, c, d, e, f, ...)                                                          \
    {                                                                                              \
        SYS_ARG(a), SYS_ARG(b), SYS_ARG(c), SYS_ARG(d), SYS_ARG(e), SYS_ARG(f)                     \
    }

#define CALL(type, name, number, parameters, ...)                                                  \
    EXPORT type name parameters                                                                    \
    {                                                                                              \
        struct call c = {.nr = number, .arg = ARGUMENTS(__VA_ARGS__)};                             \
        return (type)edge(call_dispatch(&c));                                                      \
    }
#define CHECKED(type, name, number, parameters, bytes, room, ...)                                  \
    EXPORT type name parameters;                                                                   \
    EXPORT type name parameters                                                                    \
    {                                                                                              \
        if ((bytes) > (room))                                                                      \
            __chk_fail();                                                                          \
        struct call c = {.nr = number, .arg = ARGUMENTS(__VA_ARGS__)};                             \
        return (type)edge(call_dispatch(&c));                                                      \
    }
#define TWIN(twin, name) extern EXPORT __typeof__(name) twin __attribute__((alias(#name)));
#define OWN(name)
#include "shim/interpose.def"
