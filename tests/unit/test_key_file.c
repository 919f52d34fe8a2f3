/* The key file: what is taken, and what is said about the rest. */
#include "net/key_file.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char directory[] = "/tmp/ken-key-XXXXXX";
static char path[64], why[300];
static struct auth_key key;
static const struct auth_key none;

static void setup(void)
{
    cr_assert(mkdtemp(directory));
    snprintf(path, sizeof path, "%s/key", directory);
}

static void teardown(void)
{
    unlink(path);
    rmdir(path);
    rmdir(directory);
}

static void put(const void *bytes, size_t length, mode_t mode)
{
    unlink(path);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
    cr_assert(fd >= 0 && write(fd, bytes, length) == (ssize_t)length);
    cr_assert_eq(fchmod(fd, mode), 0);
    close(fd);
}

static int load(void)
{
    key = none;
    why[0] = '\0';
    return key_file_load(path, &key, why, sizeof why);
}

static void refused(int error, const char *word)
{
    int r = load();
    cr_assert_eq(r, error, "%d, not %d: %s", r, error, why);
    cr_assert(strstr(why, word) && strstr(why, path) && !strncmp(why, "KEN_KEY_FILE ", 13), "%s", why);
    cr_assert(!memcmp(&key, &none, sizeof key), "a key that was not taken");
}

static unsigned char bytes[KEY_FILE_MOST + 1];

static void fill(unsigned seed)
{
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)(i * 7 + seed + i / 256);
}

TestSuite(key_file, .init = setup, .fini = teardown);

Test(key_file, sizes)
{
    fill(1);
    static const size_t good[] = {KEY_FILE_LEAST, KEY_FILE_LEAST + 1, 1000, KEY_FILE_MOST};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        put(bytes, good[i], 0600);
        cr_assert_eq(load(), 0, "%zu: %s", good[i], why);
        cr_assert(memcmp(&key, &none, sizeof key));
    }
    put(bytes, KEY_FILE_LEAST - 1, 0600);
    refused(-ERANGE, "too short");
    put(bytes, 0, 0600);
    refused(-ERANGE, "too short");
    put(bytes, KEY_FILE_MOST + 1, 0600);
    refused(-ERANGE, "too long");
}

Test(key_file, modes)
{
    fill(1);
    for (mode_t mode = 0; mode < 0100; mode++) {
        put(bytes, 64, 0600 | mode);
        if (mode)
            refused(-EACCES, "by others");
        else
            cr_assert_eq(load(), 0);
    }
    put(bytes, 64, 0400);
    cr_assert_eq(load(), 0);
}

Test(key_file, the_same_file_is_the_same_key_and_each_byte_counts)
{
    struct auth_key first;
    fill(1);
    put(bytes, 64, 0600);
    cr_assert_eq(load(), 0);
    first = key;
    cr_assert_eq(load(), 0);
    cr_assert(!memcmp(&first, &key, sizeof key));
    for (size_t i = 0; i < 64; i++) {
        bytes[i] ^= 0x10;
        put(bytes, 64, 0600);
        cr_assert_eq(load(), 0);
        cr_assert(memcmp(&first, &key, sizeof key), "byte %zu does not count", i);
        bytes[i] ^= 0x10;
    }
    put(bytes, 63, 0600);
    cr_assert_eq(load(), 0);
    cr_assert(memcmp(&first, &key, sizeof key));
}

Test(key_file, no_key_at_all)
{
    refused(-ENOENT, "cannot be opened (ENOENT)");
    cr_assert_eq(mkdir(path, 0700), 0);
    refused(-ENOTSUP, "not a regular file");
    rmdir(path);
    cr_assert_eq(mkfifo(path, 0600), 0);
    refused(-ENOTSUP, "not a regular file"); /* and it does not wait for a writer */
    unlink(path);
    memset(bytes, '0', sizeof bytes);
    put(bytes, 64, 0600);
    refused(-EINVAL, "same byte");
}

Test(key_file, another_users_file)
{
    if (geteuid() != 0)
        cr_skip_test("only root can give files away");
    fill(1);
    put(bytes, 64, 0600);
    cr_assert_eq(chown(path, 65534, 0), 0);
    refused(-EPERM, "another user");
    cr_assert_eq(chown(path, 0, 0), 0);
    cr_assert_eq(chmod(directory, 0711), 0);
    cr_assert_eq(seteuid(65534), 0);
    refused(-EACCES, "cannot be opened");
    cr_assert_eq(seteuid(0), 0);
}
