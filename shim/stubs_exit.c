/* The end of the process, for programs and kernels where Syscall User Dispatch sees nothing. */
#include "shim/call.h"

#include <stdlib.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

EXPORT _Noreturn void _exit(int status)
{
    for (;;) {
        struct call c = {.nr = SYS_exit_group, .arg = {status}};
        call_dispatch(&c);
    }
}

EXPORT _Noreturn void _Exit(int status)
{
    _exit(status);
}
