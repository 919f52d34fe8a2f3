/* The table itself: slots, descriptions, duplicates, what is external. */
#include "net_host.h"

#include "net/pool.h"

#include <sys/epoll.h>

TestSuite(fdtable, .init = host_open, .fini = host_close);

Test(fdtable, duplicates_share_a_description)
{
    int fd = open("/dev/null", O_RDWR);
    struct description *d = fd_adopt(fd, 0);
    int other = dup(fd);
    fd_duplicate(fd, other, true);
    cr_assert_eq(fd_find(other), d);
    cr_assert_eq(d->refs, 2);
    cr_assert_eq(fd_slots[other].close_on_exec, 1);
    cr_assert_eq(fd_slots[fd].close_on_exec, 0);
    fd_forget(fd);
    cr_assert_null(fd_peek(fd));
    cr_assert_eq(fd_peek(other), d);
    fd_forget(other);
    cr_assert_eq(d->kind, FD_FREE);
}

Test(fdtable, a_duplicate_over_another_replaces_it)
{
    int a = open("/dev/null", O_RDONLY), b = open("/", O_RDONLY | O_DIRECTORY);
    struct description *da = fd_adopt(a, 0), *db = fd_adopt(b, 0);
    cr_assert_eq(da->kind, FD_DEVICE);
    cr_assert_eq(db->kind, FD_DIR);
    dup2(a, b);
    fd_duplicate(a, b, false);
    cr_assert_eq(fd_find(b), da);
    cr_assert_eq(db->kind, FD_FREE);
    fd_duplicate(b, b, false);
    cr_assert_eq(da->refs, 2);
}

Test(fdtable, a_freed_description_is_used_again)
{
    int a = open("/dev/null", O_RDONLY);
    struct description *d = fd_enter(a, FD_DEVICE, O_RDONLY | O_CLOEXEC);
    uint32_t serial = d->serial;
    cr_assert_eq(fd_slots[a].close_on_exec, 1);
    cr_assert_eq(d->flags & O_CLOEXEC, 0);
    fd_forget(a);
    cr_assert_eq(fd_enter(a, FD_DEVICE, 0), d);
    cr_assert_gt(d->serial, serial);
}

Test(fdtable, unknown_ones_are_adopted_and_ours_are_hidden)
{
    int a = open("/dev/null", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    struct description *d = fd_find(a);
    cr_assert(d);
    cr_assert(d->flags & O_NONBLOCK);
    cr_assert_eq(fd_slots[a].close_on_exec, 1);
    cr_assert_null(fd_find(a + 1));
    cr_assert_null(fd_find(-1));
    cr_assert_null(fd_find(FD_LIMIT));
    host_spared[a + 1] = true;
    dup2(a, a + 1);
    cr_assert_null(fd_find(a + 1));
    host_spared[a + 1] = false;
}

Test(fdtable, kinds_are_told_apart)
{
    int ends[2], pair[2];
    cr_assert_eq(pipe(ends), 0);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    cr_assert_eq(fd_find(ends[0])->kind, FD_FIFO);
    cr_assert_eq(fd_find(pair[0])->kind, FD_SOCKET);
    cr_assert_eq(fd_find(epoll_create1(0))->kind, FD_EPOLL);
    cr_assert_eq(fd_find(open("/proc/self/exe", O_RDONLY))->kind, FD_FILE);
}

Test(fdtable, internal_pipes_become_external_by_a_fork)
{
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    fd_enter(ends[0], FD_PIPE, O_RDONLY);
    fd_enter(ends[1], FD_PIPE, O_WRONLY);
    fd_pair(ends[0], ends[1]);
    cr_assert_not(fd_is_external(fd_find(ends[1])));
    fd_forked();
    cr_assert(fd_is_external(fd_find(ends[1])));
}

Test(fdtable, the_inherited_stderr_is_exempt)
{
    int ends[2];
    cr_assert_eq(pipe(ends), 0);
    cr_assert(fd_is_external(fd_adopt(ends[1], FD_INHERITED)));
    fd_forget(ends[1]);
    cr_assert_not(fd_is_external(fd_adopt(ends[1], FD_INHERITED | FD_EXEMPT)));
    fd_duplicate(ends[1], 300, false);
    cr_assert_not(fd_is_external(fd_find(300)));
}

Test(fdtable, a_closed_descriptor_is_watched_no_more)
{
    int epoll = epoll_create1(0), ends[2];
    cr_assert_eq(pipe(ends), 0);
    int index = fd_index(fd_adopt(epoll, 0));
    fd_adopt(ends[0], 0);
    cr_assert_null(*fd_watch(index, ends[0]));
    struct epoll_watch *w = pool_take(sizeof *w);
    *w = (struct epoll_watch){.epoll = index, .events = EPOLLIN};
    *fd_watch(index, ends[0]) = w;
    cr_assert_eq(*fd_watch(index, ends[0]), w);
    cr_assert_null(*fd_watch(index + 1, ends[0]));
    fd_forget(ends[0]);
    cr_assert_null(fd_slots[ends[0]].watches);
    w = pool_take(sizeof *w);
    *w = (struct epoll_watch){.epoll = index, .events = EPOLLIN};
    fd_adopt(ends[1], 0);
    *fd_watch(index, ends[1]) = w;
    fd_forget(epoll);
    cr_assert_null(fd_slots[ends[1]].watches, "nor by an epoll that is closed");
}

Test(fdtable, many_come_and_go)
{
    int base = open("/dev/null", O_RDONLY);
    fd_adopt(base, 0);
    for (int i = 0; i < 20000; i++) {
        int fd = 600 + rand() % 800;
        if (fd_peek(fd))
            fd_forget(fd);
        else if (rand() % 2)
            fd_duplicate(base, fd, false);
        else
            fd_enter(fd, FD_DEVICE, O_RDONLY);
    }
    int refs = 0, live = 0;
    for (int fd = 0; fd <= fd_highest; fd++)
        live += fd_peek(fd) != NULL;
    for (int i = 0; i < fd_descriptions(); i++)
        if (fd_description(i)->kind != FD_FREE)
            refs += fd_description(i)->refs;
    cr_assert_eq(refs, live);
}
