/* A UDP service that gives up root before it serves, and raises its limit on descriptors: drops_root PORT [ROOT].
 * With ROOT that becomes its root directory first.
 * Libraries come in on the way, as those do that look up users and groups, and one more when it is told to `load`.
 * `who` is answered with its user, group, groups, no_new_privs, limit, and whether it sees /here; anything else counts. */
#include "service.h"

#include <dlfcn.h>
#include <grp.h>
#include <sys/prctl.h>
#include <sys/resource.h>

int main(int argc, char **argv)
{
    struct rlimit files = {4000, 4000};
    gid_t groups[] = {65534, 60001};
    long count = 0;
    service_open(atoi(argv[1]));
    if (argc > 2 && (chroot(argv[2]) || chdir("/")))
        err(1, "%s", argv[2]);
    if (setrlimit(RLIMIT_NOFILE, &files) || setgroups(2, groups) || setgid(65534))
        err(1, "giving up root");
    if (argc <= 2 && !dlopen("libresolv.so.2", RTLD_NOW))
        errx(1, "%s", dlerror());
    if (setuid(65534))
        err(1, "giving up root");
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    for (;;) {
        char *command = service_next();
        if (!strcmp(command, "load") && !dlopen("libanl.so.1", RTLD_NOW))
            errx(1, "%s", dlerror());
        if (strcmp(command, "who")) {
            service_answer("%ld", ++count);
            continue;
        }
        uid_t r, e, s;
        getresuid(&r, &e, &s);
        gid_t now[8];
        int n = getgroups(8, now);
        getrlimit(RLIMIT_NOFILE, &files);
        service_answer("%d %d %d %d %d:%d %d %ld root:%s %s", (int)r, (int)e, (int)s, (int)getegid(), n, n > 0 ? (int)now[0] : -1,
                       prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), (long)files.rlim_cur, setuid(0) ? "refused" : "granted",
                       access("/here", F_OK) ? "outside" : "inside");
    }
}
