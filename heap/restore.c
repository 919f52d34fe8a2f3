#include "heap/restore.h"
#include "heap/fault.h"
#include "heap/layout.h"
#include "heap/mapping.h"
#include "heap/restorer.h"
#include "heap/room.h"
#include "heap/say.h"
#include "heap/sys.h"
#include "heap/vdso.h"
#include "heap/window.h"

#include <fcntl.h>
#include <linux/prctl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>

#define STEP_MAX (1u << 18)
#define STACK_BYTES (64UL << 10)

struct builder {
    struct session *session;
    struct plan *plan;
    int *fds; /* per file of the table: opened at its first use, -1 before */
    bool noexec; /* the store's file system: nothing that is mapped from it can ever be executed */
    int error;
};

static struct step *add(struct builder *b, enum step_kind kind, uint64_t address, uint64_t bytes)
{
    struct plan *plan = b->plan;
    if (plan->step_count == STEP_MAX) {
        b->error = -ENOMEM;
        plan->step_count--;
    }
    struct step *step = &plan->steps[plan->step_count++];
    *step = (struct step){.address = address, .bytes = bytes, .kind = kind, .fd = -1};
    return step;
}

static void add_map(struct builder *b, uint64_t start, uint64_t end, uint32_t prot, uint32_t flags, int fd,
                    uint64_t offset)
{
    struct step *step = add(b, STEP_MAP, start, end - start);
    step->prot = prot;
    step->flags = flags;
    step->fd = fd;
    step->offset = offset;
}

/* The stretches of [start, end) whose pages are in the image are read into place. */
static void add_reads(struct builder *b, uint64_t start, uint64_t end)
{
    struct image *i = &b->session->image;
    verify_now(i, start, end);
    uint64_t from = 0, from_offset = 0;
    for (uint64_t at = start; at <= end; at += PAGE_BYTES) {
        uint64_t offset = at < end ? image_find(i, at) : 0;
        bool present = offset && image_present(i, offset);
        if (from && (!present || offset != from_offset + (at - from))) {
            struct step *step = add(b, STEP_READ, from, at - from);
            step->fd = i->fd;
            step->offset = from_offset;
            from = 0;
        }
        if (present && !from) {
            from = at;
            from_offset = offset;
        }
    }
}

static bool any_present(struct builder *b, uint64_t start, uint64_t end)
{
    struct image *i = &b->session->image;
    for (uint64_t at = start; at < end; at += PAGE_BYTES) {
        uint64_t offset = image_find(i, at);
        if (!offset)
            at = (at & ~(CHUNK_BYTES - 1)) + CHUNK_BYTES - PAGE_BYTES;
        else if (image_present(i, offset))
            return true;
    }
    return false;
}

static void add_protect(struct builder *b, const struct area *a)
{
    add(b, STEP_PROTECT, a->start, a->end - a->start)->prot = a->prot;
}

