/* A system call on its way through libken.
 *
 * Both entrances (a PLT stub, the SIGSYS net) fill a struct call and hand it to call_dispatch(),
 * which looks its number up in the one table (table.c). A handler has one rhythm: prepare, act
 * (sys_call6), account, return the result or -errno. A call without a handler goes to the kernel as is.
 */
#ifndef KEN_SHIM_CALL_H
#define KEN_SHIM_CALL_H

#include "heap/sys.h"

#include <ucontext.h>

struct call {
    long nr;
    long arg[6];
    ucontext_t *frame; /* the signal frame it arrived in, NULL when it came through the PLT */
};

typedef long call_handler(struct call *);

/* Runs the handler, or the raw system call where there is none or libken is passive. */
long call_dispatch(struct call *);

/* The kernel's answer to the call as it stands. */
static inline long call_raw(const struct call *c)
{
    return sys_call6(c->nr, c->arg[0], c->arg[1], c->arg[2], c->arg[3], c->arg[4], c->arg[5]);
}

/* In a process that libken does not protect (a child of fork, a program without a store) every call
 * is passed on as it is. Set once, never cleared. */
extern bool call_passive;

#endif
