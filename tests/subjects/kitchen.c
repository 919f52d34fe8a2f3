/* Uses all kinds of memory that a C program can have, and after each command checks all of it.
 *
 * It waits for commands deep in a recursion, with locals on every frame, an alloca'ed block, a jmp_buf
 * and a big array on the stack. Commands: what the table at the end names, with a number as argument.
 * The answer is the checksum of everything; `check` also compares every block with its pattern. */
#define _GNU_SOURCE
#include "service.h"

#include <alloca.h>
#include <ctype.h>
#include <dlfcn.h>
#include <locale.h>
#include <setjmp.h>
#include <sys/mman.h>
#include <time.h>

#define ARENAS 16
#define BLOCKS 64

static unsigned long global = 0x1234, table[5000];
static const char *const words[] = {"zero", "one", "two", "three"};
static __thread unsigned long local_to_thread = 77;
static __thread char thread_text[3000];
static char bss[300000];
static unsigned long *big_stack; /* points into a frame of main() */

static struct arena {
    unsigned char *at;
    size_t bytes, sealed; /* the first `sealed` bytes are read-only */
    unsigned char fill;
} arenas[ARENAS];

static struct block {
    unsigned char *at;
    size_t bytes;
    unsigned char fill;
} blocks[BLOCKS];

static char *growing;
static size_t grown;

static void *library;
static double (*library_cos)(double);
static double angles;

static jmp_buf out_of_here;
static int jumps, handled;

typedef unsigned long operation(unsigned long, unsigned long);
static unsigned long add(unsigned long a, unsigned long b) { return a + b; }
static unsigned long mix(unsigned long a, unsigned long b) { return a * 6364136223846793005UL + b; }
static operation *operate = add;

static unsigned long sum(unsigned long seed, const void *data, size_t bytes)
{
    for (const unsigned char *p = data; bytes--; p++)
        seed = (seed ^ *p) * 1099511628211UL;
    return seed;
}

static void check_pattern(const char *what, const unsigned char *at, size_t bytes, unsigned char fill)
{
    for (size_t i = 0; i < bytes; i++)
        if (at[i] != (unsigned char)(fill + i / 512))
            errx(3, "%s: byte %zu of %zu is %d", what, i, bytes, at[i]);
}

static void fill_pattern(unsigned char *at, size_t bytes, unsigned char fill)
{
    for (size_t i = 0; i < bytes; i++)
        at[i] = fill + i / 512;
}

static unsigned long everything(const unsigned long *frame_sums, unsigned long depth)
{
    unsigned long s = sum(14695981039346656037UL, &global, sizeof global);
    s = sum(s, table, sizeof table);
    s = sum(s, &local_to_thread, sizeof local_to_thread);
    s = sum(s, thread_text, sizeof thread_text);
    s = sum(s, bss, sizeof bss);
    s = sum(s, big_stack, 20000 * sizeof *big_stack);
    for (int i = 0; i < ARENAS; i++) {
        check_pattern("arena", arenas[i].at, arenas[i].bytes, arenas[i].fill);
        s = sum(s, arenas[i].at, arenas[i].bytes);
    }
    for (int i = 0; i < BLOCKS; i++) {
        check_pattern("block", blocks[i].at, blocks[i].bytes, blocks[i].fill);
        s = sum(s, blocks[i].at, blocks[i].bytes);
    }
    s = sum(s, growing, grown);
    s = sum(s, &angles, sizeof angles);
    return sum(s, frame_sums, depth * sizeof *frame_sums) + jumps + handled + (operate == mix);
}

/* --- commands ------------------------------------------------------------------------------------ */

static void do_global(unsigned long n)
{
    global = operate(global, n);
    table[n % 5000] += global;
    local_to_thread ^= global + n;
    snprintf(thread_text + n % 2900, 90, "%s %lu", words[n % 4], n);
    bss[n * 7919 % sizeof bss]++;
    big_stack[n * 31 % 20000] += n;
}

static void do_switch(unsigned long n)
{
    operate = n % 2 ? add : mix;
}

static void do_arena(unsigned long n)
{
    struct arena *a = &arenas[n % ARENAS];
    size_t bytes = (n % 20 + 1) * 4096;
    if (a->sealed && mprotect(a->at, a->sealed, PROT_READ | PROT_WRITE))
        err(1, "mprotect");
    a->sealed = 0;
    if (!a->at) {
        a->at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    } else if (n % 5 == 0) {
        munmap(a->at, a->bytes);
        memset(a, 0, sizeof *a);
        return;
    } else {
        a->at = mremap(a->at, a->bytes, bytes, MREMAP_MAYMOVE);
    }
    if (a->at == MAP_FAILED)
        err(1, "mmap");
    a->bytes = bytes;
    a->fill = n;
    fill_pattern(a->at, bytes, n);
    if (n % 3 == 0) {
        a->sealed = bytes / 2 & ~4095UL;
        if (a->sealed && mprotect(a->at, a->sealed, PROT_READ))
            err(1, "mprotect");
    }
}

/* Pages that are closed as soon as they were written, as compilers at run time and some allocators do. */
static void do_vault(unsigned long n)
{
    enum { BYTES = 8 * 4096 };
    static unsigned char *vault;
    static unsigned char fill;
    if (!vault)
        vault = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    else if (mprotect(vault, BYTES, PROT_READ | PROT_WRITE))
        err(1, "mprotect");
    else
        check_pattern("vault", vault, BYTES, fill);
    fill_pattern(vault, BYTES, fill = (unsigned char)n);
    global += vault[n % BYTES];
    mprotect(vault, BYTES / 2, PROT_NONE);
    mprotect(vault + BYTES / 2, BYTES / 2, n % 2 ? PROT_NONE : PROT_EXEC);
}

