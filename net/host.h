/* What net/ asks of the room above it. The shim answers; unit tests answer with stubs. */
#ifndef KEN_NET_HOST_H
#define KEN_NET_HOST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* True for the descriptors that libken keeps for itself (store, log, tracker, ...). */
bool session_owns_fd(int fd);

/* The store's directory, or -1 when there is none. The callee keeps ownership. */
int session_store_dirfd(void);

/* The program's root directory, as it is called in the one it began with; "": the same one. */
const char *session_root(void);

/* The store's directory of links to files without names (STORE_KEPT), or -1. The callee keeps ownership. */
int session_kept_dirfd(void);

/* Who this process is to its peers, through all incarnations of a run: 16 bytes; NULL without a store. */
const uint8_t *session_identity(void);

/* The shared page of the store that survives a SIGKILL; NULL without one. One page long: release.c
 * lays its own structure over it. */
struct progress;
struct progress *session_progress(void);

/* An output has left, and nothing was noted of it yet. May not return. */
void session_output_left(void);

/* net/ has mapped memory or changed a protection: the list of areas is to be read again. */
void session_layout_changed(void);

/* Whether a shared mapping showed the file with that inode number at the last commit, and whether mappings have changed since. */
bool session_mapped(uint64_t inode);
bool session_layout_changing(void);

/* Many pages are about to be written by net/: a hint for the tracker. */
void session_will_write(const void *at, size_t bytes);

/* Memory of net/'s own that nobody looks at for changes (heap/loose.h): where it lies, that a part of it is about to be written
 * (false: for want of memory it may not be), and that its content is not needed any more. */
void session_loose_claim(void *at, size_t bytes);
bool session_loose_write(void *at, size_t bytes);
void session_loose_give_up(void *at, size_t bytes);

/* Peers on other hosts, in the window; NULL: none are listed. */
struct remote;
struct remote *session_remote(void);

/* Pids: the program's own has another number after a restart, its children have ended. */
long session_known_pid(long real);
long session_real_pid(long known);
bool session_has_child(long pid);

/* The number of the calling thread, from 0 on; -1 while there is only one. */
int session_thread(void);

/* Counts commits; the same before and after a resume. */
uint64_t turn_number(void);

/* What to add to CLOCK_MONOTONIC so that the program never sees it go back after a reboot. */
int64_t turn_clock_offset_ns(void);

#endif
