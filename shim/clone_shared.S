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

/* long clone_raw_thread(...): the same for a thread, which calls threads_begin() first. */
    .globl clone_raw_thread
    .hidden clone_raw_thread
    .type clone_raw_thread, @function
clone_raw_thread:
    movl $56, %eax
    movq %rcx, %r10
    syscall
    testq %rax, %rax
    jz 2f
    ret
2:  movq %rsp, %rbx
    andq $-16, %rsp
    xorl %ebp, %ebp
    call threads_begin
    movq %rbx, %rsp
    jmp 1b
    .size clone_raw_thread, . - clone_raw_thread

/* long clone_raw_spawn(...): the same for a process with descriptors of its own, which calls process_spawned() first. */
    .globl clone_raw_spawn
    .hidden clone_raw_spawn
    .type clone_raw_spawn, @function
clone_raw_spawn:
    movl $56, %eax
    movq %rcx, %r10
    syscall
    testq %rax, %rax
    jz 4f
    ret
4:  movq %rsp, %rbx
    andq $-16, %rsp
    xorl %ebp, %ebp
    call process_spawned
    movq %rbx, %rsp
    jmp 1b
    .size clone_raw_spawn, . - clone_raw_spawn

/* long clone_resume(flags, stack, child_tid, tls, peer): the child enters threads_reenter(peer). */
    .globl clone_resume
    .hidden clone_resume
    .type clone_resume, @function
clone_resume:
    pushq %rbx
    movq %r8, %rbx
    movq %rdx, %r10         /* child_tid */
    movq %rcx, %r8          /* tls */
    xorl %edx, %edx
    movl $56, %eax
    syscall
    testq %rax, %rax
    jz 3f
    popq %rbx
    ret
3:  movq %rbx, %rdi
    xorl %ebp, %ebp
    call threads_reenter
    hlt
    .size clone_resume, . - clone_resume

    .section .note.GNU-stack, "", @progbits