static void do_hole(unsigned long n) /* pages given back read as zero */
{
    struct arena *a = &arenas[n % ARENAS];
    if (!a->at || a->sealed)
        return;
    madvise(a->at, a->bytes, MADV_DONTNEED);
    for (size_t i = 0; i < a->bytes; i++)
        if (a->at[i])
            errx(3, "byte %zu of a page that was given back is %d", i, a->at[i]);
    fill_pattern(a->at, a->bytes, a->fill = n);
}

static void do_block(unsigned long n)
{
    struct block *b = &blocks[n % BLOCKS];
    free(b->at);
    b->bytes = n * n % 20000;
    switch (n % 3) {
    case 0: b->at = malloc(b->bytes + 1); break;
    case 1: b->at = aligned_alloc(256, (b->bytes + 256) & ~255UL); break;
    default:
        b->at = calloc(1, b->bytes + 1);
        for (size_t i = 0; i < b->bytes; i++)
            if (b->at[i])
                errx(3, "calloc: byte %zu is %d", i, b->at[i]);
    }
    fill_pattern(b->at, b->bytes, b->fill = n);
}

static void do_grow(unsigned long n)
{
    size_t more = n % 5000, limit = 2 << 20;
    if (grown + more > limit)
        grown = 0;
    growing = realloc(growing, grown + more + 1);
    memset(growing + grown, (int)n, more);
    grown += more;
}

static void do_library(unsigned long n)
{
    if (!library) {
        library = dlopen("libm.so.6", RTLD_NOW);
        if (!library || !(library_cos = (double (*)(double))dlsym(library, "cos")))
            errx(1, "%s", dlerror());
    }
    angles += library_cos(n);
    if (n % 7 == 0) {
        dlclose(library);
        library = NULL;
    }
}

static int compare(const void *a, const void *b)
{
    unsigned long x = *(const unsigned long *)a, y = *(const unsigned long *)b;
    return (operate(x, 5) > operate(y, 5)) - (operate(x, 5) < operate(y, 5));
}

static void do_sort(unsigned long n)
{
    qsort(table + n % 4000, 1000, sizeof *table, compare);
}

static void do_jump(unsigned long n)
{
    char *text = alloca(n % 10000 + 1);
    memset(text, 'j', n % 10000);
    if (n % 2)
        longjmp(out_of_here, (int)(n % 10000) + 1);
    jumps += text[n % 10000 / 2] == 'j';
}

static __attribute__((noinline)) unsigned long descend(unsigned long levels)
{
    volatile unsigned char frame[4096];
    frame[levels % 4096] = (unsigned char)levels;
    return (levels ? descend(levels - 1) : 0) + frame[levels % 4096];
}

static void do_stack(unsigned long n) /* the stack grows to up to 4 MB */
{
    global += descend(n % 1000);
}

static void do_misc(unsigned long n)
{
    time_t when = n;
    struct tm *tm = gmtime(&when);
    char text[64];
    setlocale(LC_ALL, n % 2 ? "C" : "C.UTF-8");
    strftime(text, sizeof text, "%A %c", tm);
    global += sum(1, text, strlen(text)) + (toupper('a' + (int)(n % 26)) & 0xff);
    srandom(n);
    table[random() % 5000] += random();
    handled += strtod("1.5", NULL) == 1.5;
}

static const struct {
    const char *name;
    void (*act)(unsigned long);
} commands[] = {
    {"global", do_global}, {"switch", do_switch}, {"arena", do_arena}, {"hole", do_hole},
    {"block", do_block},   {"grow", do_grow},     {"library", do_library}, {"sort", do_sort},
    {"jump", do_jump},     {"stack", do_stack},   {"misc", do_misc},     {"vault", do_vault},
};

static int act(const char *command)
{
    char name[32];
    unsigned long n = 0;
    sscanf(command, "%31s %lu", name, &n);
    if (!strcmp(name, "up"))
        return 1;
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        if (!strcmp(name, commands[i].name))
            commands[i].act(n);
    return 0;
}

/* Each level keeps numbers in its frame; `deep` goes a level down, `up` one back. */
static __attribute__((noinline)) void wait_at(unsigned long depth, unsigned long *frame_sums)
{
    volatile unsigned long mine[40];
    unsigned char *block = alloca(500 + depth);
    for (unsigned long i = 0; i < 40; i++)
        mine[i] = depth * 1000 + i;
    memset(block, (int)depth, 500 + depth);
    for (;;) {
        frame_sums[depth] = sum(sum(depth, (const void *)mine, sizeof mine), block, 500 + depth);
        char *command = service_next();
        if (!strncmp(command, "deep", 4) && depth < 60) {
            service_answer("%016lx", everything(frame_sums, depth + 1));
            wait_at(depth + 1, frame_sums);
            continue;
        }
        int back = act(command);
        mine[global % 40] += depth;
        for (unsigned long i = 0; i < 500 + depth; i++)
            if (block[i] != (unsigned char)depth)
                errx(3, "the alloca'ed block at depth %lu is damaged", depth);
        frame_sums[depth] = sum(sum(depth, (const void *)mine, sizeof mine), block, 500 + depth);
        service_answer("%016lx", everything(frame_sums, depth + 1));
        if (back && depth)
            return;
    }
}

int main(int argc, char **argv)
{
    static unsigned long frame_sums[64];
    unsigned long on_stack[20000];
    memset(on_stack, 0, sizeof on_stack);
    big_stack = on_stack;
    service_open(atoi(argc > 1 ? argv[1] : "7777"));
    int value = setjmp(out_of_here);
    if (value) { /* a longjmp from any depth: all frames are gone, the request is answered here */
        jumps += value;
        service_answer("%016lx", everything(frame_sums, 1));
    }
    wait_at(0, frame_sums);
}
