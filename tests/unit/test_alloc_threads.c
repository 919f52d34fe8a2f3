/* The allocator with threads and fork: objects freed by others, threads that end, children. */
#define _GNU_SOURCE
#include "heap/alloc.h"

#include <criterion/criterion.h>
#include <criterion/redirect.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define THREADS 4
#define SLOTS 512

static void *_Atomic slots[SLOTS];

static uint64_t draw(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    return *seed ^= *seed << 17;
}

/* Each block holds its size and a pattern; whoever takes it out of a slot verifies and frees it. */
static void *exchange(void *argument)
{
    uint64_t seed = (uintptr_t)argument * 7919 + 1;
    for (int i = 0; i < 100000; i++) {
        size_t bytes = 16 + draw(&seed) % (draw(&seed) % 16 ? 500 : 50000);
        unsigned char *p = alloc_malloc(bytes);
        memset(p, (int)(bytes % 251), bytes);
        memcpy(p, &bytes, sizeof bytes);
        unsigned char *old =
            __atomic_exchange_n((void **)&slots[draw(&seed) % SLOTS], p, __ATOMIC_ACQ_REL);
        if (!old)
            continue;
        memcpy(&bytes, old, sizeof bytes);
        for (size_t k = sizeof bytes; k < bytes; k++)
            if (old[k] != bytes % 251)
                return old;
        alloc_free(old);
    }
    return NULL;
}

static void run(void *(*work)(void *))
{
    pthread_t thread[THREADS];
    for (uintptr_t i = 0; i < THREADS; i++)
        pthread_create(&thread[i], NULL, work, (void *)(i + 1));
    for (int i = 0; i < THREADS; i++) {
        void *bad;
        pthread_join(thread[i], &bad);
        cr_assert_null(bad, "a block was given to two owners");
    }
}

static void free_slots(void)
{
    for (int i = 0; i < SLOTS; i++) {
        alloc_free(slots[i]);
        slots[i] = NULL;
    }
}

Test(alloc_threads, blocks_pass_between_threads)
{
    for (int round = 0; round < 3; round++) {
        run(exchange);
        cr_assert_eq(alloc_check(), 0);
    }
    free_slots();
    cr_assert_eq(alloc_check(), 0);
    struct alloc_stats stats;
    alloc_get_stats(&stats);
    cr_assert(stats.heaps <= THREADS + 1,
              "%zu heaps: those of ended threads are not taken up again", stats.heaps);
    cr_assert(stats.used_pages < 40 * 64, "%zu pages in use with nothing live", stats.used_pages);
}

static void *fill_slots(void *argument)
{
    for (int i = (int)(uintptr_t)argument - 1; i < SLOTS; i += THREADS)
        slots[i] = alloc_malloc(3000);
    return NULL;
}

Test(alloc_threads, what_a_dead_thread_left_is_freed_by_others)
{
    struct alloc_stats before, after;
    alloc_malloc(1);
    alloc_get_stats(&before);
    for (int round = 0; round < 50; round++) {
        run(fill_slots);
        free_slots();
    }
    cr_assert_eq(alloc_check(), 0);
    alloc_get_stats(&after);
    cr_assert(after.used_pages <= before.used_pages + 16 * (THREADS + 1));
}

static bool stop;

static void *churn(void *argument)
{
    void *held[64] = {0};
    uint64_t seed = (uintptr_t)argument + 5;
    while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
        uint64_t i = draw(&seed) % 64;
        alloc_free(held[i]);
        held[i] = alloc_malloc(draw(&seed) % 60000);
    }
    for (int i = 0; i < 64; i++)
        alloc_free(held[i]);
    return NULL;
}

static int child(void)
{
    if (alloc_check())
        return 1;
    pthread_t thread;
    __atomic_store_n(&stop, false, __ATOMIC_RELAXED);
    for (int i = 0; i < 20000; i++)
        alloc_free(memset(alloc_malloc((size_t)i), 1, (size_t)i));
    free_slots();
    pthread_create(&thread, NULL, fill_slots, (void *)1UL);
    pthread_join(thread, NULL);
    free_slots();
    return alloc_check() ? 2 : 0;
}

Test(alloc_threads, a_fork_child_goes_on_while_others_allocated)
{
#ifdef __SANITIZE_THREAD__
    cr_skip_test("the thread sanitizer has no new threads in the child of a process with threads");
#endif
    pthread_t thread[2];
    run(fill_slots);
    for (uintptr_t i = 0; i < 2; i++)
        pthread_create(&thread[i], NULL, churn, (void *)i);
    for (int round = 0; round < 40; round++) {
        alloc_fork_prepare();
        pid_t pid = fork();
        if (pid == 0) {
            alloc_fork_child();
            _exit(child());
        }
        alloc_fork_parent();
        int status = -1;
        waitpid(pid, &status, 0);
        cr_assert_eq(status, 0, "the child ended with status %x", (unsigned)status);
    }
    __atomic_store_n(&stop, true, __ATOMIC_RELAXED);
    for (int i = 0; i < 2; i++)
        pthread_join(thread[i], NULL);
    free_slots();
    cr_assert_eq(alloc_check(), 0);
}

static void *free_it(void *p)
{
    alloc_free(p);
    return NULL;
}

Test(alloc_threads, double_free_by_another_thread, .init = cr_redirect_stderr, .signal = SIGABRT)
{
    void *p = alloc_malloc(100);
    pthread_t thread;
    alloc_free(p);
    pthread_create(&thread, NULL, free_it, p);
    pthread_join(thread, NULL);
}

Test(alloc_threads, double_free_by_two_other_threads, .init = cr_redirect_stderr, .signal = SIGABRT)
{
    void *p = alloc_malloc(100);
    for (int i = 0; i < 2; i++) {
        pthread_t thread;
        pthread_create(&thread, NULL, free_it, p);
        pthread_join(thread, NULL);
    }
}
