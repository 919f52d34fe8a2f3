/* Walking a stack with libunwind, whatever the registers and the memory come from. */
#ifndef KEN_HEAP_KENCTL_UNWIND_H
#define KEN_HEAP_KENCTL_UNWIND_H

#include "heap/kenctl_frames.h"

#include <libunwind.h>

struct stack {
    struct frame frames[2 * FRAMES_MOST];
    size_t count;
    bool whole; /* the outermost frame was reached */
    bool sent;  /* the topmost signal came from kill() or abort(), not from a fault */
};

/* Fills `stack`, frame by frame, so that what is there counts if the walk never returns. Every step must
 * change the frame, and their number is bounded. `access` and `argument` are as for libunwind's remote
 * unwinding. 0, or a libunwind error if there is no frame at all. One walk at a time. */
int stack_walk(struct stack *stack, const unw_accessors_t *access, void *argument);

/* Index of the first frame that is the program's, after those of libken on top of it.
 * stack_below_signal: libken was called by a signal; stack_below_libken: by the program. */
size_t stack_below_signal(const struct stack *stack, const struct objects *objects);
size_t stack_below_libken(const struct stack *stack, const struct objects *objects);

/* Prints from frame `first` on, numbered from 0, at most FRAMES_MOST. */
void stack_print(int fd, const char *prefix, const struct stack *stack, size_t first,
                 const struct objects *objects);

#endif
