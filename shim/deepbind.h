/* Libraries that are opened with RTLD_DEEPBIND (PHP's extensions, PAM modules, plug-ins of many kinds) find libc's own
 * malloc and free before any that is preloaded. What they pass on to others, and free for others, would come from two
 * allocators. So libc's entry points themselves lead to libken's.
 */
#ifndef KEN_SHIM_DEEPBIND_H
#define KEN_SHIM_DEEPBIND_H

/* Writes a jump over the first instructions of libc's malloc family. To be called once, in the constructor of a fresh run,
 * while there is one thread; the changed text is part of the image. Nobody can have memory of libc's malloc then: ld.so
 * bound all that was loaded so far to libken's. Where text cannot be written (a hardened system) nothing is changed and
 * nothing is said. */
void deepbind_divert(void);

#endif
