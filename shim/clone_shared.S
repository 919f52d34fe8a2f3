/* long clone_raw(flags, stack, parent_tid, child_tid, tls): `stack` points at 13 saved registers,
 * in the order they are popped below, the instruction pointer last. */
    .text
    .globl clone_raw
    .hidden clone_raw
    .type clone_raw, @function
clone_raw:
    movl $56, %eax          /* SYS_clone */
    movq %rcx, %r10
    syscall
    testq %rax, %rax
    jz 1f
    ret
1:  popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %r10
    popq %r9
    popq %r8
    popq %rdi
    popq %rsi
    popq %rbp
    popq %rbx
    popq %rdx
    xorl %eax, %eax
    ret
    .size clone_raw, . - clone_raw

    .section .note.GNU-stack, "", @progbits
