/* Names of files that libken looks after (call_names.c). */
#ifndef KEN_SHIM_CALL_NAMES_H
#define KEN_SHIM_CALL_NAMES_H

/* The call has just made that name, which must be new when it is made again: it goes if this turn is lost. */
void names_made(const char *path);

#endif
