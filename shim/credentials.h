/* Who the process is: user, groups, capabilities, no_new_privs, root directory.
 *
 * A server that was started as root binds its port, opens its files and then becomes somebody else. Every incarnation
 * begins as root again and becomes what the committed one was, once libken has opened all that it needs.
 *
 * Whoever the server became can write to the store through the descriptors of its own process, and so decides
 * what the next incarnation is: a store is as trusted as the program was when it began.
 */
#ifndef KEN_SHIM_CREDENTIALS_H
#define KEN_SHIM_CREDENTIALS_H

#include "shim/call.h"

call_handler call_set_user, call_set_group, call_capset, call_chroot;

/* Whether the calling thread may now do what CAP_... is for (linux/capability.h). */
bool credentials_has(int capability);

/* After PR_SET_NO_NEW_PRIVS. */
void credentials_note(void);

/* The root directory, as it is called in the one the program began with; "": that one. */
const char *credentials_root(void);

/* In a new incarnation, as its last privileged step: for the process, and then in every other thread of it, which shares the
 * root directory and has users and capabilities of its own. */
void credentials_resume(void);
void credentials_resume_thread(void);

#endif
