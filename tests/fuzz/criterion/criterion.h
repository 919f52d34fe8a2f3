/* For the unit tests' fixtures in a fuzz target: what is not so is a crash. */
#include <stdio.h>
#include <stdlib.h>

#define cr_assert(condition, ...)                                                                                      \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                            \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)
#define cr_assert_eq(a, b) cr_assert((a) == (b))
#define cr_assert_geq(a, b) cr_assert((a) >= (b))
