/* Names of files that libken looks after (call_names.c). */
#ifndef KEN_SHIM_CALL_NAMES_H
#define KEN_SHIM_CALL_NAMES_H

#include <stdbool.h>

/* The call is about to make that name, unless it is there, and would do it again: it goes if this turn is lost. `lasting`: also if that
 * was by a loss of power, for which the disk is waited for. True: if the call fails, names_not_made() is to be called. */
bool names_making(int directory, const char *path, bool lasting);

/* Somebody else was faster, or the like. */
void names_not_made(int directory, const char *path);

#endif
