/* What threads.c and threads_resume.c share. */
#ifndef KEN_SHIM_THREADS_INNER_H
#define KEN_SHIM_THREADS_INNER_H

#include "shim/thread.h"
#include "shim/threads.h"

#include <asm/prctl.h>

/* Part of the image. */
extern struct threads {
    struct peer peers[THREADS_MAX];
    uint32_t used;    /* entries ever used */
    uint32_t awake;   /* threads that do not wait in the kernel: they run, or want the lock. Atomic */
    uint32_t go_word; /* changes when all may go on. Atomic */
    long process;     /* its number, to the kernel */
} threads;

static inline struct peer *threads_self(void)
{
    return &threads.peers[thread_self()->peer];
}

/* The struct thread of a thread whose thread pointer is `tls`: static TLS lies at one offset in all of them. */
static inline struct thread *threads_thread(uint64_t tls)
{
    uint64_t mine;
    sys(SYS_arch_prctl, ARCH_GET_FS, &mine);
    return (struct thread *)((uint64_t)thread_self() - mine + tls);
}

#endif
