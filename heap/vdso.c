#include "heap/vdso.h"
#include "heap/jump.h"
#include "heap/say.h"
#include "heap/session.h"
#include "heap/sys.h"
#include "heap/window.h"

#include <elf.h>
#include <string.h>
#include <sys/mman.h>

bool vdso_is_piece(const struct mapping_line *line)
{
    return mapping_named(line, "[vdso]") || (line->name_length >= 5 && !memcmp(line->name, "[vvar", 5));
}

bool vdso_holds(const struct meta *m, uintptr_t address)
{
    for (uint32_t p = 0; p < m->vdso_pieces; p++)
        if (m->vdso[p].start <= address && address < m->vdso[p].end)
            return true;
    return false;
}

static uint32_t find_pieces(struct vdso_piece *pieces, const char *maps, const char *end)
{
    struct mapping_line line;
    uint32_t count = 0;
    while (count < VDSO_PIECES && mapping_next(&maps, end, &line))
        if (vdso_is_piece(&line))
            pieces[count++] = (struct vdso_piece){line.start, line.end};
    return count;
}

void vdso_record(struct image *i, const char *maps, const char *end)
{
    struct meta *m = i->meta;
    m->vdso_pieces = find_pieces(m->vdso, maps, end);
    if (!m->vdso_pieces)
        return;
    struct vdso_piece *code = &m->vdso[m->vdso_pieces - 1];
    m->vdso_bytes = (uint32_t)(code->end - code->start);
    memcpy(i->vdso, (void *)code->start, m->vdso_bytes);
}

struct symbols {
    const Elf64_Sym *table;
    const char *names;
    size_t count;
};

/* A vdso is linked at 0, so addresses in its dynamic section are offsets. */
static bool find_symbols(const uint8_t *elf, struct symbols *s)
{
    const Elf64_Ehdr *header = (const Elf64_Ehdr *)elf;
    const Elf64_Phdr *segment = (const Elf64_Phdr *)(elf + header->e_phoff);
    const Elf64_Dyn *dynamic = NULL;
    if (memcmp(header->e_ident, ELFMAG, SELFMAG) != 0)
        return false;
    for (unsigned n = 0; n < header->e_phnum; n++)
        if (segment[n].p_type == PT_DYNAMIC)
            dynamic = (const Elf64_Dyn *)(elf + segment[n].p_offset);
    *s = (struct symbols){0};
    const Elf64_Shdr *section = (const Elf64_Shdr *)(elf + header->e_shoff);
    for (; dynamic && dynamic->d_tag != DT_NULL; dynamic++) {
        if (dynamic->d_tag == DT_SYMTAB)
            s->table = (const Elf64_Sym *)(elf + dynamic->d_un.d_ptr);
        else if (dynamic->d_tag == DT_STRTAB)
            s->names = (const char *)(elf + dynamic->d_un.d_ptr);
    }
    for (unsigned n = 0; n < header->e_shnum; n++)
        if (section[n].sh_type == SHT_DYNSYM)
            s->count = section[n].sh_size / sizeof(Elf64_Sym);
    return s->table && s->names && s->count;
}

static uintptr_t find_function(const struct symbols *s, const char *name)
{
    for (size_t n = 0; n < s->count; n++)
        if (s->table[n].st_shndx != SHN_UNDEF && !strcmp(s->names + s->table[n].st_name, name))
            return s->table[n].st_value;
    return 0;
}

uintptr_t vdso_function(const uint8_t *elf, const char *name)
{
    struct symbols symbols;
    return find_symbols(elf, &symbols) ? find_function(&symbols, name) : 0;
}

int vdso_patch(uint8_t *old, size_t bytes, const uint8_t *now, uintptr_t target)
{
    struct symbols old_symbols, new_symbols;
    int patched = 0;
    if (!find_symbols(old, &old_symbols) || !find_symbols(now, &new_symbols))
        return 0;
    for (size_t n = 0; n < old_symbols.count; n++) {
        const Elf64_Sym *symbol = &old_symbols.table[n];
        if (ELF64_ST_TYPE(symbol->st_info) != STT_FUNC || symbol->st_shndx == SHN_UNDEF ||
            symbol->st_value + sizeof(struct jump) > bytes)
            continue;
        uintptr_t to = find_function(&new_symbols, old_symbols.names + symbol->st_name);
        if (!to)
            continue;
        jump_write(old + symbol->st_value, target + to);
        patched++;
    }
    return patched;
}

