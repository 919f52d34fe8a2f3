/* From the dynamic linker's call of the constructor to the program, and from the restorer back to it. */
#ifndef KEN_SHIM_BOOT_H
#define KEN_SHIM_BOOT_H

#include <stdbool.h>

/* Whether calls are seen by the PLT alone, as the user wished. */
bool boot_by_plt_only(void);

/* In a new incarnation, behind commit(): makes the kernel's side of everything again. */
void boot_resumed(void);

/* In a child of fork that is to be the program: takes the store's lock, which its parent gave up, and gets handles and an
 * image of its own. The next commit is the whole of this process. Dies when the store is another's. */
void boot_inherit(void);

#endif
