/* What a process and its children of fork tell each other, in a page that they share: see heir.h. */
#ifndef KEN_SHIM_HEIR_TIE_H
#define KEN_SHIM_HEIR_TIE_H

#include "heap/sys.h"

#include <stdbool.h>
#include <stdint.h>

#define TIES 62

enum { CANDIDATE = 1, LEADER, TAKING, TAKEN, DECLINED };
enum { LIVES = 1, LEAVES, RELEASED, PROMOTED };

/* One fork's child and parent. Both words are futexes. */
struct tie {
    uint64_t ticket;
    uint64_t promoted;   /* the ticket that the child now has, for its parent's */
    uint64_t up;         /* its parent's own, when that is a candidate, too */
    uint32_t state;      /* of the child; written by both, by compare and exchange */
    uint32_t parent;     /* of the parent; written by it */
    int32_t pid;         /* of the child */
    uint32_t leads;      /* the child itself called setsid() */
    uint32_t signalling; /* so many are about to send it a signal: the child must not exec just now */
    int32_t first_pid;   /* of the one that was forked, whoever is in its place */
    bool exited;         /* that one was a candidate to its end: who may go on for it is in the page */
    uint32_t of_protected;
    uint32_t inherited; /* it leads only because its parent does: it is the second of two forks, or not concerned */
};

struct lineage {
    uint64_t tickets;
    int32_t guard; /* pid of the protected process: it holds the store's lock */
    int32_t taker; /* and of the one that is about to have it */
    struct tie ties[TIES];
};

_Static_assert(sizeof(struct lineage) <= PAGE_BYTES, "one page");

/* NULL when others have been through the place since. */
struct tie *tie_find(struct lineage *, uint64_t ticket);

/* A new one, of a child that is yet to be made; *ticket leads to it. */
struct tie *tie_make(struct lineage *, uint64_t *ticket);

/* Words are read and written in one order that all see; writing wakes who waits for a change. */
uint32_t tie_look(const uint32_t *word);
void tie_put(uint32_t *word, uint32_t value);

/* The state becomes `to` if it is `from`. */
bool tie_change(struct tie *, uint32_t from, uint32_t to);

/* Waits until the word is another than `value`; false after `ms`. */
bool tie_await(const uint32_t *word, uint32_t value, long ms);

/* Whether it is still open who the program will be; and no: the child is plain, and hears of it at once if it leads. NULL: nobody. */
bool tie_is_open(const struct tie *);
void tie_decline(struct tie *);

/* Whether a process is dead: it has exited, or was killed. */
bool tie_ended(int32_t pid);

/* Sends the child THREADS_SIGNAL if it leads; and waits, in the child that is plain now, until nobody is about to. */
void tie_urge(struct tie *);
void tie_unurged(struct tie *);

/* True when the child has died without another in its place. */
bool tie_is_dead(const struct tie *);

/* The end of the protected process sends its latest candidate a signal, also a child's child. In the protected process;
 * in the child; when the child is none any more. */
void life_open(void);
void life_watch(void);
void life_leave(void);

#endif
