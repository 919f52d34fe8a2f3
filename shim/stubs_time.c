/* clock_gettime by way of the vdso, which no net sees: here the clocks get their offset.
 */
#include "heap/fault.h"
#include "heap/jump.h"
#include "heap/say.h"
#include "heap/session.h"
#include "heap/vdso.h"
#include "shim/call_cpu.h"
#include "shim/call_time.h"

#include <sys/auxv.h>
#include <sys/mman.h>

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

/* Also in place of the vdso's own, for who calls that without libc: may run on any stack, in any thread. */
static long clock_with_offset(clockid_t clock, struct timespec *now)
{
    int64_t add = time_offset_ns(clock);
    long result = sys(SYS_clock_gettime, time_kernels_clock(clock), now);
    if (!sys_failed(result) && add)
        *now = time_spec(time_ns(now) + add);
    return result;
}

EXPORT int clock_gettime(clockid_t clock, struct timespec *now)
{
    if (!looked)
        look();
    /* With an offset, not by the vdso: where it cannot tell the time, as of CPU clocks, it makes a system call of its
     * own, which arrives in the net and gets the offset there. */
    bool direct = time_offset_ns(clock) || !vdso_clock || clock < 0 || cpu_is_clock(clock);
    long result = direct ? clock_with_offset(clock, now) : vdso_clock(clock, now);
    if (sys_failed(result)) {
        errno = (int)-result;
        return -1;
    }
    return 0;
}

void time_resume_vdso(void)
{
    if (!time_offset_ns(CLOCK_MONOTONIC) || MUTANT("time.vdso_left_alone", true, false))
        return;
    if (!looked)
        look();
    const struct meta *m = session->image.meta;
    if (!vdso_clock || !m->vdso_pieces)
        return;
    const struct vdso_piece *code = &m->vdso[m->vdso_pieces - 1]; /* the kernel does not split it */
    long r = sys(SYS_mprotect, code->start, code->end - code->start, PROT_READ | PROT_WRITE);
    if (sys_failed(r)) {
        say("the clock of a program that reads the vdso by itself goes back, to that of this boot (%s)", say_error(r));
        return;
    }
    jump_write((void *)vdso_clock, (uintptr_t)clock_with_offset);
    sys(SYS_mprotect, code->start, code->end - code->start, PROT_READ | PROT_EXEC);
}
