/* The pool, on the sanitizer's allocator: each block is watched by itself. */
#include "net/bulk.h"
#include "net/host.h"
#include "net/pool.h"

#include <stdlib.h>
#include <string.h>

void *pool_take(size_t bytes)
{
    return malloc(bytes);
}

void *pool_copy(const void *from, size_t bytes)
{
    void *at = malloc(bytes);
    return at ? memcpy(at, from, bytes) : NULL;
}

void pool_give(void *at)
{
    free(at);
}

void session_will_write(const void *at, size_t bytes)
{
    (void)at;
    (void)bytes;
}

/* Each long frame by itself as well. */
void *bulk_take(void)
{
    return NULL;
}

bool bulk_write(void *at, size_t bytes)
{
    (void)at;
    (void)bytes;
    return true;
}

void bulk_give(void *block)
{
    (void)block;
}

void bulk_recall(void)
{
}

bool bulk_holds(const void *at)
{
    (void)at;
    return false;
}
