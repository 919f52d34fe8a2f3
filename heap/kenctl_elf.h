/* ELF files, read only: what kind of program one is, and which function an address belongs to. */
#ifndef KEN_HEAP_KENCTL_ELF_H
#define KEN_HEAP_KENCTL_ELF_H

#include <elf.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A file mapped into memory, 64-bit x86 ELF. All offsets in it are checked before use: it may be damaged or changed meanwhile. */
struct elf {
    const uint8_t *bytes;
    size_t size;
    const Elf64_Ehdr *header;
};

/* Opens a file. 0, -errno, or -ENOEXEC if it is not ELF, -EXDEV if it is for another machine.
 * `inode` 0: any; otherwise -ESTALE if the file at that path is another one. */
int elf_open(struct elf *elf, const char *path, uint64_t inode);
void elf_close(struct elf *elf);

/* The program header of that type, or NULL. With `nth`, the following ones. */
const Elf64_Phdr *elf_segment(const struct elf *elf, uint32_t type, unsigned nth);

/* Bytes [offset, offset + size) of the file, or NULL if it has fewer. */
const void *elf_at(const struct elf *elf, uint64_t offset, uint64_t size);

/* Translates between offsets in the file and the addresses that the file itself uses. False
 * outside of all PT_LOAD segments. */
bool elf_address_of(const struct elf *elf, uint64_t offset, uint64_t *address);
bool elf_offset_of(const struct elf *elf, uint64_t address, uint64_t *offset);

/* The function that holds an address (as the file counts), with the distance from its start;
 * NULL if no symbol says. The name lives as long as the file is open. */
const char *elf_function(const struct elf *elf, uint64_t address, uint64_t *distance);

/* The address (as the file counts) of a variable of at least `size` bytes; 0 if no symbol says. */
uint64_t elf_variable(const struct elf *elf, const char *name, uint64_t size);

#endif
