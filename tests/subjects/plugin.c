/* A plug-in that a program opens with RTLD_DEEPBIND: it takes a text that the program allocated, gives one back that
 * the program frees, and keeps one that it reallocates. */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

char *plugin_append(char *line);

static char *kept;

char *plugin_append(char *line)
{
    size_t old = kept ? strlen(kept) : 0, more = strlen(line), room;
    void *aligned = NULL;
    if (malloc_usable_size(line) < more + 1 || posix_memalign(&aligned, 64, 100))
        abort();
    kept = realloc(kept, old + more + 1);
    memcpy(kept + old, line, more + 1);
    free(line);
    free(aligned);
    room = old + more + 32;
    char *answer = calloc(1, room);
    snprintf(answer, room, "%zu %s", old + more, kept + (old + more > 40 ? old + more - 40 : 0));
    return answer;
}
