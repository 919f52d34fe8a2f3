/* What net/ asks of the room above it (net/host.h). */
#include "heap/session.h"
#include "net/host.h"
#include "shim/call_time.h"
#include "shim/children.h"
#include "shim/credentials.h"
#include "shim/process.h"
#include "shim/thread.h"
#include "shim/threads.h"

#include <time.h>

static bool is_tracker_fd(const struct tracker *t, int fd)
{
    return fd == t->uffd || fd == t->pagemap.fd || fd == t->clear_refs;
}

static bool is_log_fd(const struct log *l, int fd)
{
    for (unsigned n = 0; n < 2; n++)
        if (fd == l->segment[n].direct_fd || fd == l->segment[n].buffered_fd)
            return true;
    return l->ring.mapped && fd == l->ring.uring.ring_fd;
}

bool session_owns_fd(int fd)
{
    const struct session *s = session;
    return s && (fd == s->store.directory_fd || fd == s->store.lock_fd || fd == s->store.kept_fd || fd == s->store.image_fd ||
                 fd == s->maps_fd || fd == s->proc_fd || fd == s->memory_fd || fd == s->error_fd || fd == s->chaos.fd || fd == s->life[0] || fd == s->life[1] ||
                 is_log_fd(&s->log, fd) || is_tracker_fd(&s->tracker, fd));
}

const char *session_root(void)
{
    return credentials_root();
}

int session_store_dirfd(void)
{
    return session && !session->apart ? session->store.directory_fd : -1;
}

int session_kept_dirfd(void)
{
    return session && !session->apart ? session->store.kept_fd : -1;
}

const uint8_t *session_identity(void)
{
    return session && !session->apart ? session->store.super.id.bytes : NULL;
}

int session_thread(void)
{
    return threads_many ? (int)thread_self()->peer : -1;
}

struct progress *session_progress(void)
{
    return session && !session->apart ? session->progress : NULL;
}

void session_output_left(void)
{
    if (session && !session->apart)
        chaos_at(&session->chaos, CHAOS_LEAVING, turn_number());
}

void session_will_write(const void *at, size_t bytes)
{
    if (session && !session->apart)
        tracker_expect(&session->tracker, PAGE_DOWN((uintptr_t)at), PAGE_UP((uintptr_t)at + bytes));
}

void session_loose_claim(void *at, size_t bytes)
{
    loose_claim((uintptr_t)at, (uintptr_t)at + bytes);
}

bool session_loose_write(void *at, size_t bytes)
{
    return !session || session->apart || loose_write(&session->loose, (uintptr_t)at, (uintptr_t)at + bytes);
}

void session_loose_give_up(void *at, size_t bytes)
{
    if (session && !session->apart)
        loose_give_up(&session->loose, (uintptr_t)at, (uintptr_t)at + bytes);
}

void session_layout_changed(void)
{
    if (session)
        session->areas.stale = true;
}

bool session_layout_changing(void)
{
    return session && session->areas.stale;
}

bool session_mapped(uint64_t inode)
{
    const struct image *i = session ? &session->image : NULL;
    for (uint32_t k = 0; i && k < i->meta->areas; k++)
        if (i->areas[k].kind == AREA_FILE_SHARED && i->files[i->areas[k].file].inode == inode)
            return true;
    return false;
}

long session_known_pid(long real)
{
    return process_known_pid(real);
}

long session_real_pid(long known)
{
    return process_real_pid(known);
}

bool session_has_child(long pid)
{
    return children_has(pid);
}

struct remote *session_remote(void)
{
    return session ? session->remote : NULL;
}

int64_t turn_clock_offset_ns(void)
{
    return time_offset_ns(CLOCK_MONOTONIC);
}
