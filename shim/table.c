/* The one table from system call to handler. Both entrances end here. */
#include "shim/altstack.h"
#include "shim/call.h"
#include "shim/call_cpu.h"
#include "shim/call_memory.h"
#include "shim/call_net.h"
#include "shim/call_process.h"
#include "shim/call_signal.h"
#include "shim/call_time.h"
#include "shim/credentials.h"
#include "shim/heir.h"
#include "shim/process.h"
#include "shim/thread.h"
#include "shim/threads.h"

bool call_passive = true;

#define TABLE_SIZE 512

static call_handler *const table[TABLE_SIZE] = {
#define TAKE(number, handler) [number] = handler,
#include "shim/call_memory.def"
#include "shim/call_net.def"
#include "shim/call_process.def"
#include "shim/call_signal.def"
#undef TAKE
};

long call_dispatch(struct call *c)
{
    call_handler *handler = (unsigned long)c->nr < TABLE_SIZE ? table[c->nr] : NULL;
    if (!handler || call_passive)
        return call_raw(c);
    struct thread *self = thread_self();
    if (self->inside++ == 0)
        threads_lock();
    long result = heir_candidate && heir_settle(c) ? call_raw(c) : handler(c);
    if (self->inside == 1)
        threads_unlock();
    if (--self->inside == 0 && signal_waiting())
        signal_leave(c);
    return result;
}
