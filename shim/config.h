/* What the operator asked for, by environment. Read once, from the constructor's envp: environ is not set up
 * when a library linked `-z initfirst` is initialised.
 *
 *   KEN_STORE     directory of the store; else config_store_path()
 *   KEN_SYNC      power (default) | process
 *   KEN_TRACKER   uffd | softdirty | compare; else the best that works
 *   KEN_FRESH     not empty and not 0: set the old store aside
 *   KEN_CTL       the helper program; else kenctl beside libken.so
 *   KEN_LINGER    seconds; default 5
 *   KEN_VDSO      patch: take the kernel's vdso for another kernel's (for tests)
 *   KEN_PEERS     who beyond this network namespace is under libken (net/address_list.h)
 *   KEN_KEY_FILE  the key that they prove (net/key_file.h)
 *   KEN_CHAOS, KEN_REPORT  files of kenrun --chaos (heap/chaos.h)
 *   KEN_NET       plt: do without Syscall User Dispatch (for tests)
 */
#ifndef KEN_SHIM_CONFIG_H
#define KEN_SHIM_CONFIG_H

#include "heap/log.h"
#include "heap/tracker.h"

struct config {
    char store[STORE_PATH_BYTES];
    enum sync sync;
    enum tracker_kind tracker;
    bool fresh;
    bool plt_only;
    bool patch_vdso;
    const char *kenctl; /* NULL: not set */
    const char *peers, *key_file; /* NULL: not set */
    const char *chaos, *report; /* NULL: not set */
    const char *error;  /* what is wrong with the settings, NULL when nothing is */
};

void config_read(struct config *, char **argv, char **envp);

/* Takes libken out of LD_PRELOAD, in place, so that children of the program are plain programs. */
void config_hide(char **envp);

/* The path of libken.so itself, found by config_hide()'s sibling in /proc/self/maps; "" when unknown. */
const char *config_library(void);
void config_find_library(void);

/* KEN_LINGER: how long an exit waits for peers to take what was sent to them. Part of the image. */
unsigned config_linger_ms(void);

#endif