/* Memory of its own instead of a mapping: takes as long as there is to read. `fd` is the file below, or -1. */
static void add_copy(struct builder *b, const struct area *a, int fd)
{
    struct stat file;
    add_map(b, a->start, a->end, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    long r = fd < 0 ? 0 : sys(SYS_fstat, fd, &file);
    if (sys_failed(r))
        b->error = (int)r;
    else if (fd >= 0 && (uint64_t)file.st_size > a->offset) {
        uint64_t there = (uint64_t)file.st_size - a->offset, room = a->end - a->start;
        struct step *step = add(b, STEP_READ, a->start, there < room ? there : room);
        step->fd = fd;
        step->offset = a->offset;
    }
    add_reads(b, a->start, a->end);
    add_protect(b, a);
}

/* What is writable now may be made executable later, as compilers at run time do. */
static void add_anonymous(struct builder *b, const struct area *a)
{
    uint32_t plain = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    if (b->noexec) { /* an empty area, too, may have a place in the image: it shares one with its neighbours */
        if (any_present(b, a->start, a->end))
            add_copy(b, a, -1);
        else
            add_map(b, a->start, a->end, a->prot, plain, -1, 0);
        return;
    }
    for (uint64_t at = a->start, next; at < a->end; at = next) {
        uint64_t offset;
        next = image_run(&b->session->image, at, a->end, &offset);
        if (offset) {
            add_map(b, at, next, a->prot, MAP_PRIVATE | MAP_NORESERVE, b->session->image.fd, offset);
            if (verify_later(&b->session->image, at, next))
                b->error = -ENOMEM;
        } else
            add_map(b, at, next, a->prot, plain, -1, 0);
    }
}

/* A file mapping that grows down would grow into its neighbour's part of the file: so this one is copied. */
static void add_stack(struct builder *b, const struct area *a)
{
    add_map(b, a->start, a->end, a->prot,
            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK | MAP_GROWSDOWN, -1, 0);
    add_reads(b, layout_live_stack(b->session->image.meta, a->start, a->end), a->end);
}

/* By its path, or by the link that the store has of one that lost it. */
static long open_shared(struct builder *b, const struct file *file, int flags)
{
    char name[32];
    struct stat s;
    long fd = sys_fd(SYS_open, file->path, flags | O_CLOEXEC, 0);
    if (fd >= 0 ? sys(SYS_fstat, fd, &s) == 0 && s.st_ino == file->inode : fd != -ENOENT)
        return fd;
    say_format(name, sizeof name, "%lx", file->inode);
    long kept = sys_fd(SYS_openat, b->session->store.kept_fd, name, flags | O_CLOEXEC, 0);
    if (kept < 0)
        return fd;
    if (fd >= 0)
        sys(SYS_close, fd);
    return kept;
}

static int open_file(struct builder *b, uint32_t index, bool shared, uint32_t prot)
{
    struct file *file = &b->session->image.files[index];
    if (b->fds[index] >= 0 || b->error)
        return b->fds[index];
    long fd = MUTANT("restore.pin_unused", false, file->pin[0]) ? store_pin_open(&b->session->store, file->pin)
                           : open_shared(b, file, shared && (prot & PROT_WRITE) ? O_RDWR : O_RDONLY);
    /* Many libraries would take all the room above the program's numbers, of which none is taken yet. */
    long low = sys_failed(fd) ? fd : sys(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 3);
    if (!sys_failed(low)) {
        sys(SYS_close, fd);
        fd = low;
    }
    if (sys_failed(fd)) {
        say("cannot open %s, which the saved process had mapped (%s); put it back, or use --fresh",
            file->path, say_error(fd));
        b->error = (int)fd;
    }
    b->fds[index] = (int)fd;
    return (int)fd;
}

static void add_private_file(struct builder *b, const struct area *a)
{
    int fd = open_file(b, a->file, false, a->prot);
    if (b->noexec && (a->prot & PROT_EXEC) && b->session->image.files[a->file].pin[0]) {
        add_copy(b, a, fd);
        return;
    }
    bool changed = any_present(b, a->start, a->end);
    bool writable = a->prot & PROT_WRITE;
    add_map(b, a->start, a->end, changed ? a->prot | PROT_READ | PROT_WRITE : a->prot,
            MAP_PRIVATE | MAP_NORESERVE, fd, a->offset);
    if (!changed)
        return;
    add_reads(b, a->start, a->end);
    if (!writable || !(a->prot & PROT_READ))
        add_protect(b, a);
}

static void add_area(struct builder *b, const struct area *a)
{
    switch (a->kind) {
    case AREA_ANONYMOUS:
        add_anonymous(b, a);
        break;
    case AREA_STACK:
        add_stack(b, a);
        break;
    case AREA_FILE_PRIVATE:
        add_private_file(b, a);
        break;
    case AREA_FILE_SHARED:
        add_map(b, a->start, a->end, a->prot, MAP_SHARED, open_file(b, a->file, true, a->prot), a->offset);
        break;
    case AREA_SHARED_ANONYMOUS:
        add_map(b, a->start, a->end, a->prot | PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        add_reads(b, a->start, a->end);
        add_protect(b, a);
        break;
    }
}

static bool is_noexec(int fd)
{
    struct statfs system;
    return !sys_failed(sys(SYS_fstatfs, fd, &system)) && (system.f_flags & ST_NOEXEC);
}

static void fill_memory_map(struct plan *plan, const struct meta *m)
{
    const uint64_t map[] = {m->start_code, m->end_code, m->start_data, m->end_data, m->start_brk, m->brk,
                            m->start_stack, m->arg_start, m->arg_end, m->env_start, m->env_end,
                            0 /* auxv: keep */, (uint64_t)UINT32_MAX << 32 /* auxv_size 0, exe_fd -1 */};
    memcpy(plan->memory_map, map, sizeof map);
}

static void fill_registers(struct plan *plan, const struct meta *m, const struct restore_self *self)
{
    plan->window_start = window_base();
    plan->window_end = window_base() + WINDOW_BYTES;
    plan->old_rseq = self->rseq;
    plan->rseq_bytes = m->rseq_bytes ? m->rseq_bytes : self->rseq_bytes;
    plan->rseq_signature = self->rseq_signature;
    plan->new_rseq = m->rseq;
    plan->fs_base = m->fs_base;
    plan->gs_base = m->gs_base;
    plan->clear_child_tid = m->clear_child_tid;
    plan->robust_list = m->robust_list;
    plan->robust_list_bytes = m->robust_list_bytes;
    plan->context = m->context;
    static const char text[] = "ken: restore failed at step        ; the store is untouched\n";
    memcpy(plan->failure, text, sizeof text);
    plan->failure_bytes = sizeof text - 1;
    plan->failure_digits = 34;
    fill_memory_map(plan, m);
}

static _Noreturn void jump(struct plan *plan, char *blob, char *stack)
{
    uintptr_t entry = (uintptr_t)blob + ((uintptr_t)restorer_main - (uintptr_t)__start_ken_restorer);
    __asm__ volatile("movq %0, %%rsp\n\t"
                     "xorl %%ebp, %%ebp\n\t"
                     "call *%1"
                     :
                     : "r"(stack + STACK_BYTES), "r"(entry), "D"(plan)
                     : "memory");
    __builtin_unreachable();
}

int restore(struct session *s, const struct restore_self *self)
{
    const struct meta *meta = s->image.meta;
    size_t blob_bytes = (size_t)(__stop_ken_restorer - __start_ken_restorer);
    struct builder b = {.session = s, .noexec = is_noexec(s->image.fd)};
    b.plan = window_alloc(sizeof *b.plan);
    b.fds = window_alloc((meta->files + 1) * sizeof *b.fds);
    char *blob = window_alloc(blob_bytes), *stack = window_alloc(STACK_BYTES);
    if (!b.plan || !b.fds || !blob || !stack || !(b.plan->steps = window_alloc(STEP_MAX * sizeof(struct step))))
        return -ENOMEM;
    for (uint32_t f = 0; f < meta->files; f++)
        b.fds[f] = -1;
    s->mapped_fds = b.fds;
    s->mapped_count = meta->files;
    for (uint32_t a = 0; a < meta->areas; a++)
        add_area(&b, &s->image.areas[a]);
    FAULT("restore.planned");
    fill_registers(b.plan, meta, self);
    if (!b.error)
        b.error = vdso_plan(s, b.plan);
    if (b.error)
        return b.error;
    memcpy(blob, __start_ken_restorer, blob_bytes);
    long r = sys(SYS_mprotect, blob, PAGE_UP(blob_bytes), PROT_READ | PROT_EXEC);
    if (sys_failed(r))
        return (int)r;
    b.plan->die_at = FAULT_DUE("restorer.entered")  ? RESTORER_ENTERED
                     : FAULT_DUE("restorer.unmapped") ? RESTORER_UNMAPPED
                     : FAULT_DUE("restorer.mapping")  ? RESTORER_MAPPING
                     : FAULT_DUE("restorer.mapped")   ? RESTORER_MAPPED
                     : FAULT_DUE("restorer.dressed")  ? RESTORER_DRESSED
                                                      : 0;
    fault_plan(b.plan);
    FAULT("restore.jump");
    jump(b.plan, blob, stack);
}

void restore_done(struct session *s)
{
    for (uint32_t f = 0; f < s->mapped_count; f++)
        if (s->mapped_fds[f] >= 0)
            sys(SYS_close, s->mapped_fds[f]);
    fault_plan_done();
    FAULT("restore.done");
    s->mapped_count = 0;
}
