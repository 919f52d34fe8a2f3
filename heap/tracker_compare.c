/* Takes every page that holds private memory for written, and those that held some when the last pass began: they
 * may have been dropped. What really changed is found by comparing, which is done with every tracker's pages. */
#include "heap/tracker_backend.h"

int compare_look(struct tracker *t)
{
    struct page_range out[128];
    int r = 0;
    pages_clear(&t->fresh);
    for (size_t i = 0; i < t->tracked.count; i++) {
        uintptr_t at = t->tracked.at[i].start, end = t->tracked.at[i].end;
        while (at < end) {
            long n = pagemap_populated(&t->pagemap, at, end, out, 128, &at);
            for (long k = 0; !r && k < n; k++)
                r = pages_add(&t->fresh, out[k].start, out[k].end);
            if (n < 0 || r)
                return n < 0 ? (int)n : r;
        }
    }
    for (size_t i = 0; !r && i < t->held.count; i++)
        r = pages_add(&t->pending, t->held.at[i].start, t->held.at[i].end);
    for (size_t i = 0; !r && i < t->fresh.count; i++)
        r = pages_add(&t->pending, t->fresh.at[i].start, t->fresh.at[i].end);
    if (r)
        return r;
    struct pages held = t->held;
    t->held = t->fresh;
    t->fresh = held;
    return 0;
}
