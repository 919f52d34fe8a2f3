/* kenctl: libken's helper program. What its files share.
 *
 * An ordinary program, not a part of libken: it may use libc, allocate, and link libunwind. It
 * looks at processes and stores and changes neither.
 */
#ifndef KEN_HEAP_KENCTL_H
#define KEN_HEAP_KENCTL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Exit statuses of sysexits.h, and the shell's two for a command that cannot run. */
enum { CTL_USAGE = 64, CTL_NOT_EXECUTABLE = 126, CTL_NOT_FOUND = 127 };

/* The commands; each takes what follows its name on the command line (ended by NULL) and returns the exit status. */
int ctl_crash(int argc, char **argv);
int ctl_check_program(int argc, char **argv);
int ctl_store(int argc, char **argv);
int ctl_launch(int argc, char **argv);
int ctl_show(int argc, char **argv);
int ctl_turn(int argc, char **argv);
int ctl_holder(int argc, char **argv);
int ctl_wait(int argc, char **argv);
int ctl_check(int argc, char **argv);
int ctl_backtrace(int argc, char **argv);

/* Prints `kenctl: TEXT` on stderr and returns `status`. */
int ctl_fail(int status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Finds the file that execvp() would run for `name`. True if one was found; `path` has PATH_MAX
 * bytes. An entry that is not executable is taken if there is no better one. */
bool ctl_find_program(const char *name, char *path);

#endif
