#define _GNU_SOURCE
#include "heap/say.h"
#include "heap/sys.h"

#include <string.h>

static int say_fd = 2;

struct text {
    char *at;
    size_t used, size;
};

static void put(struct text *t, char c)
{
    if (t->used + 1 < t->size)
        t->at[t->used++] = c;
}

static void put_string(struct text *t, const char *s)
{
    for (s = s ? s : "(null)"; *s; s++)
        put(t, *s);
}

static void put_number(struct text *t, unsigned long value, unsigned base)
{
    char digits[24];
    int n = 0;
    do
        digits[n++] = "0123456789abcdef"[value % base];
    while (value /= base);
    while (n)
        put(t, digits[--n]);
}

/* strerrorname_np() is table look-up only: no locale, no allocation. */
const char *say_error(long code)
{
    const char *name = strerrorname_np((int)(code < 0 ? -code : code));
    return name ? name : "unknown error";
}

size_t say_vformat(char *buffer, size_t size, const char *format, va_list arguments)
{
    struct text t = {buffer, 0, size};
    for (const char *p = format; *p; p++) {
        if (*p != '%') {
            put(&t, *p);
            continue;
        }
        bool is_long = p[1] == 'l';
        p += is_long ? 2 : 1;
        switch (*p) {
        case 's':
            put_string(&t, va_arg(arguments, const char *));
            break;
        case 'c':
            put(&t, (char)va_arg(arguments, int));
            break;
        case 'd': {
            long value = is_long ? va_arg(arguments, long) : va_arg(arguments, int);
            if (value < 0)
                put(&t, '-');
            put_number(&t, value < 0 ? 0UL - (unsigned long)value : (unsigned long)value, 10);
            break;
        }
        case 'u':
        case 'x':
            put_number(&t,
                       is_long ? va_arg(arguments, unsigned long) : va_arg(arguments, unsigned),
                       *p == 'x' ? 16 : 10);
            break;
        case 'p':
            put_string(&t, "0x");
            put_number(&t, (unsigned long)va_arg(arguments, void *), 16);
            break;
        default:
            put(&t, *p);
        }
    }
    if (size)
        buffer[t.used] = '\0';
    return t.used;
}

size_t say_format(char *buffer, size_t size, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    size_t length = say_vformat(buffer, size, format, arguments);
    va_end(arguments);
    return length;
}

static void say_line(const char *format, va_list arguments)
{
    char line[1024] = "ken: ";
    size_t length = 5 + say_vformat(line + 5, sizeof line - 6, format, arguments);
    line[length++] = '\n';
    sys(SYS_write, say_fd, line, length);
}

void say(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    say_line(format, arguments);
    va_end(arguments);
}

void say_die(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    say_line(format, arguments);
    va_end(arguments);
    for (;;)
        sys(SYS_exit_group, 70);
}

void say_die_of(long error, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    say_line(format, arguments);
    va_end(arguments);
    for (;;) /* EAGAIN: no more threads, processes or locked memory for this user */
        sys(SYS_exit_group, sys_in_trouble(error) || error == -EAGAIN ? 75 : 70);
}

void say_to(int fd)
{
    say_fd = fd;
}
