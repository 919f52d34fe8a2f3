/* kenctl backtrace: where a saved process is waiting, unwound by libunwind from the store's image.
 *
 * The registers are those of the C call that committed the turn; the memory is the image over the pinned
 * files; the unwind tables are the .eh_frame_hdr of those files, read as the process would have them.
 */
#include "heap/kenctl.h"
#include "heap/kenctl_elf.h"
#include "heap/kenctl_saved.h"
#include "heap/kenctl_unwind.h"
#include "heap/sys.h"

#include <inttypes.h>
#include <string.h>

enum { TRIES = 5 };

/* Exported by libunwind for those who bring their own tables, but in no header. */
int UNW_OBJ(dwarf_search_unwind_table)(unw_addr_space_t, unw_word_t ip, unw_dyn_info_t *,
                                       unw_proc_info_t *, int need_unwind_info, void *argument);

/* Linux Standard Base 5.0, 10.6.2: .eh_frame_hdr with the encodings that every linker uses. */
struct frame_header {
    uint8_t version, frame_encoding, count_encoding, table_encoding;
    int32_t frame;
    uint32_t count;
};
enum { ENCODING_UDATA4 = 0x03, ENCODING_DATAREL_SDATA4 = 0x3b };

/* Finds the table of the object that `area` is mapped from; true if it has one. */
static bool find_table(const struct saved *s, const struct area *area, unw_dyn_info_t *info)
{
    char path[2 * STORE_PATH_BYTES];
    struct elf elf;
    uint64_t base = 0;
    if (area->kind != AREA_FILE_PRIVATE || area->file >= s->meta->files ||
        !saved_file_path(s, &s->files[area->file], path, sizeof path) || elf_open(&elf, path, 0) != 0)
        return false;
    const Elf64_Phdr *segment = elf_segment(&elf, PT_GNU_EH_FRAME, 0);
    const struct frame_header *header = segment ? elf_at(&elf, segment->p_offset, sizeof *header) : NULL;
    bool usable = header && header->version == 1 && header->count_encoding == ENCODING_UDATA4 &&
                  header->table_encoding == ENCODING_DATAREL_SDATA4 &&
                  elf_address_of(&elf, area->offset, &base);
    if (usable) {
        memset(info, 0, sizeof *info);
        info->format = UNW_INFO_FORMAT_REMOTE_TABLE;
        info->start_ip = area->start;
        info->end_ip = area->end;
        info->u.rti.segbase = area->start - base + segment->p_vaddr;
        info->u.rti.table_data = info->u.rti.segbase + sizeof *header;
        info->u.rti.table_len = (unw_word_t)header->count * 8 / sizeof(unw_word_t);
    }
    elf_close(&elf);
    return usable;
}

static int find_proc_info(unw_addr_space_t space, unw_word_t ip, unw_proc_info_t *proc, int need,
                          void *argument)
{
    const struct saved *s = argument;
    const struct area *area = saved_area(s, ip);
    unw_dyn_info_t info;
    if (!area || !find_table(s, area, &info))
        return -UNW_ENOINFO;
    return UNW_OBJ(dwarf_search_unwind_table)(space, ip, &info, proc, need, argument);
}

static void put_unwind_info(unw_addr_space_t space, unw_proc_info_t *proc, void *argument)
{
}

static int get_dyn_info_list_addr(unw_addr_space_t space, unw_word_t *address, void *argument)
{
    return -UNW_ENOINFO;
}

static int access_mem(unw_addr_space_t space, unw_word_t address, unw_word_t *value, int write,
                      void *argument)
{
    return !write && saved_read(argument, address, value, sizeof *value) ? 0 : -UNW_EINVAL;
}

static int access_reg(unw_addr_space_t space, unw_regnum_t number, unw_word_t *value, int write,
                      void *argument)
{
    const struct saved *s = argument;
    const struct context *c = &s->meta->context;
    if (write)
        return -UNW_EREADONLYREG;
    switch (number) {
    case UNW_X86_64_RBX:
        *value = c->rbx;
        return 0;
    case UNW_X86_64_RBP:
        *value = c->rbp;
        return 0;
    case UNW_X86_64_R12:
        *value = c->r12;
        return 0;
    case UNW_X86_64_R13:
        *value = c->r13;
        return 0;
    case UNW_X86_64_R14:
        *value = c->r14;
        return 0;
    case UNW_X86_64_R15:
        *value = c->r15;
        return 0;
    case UNW_X86_64_RSP:
        *value = c->rsp;
        return 0;
    case UNW_X86_64_RIP:
        *value = c->rip;
        return 0;
    default:
        *value = 0; /* a call keeps no others */
        return number >= 0 && number <= UNW_X86_64_R15 ? 0 : -UNW_EBADREG;
    }
}

static int access_fpreg(unw_addr_space_t space, unw_regnum_t number, unw_fpreg_t *value, int write,
                        void *argument)
{
    return -UNW_EBADREG;
}

static int resume(unw_addr_space_t space, unw_cursor_t *cursor, void *argument)
{
    return -UNW_EINVAL;
}

static const unw_accessors_t saved_accessors = {
    .find_proc_info = find_proc_info,
    .put_unwind_info = put_unwind_info,
    .get_dyn_info_list_addr = get_dyn_info_list_addr,
    .access_mem = access_mem,
    .access_reg = access_reg,
    .access_fpreg = access_fpreg,
    .resume = resume,
};

static int print_backtrace(struct saved *s, struct stack *stack)
{
    struct objects objects = {0};
    if (saved_objects(s, &objects) != 0 || stack->count == 0)
        return ctl_fail(1, "the stack cannot be read");
    printf("%.*s, turn %" PRIu64 "\n", (int)sizeof s->meta->program, s->meta->program, s->meta->turn);
    fflush(stdout);
    stack_print(1, "", stack, stack_below_libken(stack, &objects), &objects);
    objects_free(&objects);
    return 0;
}

/* A program that runs commits meanwhile, and the image changes under the walk: then it is walked again. */
int ctl_backtrace(int argc, char **argv)
{
    if (argc != 1)
        return ctl_fail(CTL_USAGE, "backtrace takes the directory of one store");
    for (int i = 1;; i++) {
        static struct stack stack;
        struct saved s;
        stack.count = 0;
        if (!saved_open(&s, argv[0]))
            return 1;
        int result = 1;
        if (s.empty)
            ctl_fail(1, "no turn was committed yet");
        else if (s.meta->state == RUN_FINISHED)
            ctl_fail(1, "the program has finished, with status %d", s.meta->exit_status);
        else
            result = 0;
        if (!result)
            stack_walk(&stack, &saved_accessors, &s);
        bool again = !result && i < TRIES && saved_went_on(&s);
        if (!result && !again) {
            if (i == TRIES)
                ctl_fail(0, "the program is running on; what follows may mix two turns");
            result = print_backtrace(&s, &stack);
        }
        saved_close(&s);
        if (!again)
            return result;
    }
}
