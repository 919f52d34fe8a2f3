/* Counts over UDP until it is told to crash: `segv`, `abort`, `fpe`, `ill`, `bus`, `stack`. */
#include "service.h"

#include <signal.h>

static unsigned long turns;

static int *volatile nowhere = (int *)8;
static volatile int endless = 1;

static __attribute__((noinline)) int overflow(int n)
{
    volatile char frame[4096];
    frame[n % 4096] = (char)n;
    return (endless ? overflow(n + 1) : 0) + frame[(n + 1) % 4096];
}

__attribute__((noinline)) static void crash_in_here(const char *how)
{
    volatile int zero = 0;
    if (!strcmp(how, "segv"))
        *nowhere = 1;
    else if (!strcmp(how, "abort"))
        abort();
    else if (!strcmp(how, "fpe"))
        zero = 1000 / zero;
    else if (!strcmp(how, "ill"))
        __asm__ volatile("ud2");
    else if (!strcmp(how, "bus"))
        zero = raise(SIGBUS);
    else if (!strcmp(how, "stack"))
        zero = overflow(1);
}

int main(int argc, char **argv)
{
    service_open(atoi(argc > 1 ? argv[1] : "7777"));
    for (;;) {
        char *command = service_next();
        turns++;
        crash_in_here(command);
        service_answer("%lu", turns);
    }
}
