#include "shim/config.h"
#include "heap/mapping.h"
#include "heap/sys.h"
#include "shim/config_path.h"
#include "heap/say.h"

#include <fcntl.h>
#include <string.h>

static char library[1024];

static unsigned linger_ms = 5000;

unsigned config_linger_ms(void)
{
    return linger_ms;
}

static const char *find(char **envp, const char *name)
{
    size_t length = strlen(name);
    for (; *envp; envp++)
        if (!strncmp(*envp, name, length) && (*envp)[length] == '=')
            return *envp + length + 1;
    return NULL;
}

static void choose_store(struct config *c, char **argv, const char *wanted)
{
    if (wanted && *wanted) {
        if (strlen(wanted) >= sizeof c->store)
            c->error = "KEN_STORE is too long";
        else
            strcpy(c->store, wanted);
    } else {
        long r = config_store_path(c->store, sizeof c->store, NULL, argv);
        if (r < 0 && r != -ENAMETOOLONG)
            say_die_of(r, "cannot learn where the store is to be (%s); set KEN_STORE", say_error(r));
        if (r < 0)
            c->error = "the current directory's path is too long for a store; set KEN_STORE";
    }
}

void config_read(struct config *c, char **argv, char **envp)
{
    *c = (struct config){.sync = SYNC_POWER, .tracker = TRACKER_BEST};
    const char *value = find(envp, "KEN_SYNC");
    if (value && *value) {
        if (!strcmp(value, "process"))
            c->sync = SYNC_PROCESS;
        else if (strcmp(value, "power") != 0)
            c->error = "KEN_SYNC must be power or process";
    }
    value = find(envp, "KEN_TRACKER");
    if (value && *value) {
        if (!strcmp(value, "uffd"))
            c->tracker = TRACKER_UFFD;
        else if (!strcmp(value, "softdirty"))
            c->tracker = TRACKER_SOFTDIRTY;
        else if (!strcmp(value, "compare"))
            c->tracker = TRACKER_COMPARE;
        else
            c->error = "KEN_TRACKER must be uffd, softdirty or compare";
    }
    value = find(envp, "KEN_FRESH");
    c->fresh = value && *value && strcmp(value, "0") != 0;
    value = find(envp, "KEN_LINGER");
    if (value && *value >= '0' && *value <= '9') {
        linger_ms = 0;
        for (; *value >= '0' && *value <= '9' && linger_ms < 1000000000; value++)
            linger_ms = linger_ms * 10 + (unsigned)(*value - '0') * 1000;
    }
    value = find(envp, "KEN_NET");
    c->plt_only = value && !strcmp(value, "plt");
    value = find(envp, "KEN_VDSO");
    c->patch_vdso = value && !strcmp(value, "patch");
    c->kenctl = find(envp, "KEN_CTL");
    c->peers = find(envp, "KEN_PEERS");
    c->key_file = find(envp, "KEN_KEY_FILE");
    c->report = find(envp, "KEN_REPORT");
    c->chaos = find(envp, "KEN_CHAOS");
    choose_store(c, argv, find(envp, "KEN_STORE"));
}

static bool is_separator(char c)
{
    return c == ':' || c == ' ' || c == '\0';
}

static bool ends_in(const char *from, const char *to, const char *name)
{
    size_t length = strlen(name);
    return length && (size_t)(to - from) >= length && !memcmp(to - length, name, length) &&
           ((size_t)(to - from) == length || to[-(long)length - 1] == '/');
}

/* The path at [from, to) is libken's, by its name or by that of the file it was loaded from. */
static bool names_us(const char *from, const char *to)
{
    const char *slash = strrchr(library, '/');
    return ends_in(from, to, "libken.so") || ends_in(from, to, slash ? slash + 1 : library);
}

void config_hide(char **envp)
{
    for (char **e = envp; *e; e++) {
        if (strncmp(*e, "LD_PRELOAD=", 11) != 0)
            continue;
        char *out = *e + 11;
        const char *from = out;
        while (*from) {
            const char *to = from;
            while (!is_separator(*to))
                to++;
            if (to > from && !names_us(from, to)) {
                if (out != *e + 11)
                    *out++ = ':';
                memmove(out, from, (size_t)(to - from));
                out += to - from;
            }
            from = *to ? to + 1 : to;
        }
        *out = '\0';
        if (out == *e + 11) { /* nothing left: the variable goes altogether */
            for (char **rest = e; *rest; rest++)
                rest[0] = rest[1];
            e--;
        }
    }
}

const char *config_library(void)
{
    return library;
}

void config_find_library(void)
{
    static char text[1 << 16];
    struct mapping_line line;
    long fd = sys(SYS_open, "/proc/self/maps", O_RDONLY | O_CLOEXEC, 0);
    if (sys_failed(fd))
        return;
    /* A list longer than the buffer is cut; the library is found if it lies in the part that was read. */
    size_t used = 0;
    for (long n; used < sizeof text && (n = sys(SYS_read, fd, text + used, sizeof text - used)) > 0;)
        used += (size_t)n;
    sys(SYS_close, fd);
    const char *cursor = text;
    while (mapping_next(&cursor, text + used, &line)) {
        if (line.start <= (uintptr_t)&config_read && (uintptr_t)&config_read < line.end &&
            line.name_length < sizeof library) {
            memcpy(library, line.name, line.name_length);
            library[line.name_length] = '\0';
            return;
        }
    }
}
