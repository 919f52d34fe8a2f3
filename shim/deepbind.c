#define _GNU_SOURCE
#include "shim/deepbind.h"
#include "heap/jump.h"
#include "heap/say.h"
#include "heap/sys.h"

#include <dlfcn.h>
#include <elf.h>
#include <gnu/libc-version.h>
#include <link.h>
#include <malloc.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* Functions begin at multiples of 16, so that the shortest has room for a jump. */
#define ALIGNMENT 16
_Static_assert(sizeof(struct jump) <= ALIGNMENT, "the jump must not reach into the next function");

static const struct {
    const char *name;
    void *ours;
} family[] = {
    {"malloc", malloc},
    {"free", free},
    {"calloc", calloc},
    {"realloc", realloc},
    {"reallocarray", reallocarray},
    {"memalign", memalign},
    {"aligned_alloc", aligned_alloc},
    {"posix_memalign", posix_memalign},
    {"valloc", valloc},
    {"pvalloc", pvalloc},
    {"malloc_usable_size", malloc_usable_size},
};

/* Nothing of libc is called between the two mprotects: its text cannot run then. */
static void divert(void *from, void *to)
{
    uintptr_t page = PAGE_DOWN((uintptr_t)from);
    if ((uintptr_t)from % ALIGNMENT)
        return;
    /* All of them or none: libc's free() must not be handed what our malloc() gave. */
    long r = sys(SYS_mprotect, page, PAGE_BYTES, PROT_READ | PROT_WRITE);
    if (!sys_failed(r)) {
        jump_write(from, (uint64_t)to);
        r = sys(SYS_mprotect, page, PAGE_BYTES, PROT_READ | PROT_EXEC);
    }
    if (sys_failed(r))
        say_die_of(r, "cannot change libc's allocator: %s", say_error(r));
}

/* The GNU hash table of one object, as ld.so has relocated it. */
struct object {
    const Elf64_Sym *symbols;
    const char *names;
    const uint32_t *hash; /* buckets, first symbol, filter words, filter shift; then filter, buckets, chains */
    uintptr_t base;
};

/* Not by dlopen: that would run libc's constructor here, with an empty environment. */
static bool find_libc(struct object *o)
{
    Dl_info info;
    struct link_map *map = NULL;
    if (!dladdr1((void *)gnu_get_libc_version, &info, (void **)&map, RTLD_DL_LINKMAP) || !map)
        return false;
    *o = (struct object){.base = map->l_addr};
    for (const Elf64_Dyn *d = map->l_ld; d->d_tag != DT_NULL; d++) {
        if (d->d_tag == DT_SYMTAB)
            o->symbols = (const Elf64_Sym *)d->d_un.d_ptr;
        else if (d->d_tag == DT_STRTAB)
            o->names = (const char *)d->d_un.d_ptr;
        else if (d->d_tag == DT_GNU_HASH)
            o->hash = (const uint32_t *)d->d_un.d_ptr;
    }
    return o->symbols && o->names && o->hash;
}

static uint32_t hash_of(const char *name)
{
    uint32_t h = 5381;
    for (; *name; name++)
        h = h * 33 + (unsigned char)*name;
    return h;
}

/* dlsym() would find the first malloc that is loaded, which may be another library's. */
static void *find_function(const struct object *o, const char *name)
{
    uint32_t buckets = o->hash[0], first = o->hash[1], wanted = hash_of(name);
    const uint32_t *bucket = o->hash + 4 + o->hash[2] * 2UL, *chain = bucket + buckets;
    uint32_t n = bucket[wanted % buckets];
    for (; n >= first; n++) {
        uint32_t h = chain[n - first];
        if ((h | 1) == (wanted | 1) && !strcmp(o->names + o->symbols[n].st_name, name))
            return (void *)(o->base + o->symbols[n].st_value);
        if (h & 1)
            break;
    }
    return NULL;
}

void deepbind_divert(void)
{
    struct object libc;
    void *theirs[sizeof family / sizeof *family];
    if (!find_libc(&libc))
        return;
    for (unsigned i = 0; i < sizeof family / sizeof *family; i++)
        theirs[i] = find_function(&libc, family[i].name);
    for (unsigned i = 0; i < sizeof family / sizeof *family; i++)
        if (theirs[i] && theirs[i] != family[i].ours)
            divert(theirs[i], family[i].ours);
}
