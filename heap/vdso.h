/* The vdso of the saved process: pointers to it are everywhere (GOT slots, _rtld_global_ro, auxv), so one
 * must be found at its old address after a restore.
 *
 * On the same kernel the new process's own vdso and its data pages are moved there. On another kernel the
 * saved copy is mapped as plain memory and each of its functions is patched to jump to the new one.
 * Source of the idea: CRIU, "vDSO" (criu.org/Vdso).
 */
#ifndef KEN_HEAP_VDSO_H
#define KEN_HEAP_VDSO_H

#include "heap/image.h"
#include "heap/mapping.h"
#include "heap/restorer.h"

struct session;

bool vdso_is_piece(const struct mapping_line *);
bool vdso_holds(const struct meta *, uintptr_t address);

/* Records where the running process's vdso lies, and its contents, in the metadata. */
void vdso_record(struct image *, const char *maps, const char *end);

/* Plans how the vdso gets to its old place. Returns 0 or -errno after a message. */
int vdso_plan(struct session *, struct plan *);

/* The offset of a function in a vdso image; 0 when it is not there. */
uintptr_t vdso_function(const uint8_t *elf, const char *name);

/* Patches the functions of the vdso image `old` (writable copy of `bytes`) to jump to those of the same
 * name in the vdso mapped at `target`, whose contents are `now`. Returns how many were patched. */
int vdso_patch(uint8_t *old, size_t bytes, const uint8_t *now, uintptr_t target);

#endif
