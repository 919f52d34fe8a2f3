/* Calls that change the layout of the memory. The kernel's list of mappings stays the truth; these only note
 * that it has to be read again and which pages lost their contents. */
#ifndef KEN_SHIM_CALL_MEMORY_H
#define KEN_SHIM_CALL_MEMORY_H

#include "shim/call.h"

void memory_boot(void);

/* Hooks of the allocator's region; they run with its lock held. */
void memory_dropped(uintptr_t start, size_t bytes);
void memory_grown(uintptr_t start, size_t bytes);

/* Before a fork: pages that a restore took from the image's file are the process's own from now on. The child would see
 * later commits in them else. 0; or -errno: some still are the file's, and there is to be no child. */
long memory_unshare(void);

call_handler call_mmap, call_munmap, call_mremap, call_mprotect, call_madvise, call_brk, call_shmat;

#endif