static void add_step(struct plan *plan, struct step step)
{
    plan->steps[plan->step_count++] = step;
}

/* The kernel differs from the one the image was made on: the new vdso stays in the window, and the old
 * one's functions lead to it. */
static int plan_foreign(struct session *s, struct plan *plan, const struct vdso_piece *now, uint32_t count)
{
    const struct meta *m = s->image.meta;
    const struct vdso_piece *code = &m->vdso[m->vdso_pieces - 1];
    const struct move *to = &plan->moves[count - 1];
    uint8_t *copy = window_alloc(m->vdso_bytes);
    if (!copy)
        return -ENOMEM;
    memcpy(copy, s->image.vdso, m->vdso_bytes);
    if (!vdso_patch(copy, m->vdso_bytes, (const uint8_t *)now[count - 1].start, to->to)) {
        say("the kernel's vdso cannot be matched with the saved one; start with --fresh");
        return -ENOEXEC;
    }
    for (uint32_t p = 0; p + 1 < m->vdso_pieces; p++)
        add_step(plan, (struct step){.kind = STEP_MAP, .address = m->vdso[p].start,
                                     .bytes = m->vdso[p].end - m->vdso[p].start, .prot = PROT_READ,
                                     .flags = MAP_PRIVATE | MAP_ANONYMOUS, .fd = -1});
    uint64_t bytes = code->end - code->start;
    add_step(plan, (struct step){.kind = STEP_MAP, .address = code->start, .bytes = bytes,
                                 .prot = PROT_READ | PROT_WRITE, .flags = MAP_PRIVATE | MAP_ANONYMOUS, .fd = -1});
    add_step(plan, (struct step){.kind = STEP_COPY, .address = code->start, .bytes = m->vdso_bytes,
                                 .offset = (uint64_t)copy});
    add_step(plan, (struct step){.kind = STEP_PROTECT, .address = code->start, .bytes = bytes,
                                 .prot = PROT_READ | PROT_EXEC});
    return 0;
}

static bool same_vdso(const struct image *i, const struct vdso_piece *now, uint32_t count)
{
    const struct meta *m = i->meta;
    if (count != m->vdso_pieces)
        return false;
    for (uint32_t p = 0; p < count; p++)
        if (now[p].end - now[p].start != m->vdso[p].end - m->vdso[p].start ||
            now[p].start - now[0].start != m->vdso[p].start - m->vdso[0].start)
            return false;
    return !memcmp((const void *)now[count - 1].start, i->vdso, m->vdso_bytes);
}

int vdso_plan(struct session *s, struct plan *plan)
{
    struct vdso_piece now[VDSO_PIECES];
    long length = mapping_read(s->maps_fd, s->areas.text, AREAS_TEXT_BYTES);
    if (length < 0)
        return (int)length;
    uint32_t count = find_pieces(now, s->areas.text, s->areas.text + length);
    if (!s->image.meta->vdso_pieces)
        return 0;
    if (!count) {
        say("this kernel gives no vdso, but the saved process had one; start with --fresh");
        return -ENOEXEC;
    }
    bool same = !s->patch_vdso && same_vdso(&s->image, now, count);
    uint64_t staging = (uint64_t)window_alloc(now[count - 1].end - now[0].start);
    if (!staging)
        return -ENOMEM;
    plan->move_count = count;
    for (uint32_t p = 0; p < count; p++) {
        uint64_t stay = staging + (now[p].start - now[0].start);
        plan->moves[p] = (struct move){.from = now[p].start, .staging = stay, .bytes = now[p].end - now[p].start,
                                       .to = same ? s->image.meta->vdso[p].start : stay};
    }
    return same ? 0 : plan_foreign(s, plan, now, count);
}
