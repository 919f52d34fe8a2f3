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

struct symbols {
    const Elf64_Sym *list;
    uint64_t count;
    const char *names;
    uint64_t names_size;
};

/* The nth symbol table, the full one before the dynamic one; false if there are not that many. */
static bool find_symbols(const struct elf *elf, unsigned nth, struct symbols *symbols)
{
    static const uint32_t order[] = {SHT_SYMTAB, SHT_DYNSYM};
    const Elf64_Ehdr *h = elf->header;
    const Elf64_Shdr *sections = NULL;
    if (h->e_shnum && h->e_shentsize == sizeof *sections)
        sections = elf_at(elf, h->e_shoff, h->e_shnum * sizeof *sections);
    for (unsigned k = 0; sections && k < 2u * h->e_shnum; k++) {
        const Elf64_Shdr *table = &sections[k % h->e_shnum];
        if (table->sh_type != order[k / h->e_shnum] || table->sh_link >= h->e_shnum || nth-- != 0)
            continue;
        const Elf64_Shdr *strings = &sections[table->sh_link];
        symbols->list = elf_at(elf, table->sh_offset, table->sh_size);
        symbols->count = symbols->list ? table->sh_size / sizeof *symbols->list : 0;
        symbols->names = elf_at(elf, strings->sh_offset, strings->sh_size);
        symbols->names_size = strings->sh_size;
        if (!symbols->names || !symbols->names_size || symbols->names[symbols->names_size - 1])
            symbols->count = 0;
        return true;
    }
    return false;
}

/* The best name in one symbol table: of several at an address, the first global one. */
static const char *search(const struct symbols *symbols, uint64_t address, uint64_t *distance)
{
    const Elf64_Sym *best = NULL;
    for (uint64_t i = 0; i < symbols->count; i++) {
        const Elf64_Sym *s = &symbols->list[i];
        int type = ELF64_ST_TYPE(s->st_info);
        if ((type != STT_FUNC && type != STT_GNU_IFUNC) || s->st_shndx == SHN_UNDEF ||
            address - s->st_value >= s->st_size || s->st_name >= symbols->names_size)
            continue;
        if (!best || (ELF64_ST_BIND(best->st_info) == STB_LOCAL &&
                      ELF64_ST_BIND(s->st_info) != STB_LOCAL))
            best = s;
    }
    if (!best || !symbols->names[best->st_name])
        return NULL;
    *distance = address - best->st_value;
    return symbols->names + best->st_name;
}

const char *elf_function(const struct elf *elf, uint64_t address, uint64_t *distance)
{
    struct symbols symbols;
    const char *name = NULL;
    for (unsigned i = 0; !name && find_symbols(elf, i, &symbols); i++)
        name = search(&symbols, address, distance);
    return name;
}

uint64_t elf_variable(const struct elf *elf, const char *name, uint64_t size)
{
    struct symbols symbols;
    for (unsigned i = 0; find_symbols(elf, i, &symbols); i++)
        for (uint64_t k = 0; k < symbols.count; k++)
            if (ELF64_ST_TYPE(symbols.list[k].st_info) == STT_OBJECT &&
                symbols.list[k].st_size >= size && symbols.list[k].st_name < symbols.names_size &&
                strcmp(symbols.names + symbols.list[k].st_name, name) == 0)
                return symbols.list[k].st_value;
    return 0;
}
