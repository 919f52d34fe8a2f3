/* The descriptor table: what each descriptor of the program is and how to make it again.
 *
 * A slot per descriptor number leads to a description, which dup()ed descriptors share, as in the kernel:
 * offset and status flags belong to the description. All of it is ordinary memory: it is committed and
 * rolled back with the program. The kernel's side is brought in by fd_capture() (before a commit) and made
 * again by fd_reopen() (in a new process). Not thread-safe; callers hold signals off.
 */
#ifndef KEN_NET_FDTABLE_H
#define KEN_NET_FDTABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#define FD_LIMIT 16384 /* descriptors from here on are passed through, unprotected */

enum fd_kind {
    FD_FREE,
    FD_FILE,   /* regular */
    FD_DIR,
    FD_DEVICE, /* a character or block device that is no terminal, such as /dev/null */
    FD_TTY,
    FD_FIFO,   /* an inherited pipe, or a named one */
    FD_PIPE,   /* one end of a pipe that the program made */
    FD_SOCKET,
    FD_EPOLL,
    FD_EVENT,
    FD_TIMER,
    FD_SIGNAL,
    FD_INOTIFY,
    FD_MEMFD,
    FD_PIDFD,
    FD_OTHER,  /* cannot be made again */
};

enum fd_bits {
    FD_INHERITED = 1, /* open at the start: adopted again from a new process */
    FD_EXEMPT = 2,    /* the inherited stderr: what is written leaves at once */
    FD_SHARED = 4,    /* a child of fork has it too: what is written to it is held */
    FD_INTERNAL = 8,  /* both ends are the program's own (pipe, socketpair) */
    FD_TOUCHED = 16,  /* to be looked at by the next fd_capture() */
    FD_NAMED = 32,    /* a file's path, device and inode are known */
    FD_BROKEN = 64,   /* could not be made again, or a stream that was cut */
    FD_JOURNAL = 128, /* input goes through an inbox */
    FD_WIDENED = 256, /* a pipe whose buffer was enlarged (progress.c) */
    FD_LOCKED = 1024, /* a file with record locks: its content (file_locks.c) */
    FD_LENT = 2048,   /* a listening socket that a child of fork has, too */
    FD_USED = 512,    /* an inherited file that the program itself read or wrote: its offset is ours to put back */
};

enum sock_state { SOCK_NEW, SOCK_BOUND, SOCK_LISTENING, SOCK_CONNECTED };

/* A setsockopt() that succeeded. */
struct sock_option {
    struct sock_option *next;
    int level, name;
    uint32_t length;
    char value[];
};

struct sock_address {
    socklen_t length; /* 0: none */
    struct sockaddr_storage at;
};

struct mail;
struct stream;

struct fd_socket {
    int16_t domain, type, protocol;
    uint8_t state, shut; /* shut: bit 0 SHUT_RD, bit 1 SHUT_WR */
    uint8_t bound;
    int32_t backlog;
    int64_t receive_timeout_ns, send_timeout_ns; /* 0: none */
    struct sock_address *local, *peer;
    struct sock_option *options;
    struct stream *stream; /* the connection with a peer that it is (stream.c); NULL: none */
    uint32_t pending;  /* connections of peers that wait at this listener */
    struct mail *mail; /* of peers (datagram.c); NULL: none */
    uint8_t published; /* peers find it by its address: how many names it has */
};

struct fd_file {
    char *path;
    uint64_t device, inode;
    uint8_t lock; /* LOCK_SH, LOCK_EX or 0 */
    uint8_t deleted; /* has no name (nameless.h) */
    uint8_t given;   /* its name was given back to it: it may have another one, which a lost turn gave */
};

struct fd_event {
    uint64_t count;
    int32_t option; /* eventfd's, timerfd's, memfd's flags; a timer's clock */
    int64_t due_ns, interval_ns; /* by the program's view of the timer's clock; 0: not armed */
    uint64_t mask; /* signalfd */
};

struct inotify_watch {
    struct inotify_watch *next;
    int32_t wd;
    uint32_t mask;
    char path[];
};

struct inbox;

