/* A service whose work is done by a plug-in opened with RTLD_DEEPBIND, as PHP opens its extensions:
 * deepbind PLUGIN PORT */
#define _GNU_SOURCE
#include "service.h"

#include <dlfcn.h>

int main(int argc, char **argv)
{
    if (argc < 3)
        errx(2, "usage: deepbind PLUGIN PORT");
    void *plugin = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);
    if (!plugin)
        errx(1, "%s", dlerror());
    char *(*append)(char *) = (char *(*)(char *))dlsym(plugin, "plugin_append");
    service_open(atoi(argv[2]));
    for (;;) {
        char *answer = append(strdup(service_next()));
        service_answer("%s", answer);
        free(answer);
    }
}
