#include "heap/kenctl.h"

#include <stdarg.h>
#include <string.h>

#ifndef KEN_VERSION
#define KEN_VERSION "unknown"
#endif

static const struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *arguments, *help;
} commands[] = {
    {"show", ctl_show, "STORE", "what the store holds"},
    {"backtrace", ctl_backtrace, "STORE", "where the saved process is waiting"},
    {"check", ctl_check, "STORE", "is the store whole? status 0 or 1"},
    {"turn", ctl_turn, "STORE", "the number of the last committed turn"},
    {"holder", ctl_holder, "STORE", "the process that has the store; status 1: none"},
    {"wait", ctl_wait, "STORE PID", "until that process has it no more (for kenrun)"},
    {"crash", ctl_crash, "PID TID SIGNAL TURN [FD]", "the backtrace of a dying process (for libken)"},
    {"store", ctl_store, "COMMAND [ARG...]", "the default store of a command"},
    {"check-program", ctl_check_program, "PATH", "can libken run this program?"},
    {"launch", ctl_launch, "LIBRARY SIGNALS COMMAND [ARG...]", "start a command (for kenrun)"},
};

int ctl_fail(int status, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("kenctl: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    return status;
}

static int show_usage(FILE *out, int status)
{
    fputs("usage: kenctl COMMAND [ARGUMENT...]\n\n", out);
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        fprintf(out, "  kenctl %s %s\n        %s\n", commands[i].name, commands[i].arguments,
                commands[i].help);
    fputs("  kenctl --help, --version\n", out);
    return status;
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return show_usage(stderr, CTL_USAGE);
    if (strcmp(argv[1], "--help") == 0)
        return show_usage(stdout, 0);
    if (strcmp(argv[1], "--version") == 0)
        return puts("kenctl " KEN_VERSION) < 0;
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        if (strcmp(argv[1], commands[i].name) == 0)
            return commands[i].run(argc - 2, argv + 2);
    ctl_fail(CTL_USAGE, "unknown command %s", argv[1]);
    return show_usage(stderr, CTL_USAGE);
}
