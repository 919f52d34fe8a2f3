/* long signal_block_enter(long nr, const long arg[6], int *inside, const int *queued)
 *
 * Lowers *inside to 0 and enters the kernel, unless something was queued. From signal_block_begin up
 * to signal_block_syscall nothing has been done yet (or the kernel wants the call made again): a
 * wrapper that ran a handler there sends us to signal_block_ran. Source of the idea: musl's syscall_cp. */
    .text
    .globl signal_block_enter
    .hidden signal_block_enter
    .type signal_block_enter, @function
signal_block_enter:
    movq %rdi, %rax
    movq %rdx, %r11
    movq 0(%rsi), %rdi
    movq 16(%rsi), %rdx
    movq 24(%rsi), %r10
    movq 32(%rsi), %r8
    movq 40(%rsi), %r9
    movq 8(%rsi), %rsi
    .globl signal_block_begin
    .hidden signal_block_begin
signal_block_begin:
    movl $0, (%r11)
    cmpl $0, (%rcx)
    jne 1f
    .globl signal_block_syscall
    .hidden signal_block_syscall
signal_block_syscall:
    syscall
    ret
1:
    .globl signal_block_ran
    .hidden signal_block_ran
signal_block_ran:
    movq $-602, %rax
    ret
    .size signal_block_enter, . - signal_block_enter

/* bool fault_copy(void *to, const void *from, size_t bytes)
 *
 * A fault at fault_copy_begin makes it return false: the string instruction keeps no state outside its
 * registers, so it can be left at any byte. */
    .globl fault_copy
    .hidden fault_copy
    .type fault_copy, @function
fault_copy:
    movq %rdx, %rcx
    .globl fault_copy_begin
    .hidden fault_copy_begin
fault_copy_begin:
    rep movsb
    movl $1, %eax
    ret
    .globl fault_copy_failed
    .hidden fault_copy_failed
fault_copy_failed:
    xorl %eax, %eax
    ret
    .size fault_copy, . - fault_copy

/* The kernel's way back out of each handler; it must lie in libken's text, from which system calls pass. */
    .globl signal_restorer
    .hidden signal_restorer
    .type signal_restorer, @function
    .balign 16
    nop
signal_restorer:
    movl $15, %eax
    syscall
    .size signal_restorer, . - signal_restorer

    .section .note.GNU-stack, "", @progbits
