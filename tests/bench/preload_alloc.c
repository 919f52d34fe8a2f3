/* libkenalloc.so: the allocator alone, to be preloaded by benchmarks and tests. What libken's shim
 * does around fork is done here by pthread_atfork. */
#include "heap/alloc.h"

#include <pthread.h>

__attribute__((constructor)) static void around_fork(void)
{
    pthread_atfork(alloc_fork_prepare, alloc_fork_parent, alloc_fork_child);
}
