/* The pre-shared key's file (KEN_KEY_FILE): read once at each start of a process, by raw system calls.
 *
 *     (umask 077; head -c 32 /dev/urandom >ken.key)      and the same file on each host
 *
 * All of its bytes count, a newline too. It is taken if and only if it is a regular file of KEY_FILE_LEAST to
 * KEY_FILE_MOST bytes that belongs to the process's effective user or to root, and that nobody else may read or write.
 */
#ifndef KEN_NET_KEY_FILE_H
#define KEN_NET_KEY_FILE_H

#include "net/auth.h"

#define KEY_FILE_LEAST 32
#define KEY_FILE_MOST 4096

/* 0, or -errno with one line for the operator in `why`: -ENOENT and the like from the kernel, -ENOTSUP (no regular
 * file), -EPERM (whose it is), -EACCES (who may read it; also when we may not), -ERANGE (its size), -EINVAL (all of
 * its bytes are the same). The key is written only on success. Async-signal-safe. */
int key_file_load(const char *path, struct auth_key *, char *why, size_t why_size);

#endif
