/* One-line messages on stderr: `ken: what happened; what to do`.
 *
 * Formats without libc (no locale, no malloc, no stdio) and writes the line with one write(2).
 * Thread-safe and async-signal-safe; errno is untouched.
 * Conversions: %s %c %d %u %ld %lu %x %lx %p %%.
 */
#ifndef KEN_HEAP_SAY_H
#define KEN_HEAP_SAY_H

#include <stdarg.h>
#include <stddef.h>

/* Prints one line; the text carries neither the prefix nor the newline. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Prints one line and ends the process at once with status 70 (EX_SOFTWARE); nothing is committed. */
_Noreturn void say_die(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The same after a call that answered `error` (-errno; 0: something else is wrong). When that is trouble that may pass, the status
 * is 75 (EX_TEMPFAIL): whoever supervises the process may start it again. */
_Noreturn void say_die_of(long error, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Formats into `buffer`, always terminated; returns the length the text has (at most size - 1). */
size_t say_format(char *buffer, size_t size, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
size_t say_vformat(char *buffer, size_t size, const char *format, va_list arguments);

/* The name of an error ("ENOSPC"); takes errno or -errno. The string is static. */
const char *say_error(long code);

/* Chooses the descriptor that messages go to (default 2). The caller keeps ownership. */
void say_to(int fd);

#endif
