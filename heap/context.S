/* Offsets of struct context: rbx 0, rbp 8, r12 16, r13 24, r14 32, r15 40, rsp 48, rip 56, mxcsr 64, x87 68. */
    .text
    .globl context_save
    .hidden context_save
    .type context_save, @function
context_save:
    movq %rbx, 0(%rdi)
    movq %rbp, 8(%rdi)
    movq %r12, 16(%rdi)
    movq %r13, 24(%rdi)
    movq %r14, 32(%rdi)
    movq %r15, 40(%rdi)
    leaq 8(%rsp), %rax
    movq %rax, 48(%rdi)
    movq (%rsp), %rax
    movq %rax, 56(%rdi)
    stmxcsr 64(%rdi)
    fnstcw 68(%rdi)
    xorl %eax, %eax
    ret
    .size context_save, . - context_save

    .globl context_resume
    .hidden context_resume
    .type context_resume, @function
context_resume:
    ldmxcsr 64(%rdi)
    fldcw 68(%rdi)
    movq 0(%rdi), %rbx
    movq 8(%rdi), %rbp
    movq 16(%rdi), %r12
    movq 24(%rdi), %r13
    movq 32(%rdi), %r14
    movq 40(%rdi), %r15
    movq 48(%rdi), %rsp
    movl $1, %eax
    jmpq *56(%rdi)
    .size context_resume, . - context_resume

    .section .note.GNU-stack, "", @progbits
