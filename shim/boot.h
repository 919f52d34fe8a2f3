/* From the dynamic linker's call of the constructor to the program, and from the restorer back to it. */
#ifndef KEN_SHIM_BOOT_H
#define KEN_SHIM_BOOT_H

/* In a new incarnation, behind commit(): makes the kernel's side of everything again. */
void boot_resumed(void);

#endif
