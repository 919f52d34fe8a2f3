#include "net/complaint.h"
#include "net/address_text.h"
#include "heap/say.h"

static int find_host(const struct complaints *c, const struct wire_address *about)
{
    for (int i = 0; i < COMPLAINT_HOSTS; i++)
        if (c->hosts[i].until && !memcmp(c->hosts[i].address, about->bytes, sizeof about->bytes))
            return i;
    return -1;
}

/* A free entry, else the one that has been allowed to speak again for the longest time; -1: there is none. */
static int find_room(const struct complaints *c, uint64_t now)
{
    int oldest = 0;
    for (int i = 0; i < COMPLAINT_HOSTS; i++)
        if (c->hosts[i].until < c->hosts[oldest].until)
            oldest = i;
    return c->hosts[oldest].until <= now ? oldest : -1;
}

bool complaint_due(struct complaints *c, const struct wire_address *about, uint64_t now, unsigned *unsaid)
{
    int i = find_host(c, about);
    if (i >= 0 && now < c->hosts[i].until) {
        c->hosts[i].unsaid += c->hosts[i].unsaid < UINT32_MAX;
        return false;
    }
    *unsaid = i >= 0 ? c->hosts[i].unsaid : 0;
    if (i < 0 && (i = find_room(c, now)) < 0)
        return false;
    memcpy(c->hosts[i].address, about->bytes, sizeof about->bytes);
    c->hosts[i].until = now + COMPLAINT_MS;
    c->hosts[i].unsaid = 0;
    return true;
}

void complaint_say(struct complaints *c, const struct wire_address *about, uint64_t now, const char *why)
{
    char text[ADDRESS_TEXT];
    unsigned unsaid;
    if (!complaint_due(c, about, now, &unsaid))
        return;
    address_print(text, about);
    if (unsaid)
        say("peer %s: the connection was dropped: %s (and %u more since the last such line)", text, why, unsaid);
    else
        say("peer %s: the connection was dropped: %s", text, why);
}
