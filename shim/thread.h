/* What libken knows about one thread of the program: one struct, reached without a call.
 *
 * It lies in the thread's static TLS, so it is part of the image. A fresh one is all zero.
 */
#ifndef KEN_SHIM_THREAD_H
#define KEN_SHIM_THREAD_H

#include "shim/signal_state.h"

/* For turn_overdue(): how long the thread has not ended a turn. Here, because each turn dirties this page anyway. */
struct thread_quiet {
    uint32_t calls;
    uint64_t turn;
    int64_t since_ns;
};

/* For call_wait.c: whether to look for company before a commit has been worth it. */
struct thread_company {
    uint16_t rests, expected;
};

struct thread {
    /* Above 0 while a handler of libken runs: the program's signal handlers are put off. Written by
     * call_dispatch() and by signal_block(), which lowers it to 0 for the wait. */
    int inside;
    struct thread_quiet quiet;
    struct thread_company company;
    struct signal_thread signals;
    char name[16];  /* PR_SET_NAME; "": never set */
    uint32_t peer;  /* its place in the list of threads (threads.c) */
    bool locked;    /* holds libken's lock */
    unsigned stops; /* how often it was stopped for another thread's commit */
};

extern __thread struct thread thread_this __attribute__((tls_model("initial-exec")));

static inline struct thread *thread_self(void)
{
    return &thread_this;
}

#endif
