/* The room above net/, for unit tests: a store directory, a page of progress, descriptors to spare. */
#ifndef KEN_TESTS_NET_HOST_H
#define KEN_TESTS_NET_HOST_H

#define _GNU_SOURCE
#include "net/adopt.h"
#include "net/fdtable.h"
#include "net/host.h"
#include "net/inbox.h"
#include "net/outbox.h"
#include "heap/sys.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static bool host_spared[2048]; /* what was open before the test: the test runner's */
static int host_directory = -1;
static void *host_page;
static uint64_t host_turn = 1;
static int host_layout_changes;

bool session_owns_fd(int fd)
{
    return fd >= 0 && fd < 2048 && host_spared[fd];
}

const char *session_root(void)
{
    return "";
}

long session_known_pid(long real)
{
    return real;
}

long session_real_pid(long known)
{
    return known;
}

bool session_has_child(long pid)
{
    return false;
}

int session_store_dirfd(void)
{
    return host_directory;
}

struct remote *session_remote(void)
{
    return NULL;
}

int session_kept_dirfd(void)
{
    return -1;
}

const uint8_t *session_identity(void)
{
    return NULL;
}

int session_thread(void)
{
    return -1;
}

struct progress *session_progress(void)
{
    return host_page;
}

bool session_mapped(uint64_t inode)
{
    (void)inode;
    return false;
}

bool session_layout_changing(void)
{
    return false;
}

void session_output_left(void)
{
}

void session_will_write(const void *at, size_t bytes)
{
    (void)at;
    (void)bytes;
}

void session_loose_claim(void *at, size_t bytes)
{
    (void)at;
    (void)bytes;
}

bool session_loose_write(void *at, size_t bytes)
{
    (void)at;
    (void)bytes;
    return true;
}

void session_loose_give_up(void *at, size_t bytes)
{
    (void)at;
    (void)bytes;
}

void session_layout_changed(void)
{
    host_layout_changes++;
}

uint64_t turn_number(void)
{
    return host_turn;
}

int64_t turn_clock_offset_ns(void)
{
    return 0;
}

static inline void host_spare(int fd, void *context)
{
    (void)context;
    if (fd >= 0 && fd < 2048)
        host_spared[fd] = true;
}

/* Everything that is open now is not the program's; a fresh store and page. */
static inline void host_open(void)
{
    char name[] = "/tmp/ken-net-XXXXXX";
    signal(SIGPIPE, SIG_IGN);
    fd_each_open(host_spare, NULL);
    cr_assert(mkdtemp(name));
    int fd = open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    cr_assert(fd >= 0);
    host_directory = fcntl(fd, F_DUPFD_CLOEXEC, 500);
    close(fd);
    host_spared[host_directory] = true;
    host_page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    cr_assert(host_page != MAP_FAILED);
}

static inline void host_close(void)
{
    char path[64], command[128];
    snprintf(command, sizeof command, "/proc/self/fd/%d", host_directory);
    ssize_t n = readlink(command, path, sizeof path - 1);
    path[n > 0 ? n : 0] = '\0';
    if (n > 12 && !strncmp(path, "/tmp/ken-net-", 13)) {
        snprintf(command, sizeof command, "rm -r %s", path);
        if (system(command))
            perror(command);
    }
}

#endif
