/* The gate before handshakes, and the complaints about peers: both with a clock of their own. */
#include "net/auth_gate.h"
#include "net/complaint.h"
#include "heap/say.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <unistd.h>

static struct auth_gate gate;
static struct complaints table;

static struct wire_address host(unsigned n)
{
    struct wire_address a = {.port = 1};
    memcpy(a.bytes, &n, sizeof n);
    return a;
}

static long enter(unsigned n, uint64_t now)
{
    struct wire_address a = host(n);
    a.port = (uint16_t)now; /* a host is not another one at another port */
    return auth_gate_enter(&gate, &a, now);
}

Test(auth_gate, a_flood_from_everywhere_gets_so_many_places_and_no_more)
{
    long first = enter(0, 100);
    for (unsigned i = 1; i < AUTH_PLACES; i++)
        cr_assert_gt(enter(i, 100), 0);
    for (unsigned i = 0; i < 100; i++)
        cr_assert_eq(enter(1000 + i, 200), -EUSERS);
    cr_assert_eq(gate.refused, 100);
    auth_gate_leave(&gate, first);
    cr_assert_gt(enter(2000, 200), 0);
    cr_assert_eq(enter(2001, 200), -EUSERS);
}

Test(auth_gate, one_host_cannot_keep_the_others_out)
{
    for (unsigned i = 0; i < AUTH_PLACES_OF_ONE; i++)
        cr_assert_gt(enter(7, 100 + i), 0);
    cr_assert_eq(enter(7, 200), -EDQUOT);
    cr_assert_gt(enter(8, 200), 0);
}

Test(auth_gate, a_place_is_lost_at_its_deadline)
{
    long ticket = enter(7, 100);
    cr_assert(auth_gate_admits(&gate, ticket, 100 + AUTH_DEADLINE_MS - 1));
    cr_assert_not(auth_gate_admits(&gate, ticket, 100 + AUTH_DEADLINE_MS));
    for (unsigned i = 0; i < AUTH_PLACES; i++)
        cr_assert_gt(enter(100 + i, 100 + AUTH_DEADLINE_MS), 0);
    auth_gate_leave(&gate, ticket); /* another one holds that place: it stays */
    cr_assert_eq(enter(300, 100 + AUTH_DEADLINE_MS), -EUSERS);
    cr_assert_not(auth_gate_admits(&gate, ticket, 100));
}

Test(auth_gate, so_many_begin_in_a_second)
{
    for (unsigned i = 0; i < AUTH_PER_SECOND; i++)
        auth_gate_leave(&gate, enter(i, 100));
    cr_assert_eq(enter(1, 1099), -EBUSY);
    cr_assert_gt(enter(1, 1100), 0);
}

Test(auth_gate, tickets_stay_valid_numbers_for_ever)
{
    gate.tickets = 0xfffffe;
    for (unsigned i = 0; i < 10; i++) {
        long ticket = enter(1, i * 2000);
        cr_assert(ticket > 0 && auth_gate_admits(&gate, ticket, i * 2000), "%ld", ticket);
        auth_gate_leave(&gate, ticket);
        cr_assert_not(auth_gate_admits(&gate, ticket, i * 2000));
    }
    cr_assert_not(auth_gate_admits(&gate, 0, 0));
    cr_assert_not(auth_gate_admits(&gate, -EUSERS, 0));
}

Test(complaint, one_line_for_a_host_in_a_minute)
{
    struct wire_address a = host(1), b = host(2);
    unsigned unsaid = 99;
    cr_assert(complaint_due(&table, &a, 50, &unsaid) && unsaid == 0);
    for (unsigned i = 0; i < 1000; i++) {
        a.port++;
        cr_assert_not(complaint_due(&table, &a, 50 + i, &unsaid));
    }
    cr_assert(complaint_due(&table, &b, 60, &unsaid) && unsaid == 0);
    cr_assert(complaint_due(&table, &a, 50 + COMPLAINT_MS, &unsaid));
    cr_assert_eq(unsaid, 1000);
}

Test(complaint, so_many_lines_in_a_minute_altogether)
{
    unsigned unsaid, lines = 0;
    for (unsigned i = 1; i <= 10000; i++) {
        struct wire_address a = host(i);
        lines += complaint_due(&table, &a, 50 + i, &unsaid);
    }
    cr_assert_eq(lines, COMPLAINT_HOSTS);
    struct wire_address a = host(20000);
    cr_assert(complaint_due(&table, &a, 60 + COMPLAINT_MS, &unsaid));
}

Test(complaint, the_line_names_the_peer_and_why)
{
    char line[200] = "";
    int ends[2];
    cr_assert_eq(pipe2(ends, O_NONBLOCK), 0);
    struct wire_address a = {.bytes = {[10] = 0xff, 0xff, 10, 1, 2, 3}, .port = 0x5a1b};
    say_to(ends[1]);
    complaint_say(&table, &a, 1, "its key is not ours");
    complaint_say(&table, &a, 2, "its key is not ours");
    complaint_say(&table, &a, 3, "its key is not ours");
    ssize_t n = read(ends[0], line, sizeof line - 1);
    cr_assert_gt(n, 0);
    cr_assert_str_eq(line, "ken: peer 10.1.2.3:7002: the connection was dropped: its key is not ours\n");
    memset(line, 0, sizeof line);
    complaint_say(&table, &a, 1 + COMPLAINT_MS, "another reason");
    cr_assert_gt(read(ends[0], line, sizeof line - 1), 0);
    cr_assert(strstr(line, "another reason (and 2 more since"), "%s", line);
}