struct description {
    uint8_t kind;
    uint8_t error; /* what a release met; told at the next write */
    uint16_t bits;
    int32_t refs;
    uint32_t flags;  /* O_ACCMODE | O_NONBLOCK | O_APPEND ... */
    int32_t origin;  /* the number it was inherited at */
    int32_t pair;    /* the other end's description, -1 without (also: next free) */
    uint32_t held;   /* bytes of it in the outbox */
    int64_t offset;  /* of a pipe that was made larger or smaller: its size */
    struct inbox *inbox;
    char *content;   /* of an internal pipe or socketpair, a small memfd: captured; a terminal's modes; a file's locks */
    uint32_t content_bytes;
    uint32_t serial;
    union {
        struct fd_socket *socket;
        struct fd_file *file;
        struct fd_event *event;
        struct inotify_watch *watches;
    };
};

/* One entry of an epoll's interest list, chained from the slot it watches. */
struct epoll_watch {
    struct epoll_watch *next;
    int32_t epoll; /* description */
    int32_t of;    /* description watched */
    uint32_t events;
    uint64_t data;
};

struct slot {
    int32_t description; /* index + 1; 0: free */
    uint32_t close_on_exec;
    struct epoll_watch *watches;
};

/* Adopts the descriptors that are open now, at a fresh start. */
void fd_boot(void);

/* Brings the entries that were touched up to date. Called before each commit; cheap when nothing was. */
void fd_capture(void);

/* Makes every descriptor again in a new process. Returns 0 or -errno, after a message. */
int fd_reopen(void);

/* The program has a child now, which shares every description. */
void fd_forked(void);

/* In a child of fork that is followed: the outputs, the journals of input and the peers are its parent's. */
void fd_stand_by(void);

/* Such a child is the program now, with peers and journals of its own; the next capture looks at every descriptor. */
void fd_take_over(void);

/* Whether some pipe or socketpair of the program's own may be shared with a child; and that all children have ended: they
 * are its own again, except those that outputs are held for, which must not be overtaken. A grandchild that has outlived its
 * parent is not known of. */
bool fd_shares(void);
void fd_alone(void);

/* Descriptors of libken, which the program must neither see nor close. */
bool fd_is_ours(int fd);

/* What the program's descriptor is; one that is not known is asked of the kernel and adopted.
 * NULL when it is not open, ours, or beyond FD_LIMIT. */
struct description *fd_find(int fd);

/* The same from the table alone. */
struct description *fd_peek(int fd);

/* Enters a descriptor that the kernel has just made. Returns its description, or NULL beyond the limit. */
struct description *fd_enter(int fd, enum fd_kind kind, uint32_t flags);

/* `to` now is a duplicate of `from`. */
void fd_duplicate(int from, int to, bool close_on_exec);

/* The program's descriptor is gone. */
void fd_forget(int fd);

void fd_set_close_on_exec(int fd, bool on);

/* The program has changed how much a pipe holds. */
void fd_pipe_size(struct description *, long bytes);

/* What the program takes the clock of a timerfd to show. */
int64_t fd_timer_now(const struct description *);

/* Marks it to be looked at by the next capture. */
void fd_touch(struct description *);

/* Asks the kernel what the descriptor is and enters it; the bits are added. NULL when it is not open. */
struct description *fd_adopt(int fd, uint16_t bits);

/* The socket's part; made when there is none yet. */
struct fd_socket *fd_socket(struct description *);
struct fd_event *fd_event(struct description *);

/* Two descriptors that were just entered are the ends of one pipe or socketpair. */
void fd_pair(int a, int b);

/* What the program did to a socket, to be repeated. */
void fd_note_bound(int fd, struct description *);
void fd_note_connected(int fd, struct description *, const void *address, size_t length);
void fd_note_option(struct description *, int level, int name, const void *value, size_t length);
void fd_note_inherited(struct description *accepted, const struct fd_socket *listener); /* a peer's connection; the kernel's know */

/* What flock() of a file came to: LOCK_SH, LOCK_EX or LOCK_UN. */
void fd_note_lock(int fd, struct description *, long operation);

/* True when bytes written to it leave the process. */
bool fd_is_external(const struct description *);

/* A socket of the internet's: what is said there may be for a peer. */
bool fd_may_meet_peers(const struct description *);

/* A byte stream (writes may be partial), as opposed to one that keeps message boundaries. */
bool fd_is_stream(const struct description *);

/* Internals shared by the files of this room. */
extern struct slot fd_slots[FD_LIMIT];
extern int fd_highest; /* the highest number ever entered */
struct description *fd_description(int index); /* NULL beyond the end */
int fd_index(const struct description *);
int fd_descriptions(void); /* how many indices have been used */
long fd_move_high(int fd); /* moves a descriptor of libken out of the way; closes `fd` */
struct epoll_watch **fd_watch(int epoll, int fd); /* the link that leads to the watch, or to NULL */

#endif
