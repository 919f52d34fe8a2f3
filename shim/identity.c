#include "shim/identity.h"
#include "net/trouble.h"
#include "heap/proc.h"
#include "heap/say.h"
#include "heap/sys.h"

#include <cpuid.h>
#include <elf.h>
#include <string.h>
#include <unistd.h>

extern const char __ehdr_start[] __attribute__((visibility("hidden")));

/* The build id that the linker put into this object. */
static void own_build(uint8_t build[STORE_BUILD_BYTES])
{
    const Elf64_Ehdr *header = (const Elf64_Ehdr *)__ehdr_start;
    const Elf64_Phdr *segment = (const Elf64_Phdr *)(__ehdr_start + header->e_phoff);
    memset(build, 0, STORE_BUILD_BYTES);
    for (unsigned n = 0; n < header->e_phnum; n++) {
        if (segment[n].p_type != PT_NOTE)
            continue;
        const char *p = __ehdr_start + segment[n].p_vaddr, *end = p + segment[n].p_memsz;
        while (p + sizeof(Elf64_Nhdr) <= end) {
            const Elf64_Nhdr *note = (const Elf64_Nhdr *)p;
            const char *name = p + sizeof *note, *body = name + ((note->n_namesz + 3) & ~3u);
            if (note->n_type == NT_GNU_BUILD_ID && note->n_namesz == 4 && !memcmp(name, "GNU", 4))
                memcpy(build, body, note->n_descsz < STORE_BUILD_BYTES ? note->n_descsz : STORE_BUILD_BYTES);
            p = body + ((note->n_descsz + 3) & ~3u);
        }
    }
}

/* Feature words that a program's choice of code can depend on. Bits of leaf 7 EDX that tell of mitigations
 * come and go with microcode; they are left out. */
enum { CPU_1_ECX, CPU_1_EDX, CPU_7_EBX, CPU_7_ECX, CPU_7_EDX, CPU_XCR0, CPU_WORDS };

static void own_cpu(uint32_t cpu[CPU_WORDS])
{
    uint32_t a, b, c = 0, d = 0;
    memset(cpu, 0, CPU_WORDS * sizeof *cpu);
    if (__get_cpuid(1, &a, &b, &c, &d)) {
        cpu[CPU_1_ECX] = c & ~(1u << 31); /* "runs under a hypervisor" */
        cpu[CPU_1_EDX] = d;
    }
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
        cpu[CPU_7_EBX] = b;
        cpu[CPU_7_ECX] = c;
        cpu[CPU_7_EDX] = d & (1u << 2 | 1u << 3 | 1u << 4 | 1u << 8 | 1u << 14 | 7u << 22 | 1u << 25);
    }
    if (cpu[CPU_1_ECX] & (1u << 27)) { /* OSXSAVE */
        __asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
        cpu[CPU_XCR0] = a;
    }
}

static size_t executable_path(char *path, size_t bytes)
{
    long n = sys(SYS_readlink, "/proc/self/exe", path, bytes - 1);
    path[n > 0 ? n : 0] = '\0';
    return n > 0 ? (size_t)n : 0;
}

void identity_program(char *name, size_t bytes)
{
    char path[1024];
    executable_path(path, sizeof path);
    const char *slash = strrchr(path, '/');
    say_format(name, bytes, "%s", slash ? slash + 1 : path);
}

void identity_birth(struct store_birth *birth, char **argv, char *command, size_t bytes)
{
    static char path[1024];
    own_build(birth->build);
    own_cpu(birth->cpu);
    birth->cpu_words = CPU_WORDS;
    executable_path(path, sizeof path);
    birth->executable = path;
    size_t used = 0;
    command[0] = '\0';
    for (char **a = argv; *a && used + 2 < bytes; a++)
        used += say_format(command + used, bytes - used, a == argv ? "%s" : " %s", *a);
    for (size_t i = 0; i < used; i++)
        if ((unsigned char)command[i] < ' ')
            command[i] = '?';
    birth->command = command;
}

static const char *const cpu_names[CPU_WORDS] = {"leaf 1 ECX", "leaf 1 EDX", "leaf 7 EBX",
                                                 "leaf 7 ECX", "leaf 7 EDX", "XCR0"};

static bool cpu_matches(const struct super *super, char *line, size_t bytes)
{
    uint32_t cpu[CPU_WORDS];
    own_cpu(cpu);
    for (unsigned w = 0; w < CPU_WORDS && w < super->cpu_words; w++) {
        uint32_t missing = super->cpu[w] & ~cpu[w];
        if (!missing)
            continue;
        say_format(line, bytes,
                   "this CPU lacks features that the saved process may use (CPUID %s bits 0x%x); resume it on a CPU "
                   "that has them, or use --fresh",
                   cpu_names[w], missing);
        return false;
    }
    return true;
}

static void hex(char *text, const uint8_t *bytes, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        say_format(text + 2 * i, 3, "%c%c", "0123456789abcdef"[bytes[i] >> 4], "0123456789abcdef"[bytes[i] & 15]);
}

bool identity_matches(const struct super *super, char *line, size_t bytes)
{
    uint8_t build[STORE_BUILD_BYTES];
    own_build(build);
    if (memcmp(build, super->build, sizeof build) != 0) {
        char theirs[17], ours[17];
        hex(theirs, super->build, 8);
        hex(ours, build, 8);
        say_format(line, bytes,
                   "the store was made by another build of libken (%s, this is %s); resume it with that build "
                   "(it is kept in the store's pin directory), or use --fresh",
                   theirs, ours);
        return false;
    }
    return cpu_matches(super, line, bytes);
}

/* Fields of /proc/self/stat are numbered from 1; field 2 is in parentheses. Source: proc(5). */
void identity_memory_map(struct meta *m)
{
    char text[2048];
    uint64_t field[53] = {0};
    /* What could not be read now would be missing in every later incarnation. */
    trouble_none(proc_read("self/stat", text, sizeof text), "read /proc/self/stat");
    const char *p = strrchr(text, ')');
    for (unsigned at = 3; p && *p && at < 53; p++) {
        if (*p == ' ' && p[1] != ' ' && p != text && p[-1] == ')')
            continue;
        if (*p == ' ')
            at++;
        else if (*p >= '0' && *p <= '9')
            field[at] = field[at] * 10 + (uint64_t)(*p - '0');
    }
    m->start_code = field[26];
    m->end_code = field[27];
    m->start_stack = field[28];
    m->start_data = field[45];
    m->end_data = field[46];
    m->start_brk = field[47];
    m->arg_start = field[48];
    m->arg_end = field[49];
    m->env_start = field[50];
    m->env_end = field[51];
    m->brk = (uint64_t)sys(SYS_brk, 0);
}

void identity_find_kenctl(char *path, size_t bytes, const char *library)
{
    static const char *const places[] = {"kenctl", "scripts/kenctl", "heap/kenctl", "../bin/kenctl",
                                         "../../bin/kenctl", "../libexec/libken/kenctl"};
    const char *slash = strrchr(library, '/');
    for (unsigned i = 0; slash && i < sizeof places / sizeof *places; i++) {
        char directory[1024];
        say_format(directory, sizeof directory, "%s", library);
        directory[slash - library] = '\0';
        if (say_format(path, bytes, "%s/%s", directory, places[i]) + 1 < bytes &&
            !sys_failed(sys(SYS_access, path, X_OK)))
            return;
    }
    path[0] = '\0';
}
