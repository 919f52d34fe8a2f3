#include "net/auth_gate.h"

/* A ticket is place + 1 + n * AUTH_PLACES: it names its place, and no later holder of the place has the same. */
static uint32_t place_of(long ticket)
{
    return (uint32_t)(ticket - 1) % AUTH_PLACES;
}

static bool too_fast(struct auth_gate *g, uint64_t now)
{
    if (now >= g->second_ends) {
        g->second_ends = now + 1000;
        g->begun = 0;
    }
    return g->begun >= AUTH_PER_SECOND;
}

/* A free place, or one whose holder is overdue; counts those of the same host. */
static int find_place(const struct auth_gate *g, const struct wire_address *from, uint64_t now, unsigned *of_one)
{
    int found = -1;
    *of_one = 0;
    for (int i = AUTH_PLACES - 1; i >= 0; i--) {
        if (g->places[i].until <= now)
            found = i;
        else if (!memcmp(g->places[i].address, from->bytes, sizeof from->bytes))
            ++*of_one;
    }
    return found;
}

long auth_gate_enter(struct auth_gate *g, const struct wire_address *from, uint64_t now)
{
    unsigned of_one;
    int i = find_place(g, from, now, &of_one);
    long error = too_fast(g, now) ? -EBUSY : of_one >= AUTH_PLACES_OF_ONE ? -EDQUOT : i < 0 ? -EUSERS : 0;
    if (error) {
        g->refused++;
        return error;
    }
    g->begun++;
    g->tickets = (g->tickets + 1) & 0xffffff;
    memcpy(g->places[i].address, from->bytes, sizeof from->bytes);
    g->places[i].until = now + AUTH_DEADLINE_MS;
    g->places[i].ticket = g->tickets * AUTH_PLACES + (uint32_t)i + 1;
    return g->places[i].ticket;
}

static bool holds(const struct auth_gate *g, long ticket)
{
    return ticket > 0 && g->places[place_of(ticket)].until && g->places[place_of(ticket)].ticket == ticket;
}

void auth_gate_leave(struct auth_gate *g, long ticket)
{
    if (holds(g, ticket))
        g->places[place_of(ticket)].until = 0;
}

bool auth_gate_admits(const struct auth_gate *g, long ticket, uint64_t now)
{
    return holds(g, ticket) && now < g->places[place_of(ticket)].until;
}
