#include "heap/kenctl_unwind.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <ucontext.h>

static struct {
    unw_accessors_t access, original;
    bool interrupted;        /* `registers` count, not the original ones */
    unw_word_t registers[17]; /* by libunwind's numbers */
} walk;

static int access_reg(unw_addr_space_t space, unw_regnum_t number, unw_word_t *value, int write,
                      void *argument)
{
    if (!walk.interrupted)
        return walk.original.access_reg(space, number, value, write, argument);
    if (write || number < 0 || number > UNW_X86_64_RIP)
        return -UNW_EBADREG;
    *value = walk.registers[number];
    return 0;
}

/* Some versions of libunwind take the entry of the function before for code that no table describes. */
static int find_proc_info(unw_addr_space_t space, unw_word_t ip, unw_proc_info_t *info, int need,
                          void *argument)
{
    int result = walk.original.find_proc_info(space, ip, info, need, argument);
    if (result >= 0 && (ip < info->start_ip || ip >= info->end_ip)) {
        if (need)
            walk.original.put_unwind_info(space, info, argument);
        return -UNW_ENOINFO;
    }
    return result;
}

/* A signal handler returns to mov $15, %rax (or %eax); syscall. libunwind steps over that only with the
 * unwind table that glibc has for its own, and its versions differ in which frame they call the signal's. */
static bool is_signal_return(unw_addr_space_t space, void *argument, unw_word_t ip)
{
    static const unsigned char form[] = {0x48, 0xc7, 0xc0, 15, 0, 0, 0, 0x0f, 0x05};
    static const unsigned char short_form[] = {0xb8, 15, 0, 0, 0, 0x0f, 0x05};
    unw_word_t code[2];
    if (walk.original.access_mem(space, ip, &code[0], 0, argument) < 0)
        return false;
    if (memcmp(code, short_form, sizeof short_form) == 0)
        return true;
    return walk.original.access_mem(space, ip + sizeof code[0], &code[1], 0, argument) >= 0 &&
           memcmp(code, form, sizeof form) == 0;
}

/* There the stack pointer is at the kernel's struct ucontext: the walk starts anew with the registers in it.
 * Source: arch/x86/include/asm/sigframe.h, struct rt_sigframe. */
static int enter_interrupted(unw_cursor_t *cursor, unw_addr_space_t space, void *argument,
                             unw_word_t sp)
{
    static const unsigned char number[] = {
        UNW_X86_64_R8,  UNW_X86_64_R9,  UNW_X86_64_R10, UNW_X86_64_R11, UNW_X86_64_R12,
        UNW_X86_64_R13, UNW_X86_64_R14, UNW_X86_64_R15, UNW_X86_64_RDI, UNW_X86_64_RSI,
        UNW_X86_64_RBP, UNW_X86_64_RBX, UNW_X86_64_RDX, UNW_X86_64_RAX, UNW_X86_64_RCX,
        UNW_X86_64_RSP, UNW_X86_64_RIP};
    unw_word_t registers = sp + offsetof(ucontext_t, uc_mcontext);
    for (size_t i = 0; i < sizeof number; i++) {
        int result = walk.original.access_mem(space, registers + i * sizeof sp,
                                              &walk.registers[number[i]], 0, argument);
        if (result < 0)
            return result;
    }
    walk.interrupted = true;
    int result = unw_init_remote(cursor, space, argument);
    return result < 0 ? result : 1;
}

/* Behind the ucontext lies the siginfo. Source: as above; asm-generic/siginfo.h (si_code <= 0: from a process). */
static bool was_sent(unw_addr_space_t space, void *argument, unw_word_t sp)
{
    enum { UCONTEXT_BYTES = 304 };
    unw_word_t word;
    if (walk.original.access_mem(space, sp + UCONTEXT_BYTES + 8, &word, 0, argument) < 0)
        return false;
    return (int32_t)word <= 0;
}

static int walk_frames(struct stack *stack, unw_addr_space_t space, void *argument)
{
    unw_cursor_t cursor;
    int result = unw_init_remote(&cursor, space, argument);
    unw_word_t last_ip = 0, last_sp = 0;
    bool exact = true;
    while (result >= 0 && stack->count < sizeof stack->frames / sizeof *stack->frames) {
        unw_word_t ip = 0, sp = 0;
        if (unw_get_reg(&cursor, UNW_REG_IP, &ip) < 0 || unw_get_reg(&cursor, UNW_REG_SP, &sp) < 0)
            break;
        /* Address 0 is the end, or just below a signal a call of a null pointer. */
        stack->whole = (ip == 0 && !exact) || (stack->count && ip == last_ip && sp == last_sp);
        if (stack->whole)
            break;
        bool signal = is_signal_return(space, argument, ip);
        stack->frames[stack->count++] =
            (struct frame){.ip = ip, .exact = exact || signal, .signal = signal};
        if (signal && !walk.interrupted)
            stack->sent = was_sent(space, argument, sp);
        exact = signal;
        last_ip = ip;
        last_sp = sp;
        result = signal ? enter_interrupted(&cursor, space, argument, sp) : unw_step(&cursor);
        stack->whole = result == 0;
        if (result == 0)
            break;
    }
    return stack->count ? 0 : result;
}

int stack_walk(struct stack *stack, const unw_accessors_t *access, void *argument)
{
    memset(&walk, 0, sizeof walk);
    walk.access = walk.original = *access;
    walk.access.access_reg = access_reg;
    walk.access.find_proc_info = find_proc_info;
    unw_addr_space_t space = unw_create_addr_space(&walk.access, 0);
    if (!space)
        return -UNW_ENOMEM;
    unw_set_caching_policy(space, UNW_CACHE_GLOBAL);
    int result = walk_frames(stack, space, argument);
    unw_destroy_addr_space(space);
    return result;
}

static bool in_libken(const struct frame *frame, const struct objects *objects)
{
    const struct object *object = objects_find(objects, frame->ip);
    return object && strncmp(object->name, "libken.so", strlen("libken.so")) == 0;
}

/* Under a signal that was sent there may be a second layer of libken: raise() made a system call,
 * which libken carried out within its SIGSYS handler. A fault *in* libken keeps its frames. */
size_t stack_below_signal(const struct stack *stack, const struct objects *objects)
{
    size_t first = 0;
    while (first < stack->count && !stack->frames[first].signal)
        first++;
    if (first == stack->count)
        return 0;
    first++;
    if (!stack->sent)
        return first;
    for (size_t i = first; i < stack->count; i++) {
        if (stack->frames[i].signal)
            return i + 1;
        if (!in_libken(&stack->frames[i], objects))
            break;
    }
    return first;
}

/* By way of SIGSYS the program's own frame follows, in libc. By way of the PLT, libken's outermost frame is the
 * function that the program called (recv, poll, ...): that one stays. */
size_t stack_below_libken(const struct stack *stack, const struct objects *objects)
{
    size_t first = 0;
    while (first < stack->count &&
           (stack->frames[first].signal || in_libken(&stack->frames[first], objects)))
        first++;
    if (first == stack->count)
        return 0;
    return first && !stack->frames[first - 1].signal ? first - 1 : first;
}

void stack_print(int fd, const char *prefix, const struct stack *stack, size_t first,
                 const struct objects *objects)
{
    size_t i;
    for (i = first; i < stack->count && i - first < FRAMES_MOST; i++)
        frame_print(fd, prefix, (unsigned)(i - first), &stack->frames[i], objects);
    if (i < stack->count || (!stack->whole && i - first >= FRAMES_MOST))
        dprintf(fd, "%s  (and more)\n", prefix);
}
