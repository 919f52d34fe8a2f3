/* See restorer.h. Compiled into its own section, which restore.c copies. The compiler must not call out of
 * it: built with -ffreestanding -fno-tree-loop-distribute-patterns, everything static and inlined. */
#include "heap/restorer.h"
#include "heap/sys.h"

#include <asm/prctl.h>
#include <linux/prctl.h>
#include <sys/mman.h>

#define BLOB __attribute__((section("ken_restorer")))
#define INLINE static inline __attribute__((always_inline))
#define RSEQ_UNREGISTER 1
#define MEMORY_MAP_BYTES 104
#define USER_END 0x7ffffffff000UL

#ifdef KEN_FAULTS
INLINE long planned_call(struct plan *plan, uint32_t line, long nr, long a, long b, long c, long d, long e, long f)
{
    uint32_t i = 0;
    while (i < plan->seen_count && plan->seen[i].line != line)
        i++;
    if (i < sizeof plan->seen / sizeof *plan->seen) {
        plan->seen_count = i < plan->seen_count ? plan->seen_count : i + 1;
        plan->seen[i].line = line;
        plan->seen[i].nr = (uint32_t)nr;
        plan->seen[i].calls++;
    }
    if (line == plan->fail_line && ++plan->fail_calls >= plan->fail_first &&
        plan->fail_calls - plan->fail_first < plan->fail_count)
        return plan->fail_error;
    return sys_call6(nr, a, b, c, d, e, f);
}
#endif

/* Writes the plan's message with the number in it and ends the process; the store is untouched. */
INLINE _Noreturn void fail(struct plan *plan, uint32_t where)
{
    for (uint32_t at = plan->failure_digits; where; where /= 10)
        plan->failure[--at] = (char)('0' + where % 10);
    sys(SYS_write, 2, plan->failure, plan->failure_bytes);
    for (;;)
        sys(SYS_exit_group, 75); /* as say_die_of(): it is memory that was not there */
}

#ifdef KEN_FAULTS
INLINE void reached(struct plan *plan, enum restorer_point point)
{
    if (plan->die_at == point)
        sys(SYS_kill, sys(SYS_getpid), 9);
}
#else
#define reached(plan, point) ((void)0)
#endif

INLINE void move_out(struct plan *plan)
{
    for (uint32_t i = 0; i < plan->move_count; i++) {
        const struct move *m = &plan->moves[i];
        long r = sys(SYS_mremap, m->from, m->bytes, m->bytes, MREMAP_MAYMOVE | MREMAP_FIXED, m->staging);
        if (sys_failed(r))
            fail(plan, 90000 + i);
    }
}

INLINE void move_in(struct plan *plan)
{
    for (uint32_t i = 0; i < plan->move_count; i++) {
        const struct move *m = &plan->moves[i];
        if (m->to == m->staging)
            continue;
        long r = sys(SYS_mremap, m->staging, m->bytes, m->bytes, MREMAP_MAYMOVE | MREMAP_FIXED, m->to);
        if (sys_failed(r))
            fail(plan, 91000 + i);
    }
}

INLINE void take_step(struct plan *plan, const struct step *step, uint32_t number)
{
    if (step->kind == STEP_MAP) {
        long r = sys(SYS_mmap, step->address, step->bytes, step->prot, step->flags | MAP_FIXED, step->fd,
                     step->offset);
        if (sys_failed(r))
            fail(plan, number);
    } else if (step->kind == STEP_PROTECT) {
        if (sys_failed(sys(SYS_mprotect, step->address, step->bytes, step->prot)))
            fail(plan, number);
    } else if (step->kind == STEP_COPY) {
        void *to = (void *)step->address;
        const void *from = (const void *)step->offset;
        uint64_t bytes = step->bytes;
        __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes) : : "memory");
    } else {
        for (uint64_t done = 0; done < step->bytes;) {
            long n = sys(SYS_pread64, step->fd, step->address + done, step->bytes - done, step->offset + done);
            if (n <= 0)
                fail(plan, number);
            done += (uint64_t)n;
        }
    }
}

BLOB _Noreturn void restorer_main(struct plan *plan)
{
    reached(plan, RESTORER_ENTERED);
    /* Or the kernel writes into memory that is gone, at the next preemption. */
    if (plan->old_rseq)
        sys(SYS_rseq, plan->old_rseq, plan->rseq_bytes, RSEQ_UNREGISTER, plan->rseq_signature);
    sys(SYS_set_robust_list, 0, plan->robust_list_bytes);
    move_out(plan);
    sys(SYS_munmap, PAGE_BYTES * 16, plan->window_start - PAGE_BYTES * 16);
    sys(SYS_munmap, plan->window_end, USER_END - plan->window_end);
    reached(plan, RESTORER_UNMAPPED);
    for (uint32_t i = 0; i < plan->step_count; i++) {
        if (i == plan->step_count / 2)
            reached(plan, RESTORER_MAPPING);
        take_step(plan, &plan->steps[i], i);
    }
    reached(plan, RESTORER_MAPPED);
    move_in(plan);
    sys(SYS_arch_prctl, ARCH_SET_FS, plan->fs_base);
    sys(SYS_arch_prctl, ARCH_SET_GS, plan->gs_base);
    sys(SYS_set_tid_address, plan->clear_child_tid);
    sys(SYS_set_robust_list, plan->robust_list, plan->robust_list_bytes);
    if (plan->new_rseq)
        sys(SYS_rseq, plan->new_rseq, plan->rseq_bytes, 0, plan->rseq_signature);
    reached(plan, RESTORER_DRESSED);
    /* Cosmetic: what /proc shows as the program's arguments and heap. Needs no privilege where the kernel
     * has CONFIG_CHECKPOINT_RESTORE; refused elsewhere, which does no harm: libken answers brk itself. */
    sys(SYS_prctl, PR_SET_MM, PR_SET_MM_MAP, plan->memory_map, MEMORY_MAP_BYTES, 0);
    __asm__ volatile("movq %0, %%rdi\n\t"
                     "ldmxcsr 64(%%rdi)\n\t"
                     "fldcw 68(%%rdi)\n\t"
                     "movq 0(%%rdi), %%rbx\n\t"
                     "movq 8(%%rdi), %%rbp\n\t"
                     "movq 16(%%rdi), %%r12\n\t"
                     "movq 24(%%rdi), %%r13\n\t"
                     "movq 32(%%rdi), %%r14\n\t"
                     "movq 40(%%rdi), %%r15\n\t"
                     "movq 48(%%rdi), %%rsp\n\t"
                     "movl $1, %%eax\n\t"
                     "jmpq *56(%%rdi)"
                     :
                     : "r"(&plan->context)
                     : "memory");
    __builtin_unreachable();
}
