#include "heap/kenctl_elf.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

const void *elf_at(const struct elf *elf, uint64_t offset, uint64_t size)
{
    if (offset > elf->size || size > elf->size - offset)
        return NULL;
    return elf->bytes + offset;
}

static int check_header(const struct elf *elf)
{
    const Elf64_Ehdr *h = elf->header;
    if (elf->size < EI_NIDENT || memcmp(elf->bytes, ELFMAG, SELFMAG) != 0)
        return -ENOEXEC;
    if (elf->size < sizeof *h || h->e_ident[EI_CLASS] != ELFCLASS64 ||
        h->e_ident[EI_DATA] != ELFDATA2LSB || h->e_machine != EM_X86_64)
        return -EXDEV;
    if (h->e_phnum && (h->e_phentsize != sizeof(Elf64_Phdr) ||
                       !elf_at(elf, h->e_phoff, h->e_phnum * sizeof(Elf64_Phdr))))
        return -ENOEXEC;
    return 0;
}

int elf_open(struct elf *elf, const char *path, uint64_t inode)
{
    memset(elf, 0, sizeof *elf);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return -errno;
    struct stat st;
    int error = 0;
    if (fstat(fd, &st) != 0)
        error = -errno;
    else if (!S_ISREG(st.st_mode) || st.st_size == 0)
        error = -ENOEXEC;
    else if (inode && st.st_ino != inode)
        error = -ESTALE;
    void *bytes = MAP_FAILED;
    if (!error) {
        bytes = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (bytes == MAP_FAILED)
            error = -errno;
    }
    close(fd);
    if (error)
        return error;
    elf->bytes = bytes;
    elf->size = (size_t)st.st_size;
    elf->header = bytes;
    error = check_header(elf);
    if (error)
        elf_close(elf);
    return error;
}

void elf_close(struct elf *elf)
{
    if (elf->bytes)
        munmap((void *)elf->bytes, elf->size);
    memset(elf, 0, sizeof *elf);
}

const Elf64_Phdr *elf_segment(const struct elf *elf, uint32_t type, unsigned nth)
{
    const Elf64_Phdr *segments = elf_at(elf, elf->header->e_phoff, 0);
    for (unsigned i = 0; segments && i < elf->header->e_phnum; i++)
        if (segments[i].p_type == type && nth-- == 0)
            return &segments[i];
    return NULL;
}

bool elf_address_of(const struct elf *elf, uint64_t offset, uint64_t *address)
{
    const Elf64_Phdr *load;
    for (unsigned i = 0; (load = elf_segment(elf, PT_LOAD, i)); i++) {
        if (offset - load->p_offset < load->p_filesz) {
            *address = offset - load->p_offset + load->p_vaddr;
            return true;
        }
    }
    return false;
}

bool elf_offset_of(const struct elf *elf, uint64_t address, uint64_t *offset)
{
    const Elf64_Phdr *load;
    for (unsigned i = 0; (load = elf_segment(elf, PT_LOAD, i)); i++) {
        if (address - load->p_vaddr < load->p_filesz) {
            *offset = address - load->p_vaddr + load->p_offset;
            return true;
        }
    }
    return false;
}

/* The best name in one symbol table: of several at an address, the first global one. */
static const char *search(const struct elf *elf, const Elf64_Shdr *table, const Elf64_Shdr *strings,
                          uint64_t address, uint64_t *distance)
{
    const Elf64_Sym *symbols = elf_at(elf, table->sh_offset, table->sh_size);
    const char *names = elf_at(elf, strings->sh_offset, strings->sh_size);
    if (!symbols || !names || !strings->sh_size || names[strings->sh_size - 1])
        return NULL;
    const Elf64_Sym *best = NULL;
    for (uint64_t i = 0; i < table->sh_size / sizeof *symbols; i++) {
        const Elf64_Sym *s = &symbols[i];
        int type = ELF64_ST_TYPE(s->st_info);
        if ((type != STT_FUNC && type != STT_GNU_IFUNC) || s->st_shndx == SHN_UNDEF ||
            address - s->st_value >= s->st_size || s->st_name >= strings->sh_size)
            continue;
        if (!best || (ELF64_ST_BIND(best->st_info) == STB_LOCAL &&
                      ELF64_ST_BIND(s->st_info) != STB_LOCAL))
            best = s;
    }
    if (!best || !names[best->st_name])
        return NULL;
    *distance = address - best->st_value;
    return names + best->st_name;
}

const char *elf_function(const struct elf *elf, uint64_t address, uint64_t *distance)
{
    const Elf64_Ehdr *h = elf->header;
    if (!h->e_shnum || h->e_shentsize != sizeof(Elf64_Shdr))
        return NULL;
    const Elf64_Shdr *sections = elf_at(elf, h->e_shoff, h->e_shnum * sizeof *sections);
    if (!sections)
        return NULL;
    const char *name = NULL;
    static const uint32_t order[] = {SHT_SYMTAB, SHT_DYNSYM};
    for (size_t o = 0; o < 2 && !name; o++)
        for (unsigned i = 0; i < h->e_shnum && !name; i++)
            if (sections[i].sh_type == order[o] && sections[i].sh_link < h->e_shnum)
                name = search(elf, &sections[i], &sections[sections[i].sh_link], address, distance);
    return name;
}
