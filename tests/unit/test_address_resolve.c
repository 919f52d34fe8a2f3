/* Names in KEN_PEERS, resolved by the real getent and by stand-ins that are slow, silent, loud or missing. */
#include "net/address_resolve.h"
#include "net/address_text.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static struct address_list list;
static char directory[] = "/tmp/ken-getent-XXXXXX", script[64];

static void read_list(const char *text)
{
    const char *wrong;
    size_t n;
    cr_assert_eq(address_list_read(&list, text, &wrong, &n), 0);
}

static void write_script(const char *body)
{
    cr_assert(mkdtemp(directory));
    snprintf(script, sizeof script, "%s/getent", directory);
    FILE *f = fopen(script, "w");
    fprintf(f, "#!/bin/sh\n%s\n", body);
    fclose(f);
    cr_assert_eq(chmod(script, 0700), 0);
}

static void clean(void)
{
    unlink(script);
    rmdir(directory);
}

static enum listed match(const char *text)
{
    struct wire_address a;
    cr_assert(address_scan(&a, text, strlen(text)));
    return address_list_match(&list, &a);
}

static long error;

TestSuite(address_resolve, .fini = clean);

Test(address_resolve, the_real_one_knows_localhost_and_leaves_no_child)
{
    if (access(ADDRESS_GETENT, X_OK) != 0)
        cr_skip_test("no " ADDRESS_GETENT);
    read_list("localhost:7001");
    cr_assert_eq(address_resolve(&list, ADDRESS_GETENT, 5000, &error), -1);
    struct wire_address v4, v6;
    address_scan(&v4, "127.0.0.1", 9);
    address_scan(&v6, "::1", 3);
    v4.port = v6.port = (uint16_t)(7001 << 8 | 7001 >> 8);
    cr_assert(address_list_match(&list, &v4) == LISTED_YES || address_list_match(&list, &v6) == LISTED_YES);
    cr_assert(waitpid(-1, NULL, __WALL | WNOHANG) == -1 && errno == ECHILD);
}

Test(address_resolve, all_addresses_of_a_name_once_and_names_by_themselves)
{
    write_script("test \"$1\" = ahosts || exit 1\n"
                 "case $2 in\n"
                 "a) printf '10.0.0.1 STREAM a\\n10.0.0.1 DGRAM\\nfd00::7 STREAM\\n10.0.0.2 RAW\\nfe80::1%%eth0 x\\nrubbish\\n\\n' ;;\n"
                 "b.c) printf '10.0.0.3' ;;\n"
                 "esac");
    read_list("a,10.9.0.0/16,b.c");
    cr_assert_eq(address_resolve(&list, script, 5000, &error), -1);
    cr_assert_eq(list.entries, 5);
    cr_assert(match("10.0.0.1") && match("10.0.0.2") && match("fd00::7") && match("10.0.0.3"));
    cr_assert_eq(match("10.0.0.4"), LISTED_NO);
}

Test(address_resolve, a_name_without_address_is_named)
{
    write_script("test \"$2\" = good && echo 10.0.0.1; exit 2");
    read_list("good bad good");
    cr_assert_eq(address_resolve(&list, script, 5000, &error), 1);
    cr_assert_eq(error, 0);
}

Test(address_resolve, who_takes_too_long_is_ended)
{
    struct timespec from, to;
    write_script("echo 10.0.0.1; exec sleep 30");
    read_list("slow");
    clock_gettime(CLOCK_MONOTONIC, &from);
    cr_assert_eq(address_resolve(&list, script, 300, &error), 0);
    clock_gettime(CLOCK_MONOTONIC, &to);
    cr_assert_leq(to.tv_sec - from.tv_sec, 2);
    cr_assert_eq(list.entries, 0);
    cr_assert(waitpid(-1, NULL, __WALL | WNOHANG) == -1 && errno == ECHILD);
}

Test(address_resolve, endless_output_and_no_getent)
{
    write_script("while echo 10.0.0.1; do :; done 2>/dev/null");
    read_list("loud");
    cr_assert_eq(address_resolve(&list, script, 5000, &error), -1);
    cr_assert_eq(list.entries, 1);
    read_list("name");
    cr_assert_eq(address_resolve(&list, "/no/such/getent", 5000, &error), 0);
    cr_assert_eq(error, -ENOENT);
}
