/* clock_gettime by way of the vdso, which no net sees: here the clocks get their offset.
 */
#include "heap/vdso.h"
#include "shim/call_cpu.h"
#include "shim/call_time.h"

#include <sys/auxv.h>

#define EXPORT __attribute__((visibility("default")))

typedef int clock_function(clockid_t, struct timespec *);

/* Image, and still right after a restore: the vdso is found at its old address then. */
static clock_function *vdso_clock;
static bool looked;

static void look(void)
{
    uintptr_t vdso = getauxval(AT_SYSINFO_EHDR);
    uintptr_t at = vdso ? vdso_function((const uint8_t *)vdso, "__vdso_clock_gettime") : 0;
    if (at)
        vdso_clock = (clock_function *)(vdso + at);
    looked = true;
}

EXPORT int clock_gettime(clockid_t clock, struct timespec *now)
{
    int64_t add = time_offset_ns(clock);
    if (!looked)
        look();
    /* With an offset, not by the vdso: where it cannot tell the time, as of CPU clocks, it makes a system call of its
     * own, which arrives in the net and gets the offset there. */
    bool direct = add || !vdso_clock || clock < 0 || cpu_is_clock(clock);
    long result = direct ? sys(SYS_clock_gettime, time_kernels_clock(clock), now) : vdso_clock(clock, now);
    if (sys_failed(result)) {
        errno = (int)-result;
        return -1;
    }
    if (add)
        *now = time_spec(time_ns(now) + add);
    return 0;
}
