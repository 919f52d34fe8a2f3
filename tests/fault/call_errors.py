"""Which errors each system call of libken's own may answer, of those that a machine in trouble gives: no room, no memory, no
descriptors, a disk that fails, an interruption, a part instead of all. Errors that only a wrong argument can cause are left out.

A call that is in no table fails the suite: somebody has to say what it can answer.
"""
import re

O_CREAT = 0o100

OPEN = "EMFILE ENFILE ENOMEM EIO EINTR"
READ = "EIO EINTR ENOMEM SHORT"
WRITE = "ENOSPC EDQUOT EIO EINTR SHORT"
SEND = "EAGAIN EINTR ENOBUFS ENOMEM SHORT"
# libken never waits in one (MSG_DONTWAIT), and who does not wait is not interrupted: af_unix and TCP look for signals in their
# waits only. recvmsg(2) speaks of ENOMEM for the vector, which is copied from the ninth piece on; recvfrom has none.
RECEIVE = "EAGAIN SHORT"
RECEIVE_VECTOR = RECEIVE + " ENOMEM"
DESCRIPTOR = "EMFILE ENFILE ENOMEM"
LOOK_UP = "ENOMEM EIO"

ERRORS = {
    # files
    "open": OPEN, "openat": OPEN, "close": "EIO EINTR",
    "pread64": READ, "getdents64": "EIO ENOMEM", "pwrite64": WRITE, "pwritev": WRITE, "pwritev2": WRITE + " EOPNOTSUPP",
    "fsync": "EIO ENOSPC EDQUOT EINTR", "fdatasync": "EIO ENOSPC EDQUOT EINTR",
    "ftruncate": "EIO ENOSPC EINTR", "fallocate": "ENOSPC EDQUOT EIO EINTR EOPNOTSUPP",
    "rename": "ENOSPC EIO ENOMEM", "renameat": "ENOSPC EIO ENOMEM", "renameat2": "ENOSPC EIO ENOMEM EINVAL", "unlinkat": "EIO ENOMEM", "unlink": "EIO ENOMEM",
    "linkat": "EXDEV EPERM EMLINK ENOSPC EIO ENOMEM", "mkdirat": "ENOSPC EDQUOT EIO ENOMEM", "utimensat": "EIO ENOMEM",
    "fstat": LOOK_UP, "fstatfs": LOOK_UP, "stat": LOOK_UP, "newfstatat": LOOK_UP, "lstat": LOOK_UP, "statx": LOOK_UP + " ENOSYS", "readlink": LOOK_UP, "readlinkat": LOOK_UP, "fchmod": "EIO",
    "access": LOOK_UP, "faccessat": LOOK_UP, "getcwd": "ENOMEM ENOENT", "chdir": LOOK_UP, "chroot": LOOK_UP,
    "sendfile": "EINTR EAGAIN ENOMEM",  # into a pipe, of what lies in memory: a piece at a time
    "copy_file_range": "EIO ENOSPC ENOMEM SHORT", "fadvise64": "",
    "splice": "EAGAIN EINTR ENOMEM ENOBUFS ENOSPC EIO SHORT", "vmsplice": "EAGAIN EINTR ENOMEM SHORT", "tee": "EINTR ENOMEM", "flock": "EINTR ENOLCK",
    # memory
    "mmap": "ENOMEM EAGAIN", "mremap": "ENOMEM EAGAIN", "munmap": "ENOMEM", "mprotect": "ENOMEM", "madvise": "ENOMEM EAGAIN",
    "brk": "", "mincore": "ENOMEM EAGAIN", "memfd_create": DESCRIPTOR, "userfaultfd": DESCRIPTOR + " EPERM ENOSYS",
    "process_vm_readv": "ENOMEM",
    # descriptors
    "dup2": "EMFILE EINTR EBUSY", "dup3": "EMFILE EINTR EBUSY", "pipe2": DESCRIPTOR, "socketpair": DESCRIPTOR + " ENOBUFS",
    "socket": DESCRIPTOR + " ENOBUFS", "eventfd2": DESCRIPTOR, "timerfd_create": DESCRIPTOR, "signalfd4": DESCRIPTOR,
    "epoll_create1": DESCRIPTOR, "inotify_init1": DESCRIPTOR, "inotify_add_watch": "ENOMEM ENOSPC", "inotify_rm_watch": "",
    "epoll_ctl": "ENOMEM ENOSPC", "close_range": "EMFILE ENOMEM",
    "epoll_wait": "",  # never waits either: fs/eventpoll.c, ep_poll() returns at timed_out before it looks for signals
    # sockets
    "bind": "ENOMEM EADDRINUSE", "listen": "EADDRINUSE", "connect": "EINTR EAGAIN ENOMEM",
    "accept4": DESCRIPTOR + " EINTR EAGAIN ECONNABORTED", "accept": DESCRIPTOR + " EINTR EAGAIN ECONNABORTED",
    "setsockopt": "ENOMEM",
    "sendto": SEND, "sendmsg": SEND, "sendmmsg": SEND, "recvfrom": RECEIVE, "recvmsg": RECEIVE_VECTOR, "recvmmsg": RECEIVE_VECTOR,
    "pidfd_open": "ESRCH EMFILE ENFILE ENOMEM",
    "poll": "EINTR", "ppoll": "EINTR",  # needs memory for very many descriptors only
    # processes
    "clone": "EAGAIN ENOMEM", "execve": "ENOMEM EIO EMFILE ETXTBSY", "wait4": "EINTR",
    "rt_tgsigqueueinfo": "EAGAIN", "rt_sigqueueinfo": "EAGAIN",
    "rt_sigtimedwait": "",  # never waits: kernel/signal.c, do_sigtimedwait() with no time takes what is there
    "capset": "EPERM", "setgroups": "EPERM ENOMEM", "setresuid": "EPERM EAGAIN", "setresgid": "EPERM",
    "nanosleep": "EINTR", "clock_nanosleep": "EINTR",
    "timer_create": "EAGAIN ENOMEM",
    "timerfd_settime": "",  # ECANCELED is for TFD_TIMER_CANCEL_ON_SET, which is not asked for
    "getrandom": "EINTR SHORT",
    # what liburing does
    "io_uring_setup": DESCRIPTOR + " EPERM ENOSYS", "io_uring_enter": "EAGAIN EBUSY EINTR ENOMEM",
}

# These fail by a wrong argument only, or have no result that means failure.
CANNOT_FAIL = set("""arch_prctl capget clock_gettime exit exit_group get_robust_list geteuid getgroups getitimer getpeername getsockname
    getsockopt kill shutdown tgkill getpgid getpid
    getresgid getresuid getrusage getsid gettid getuid lseek personality prlimit64 rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigreturn
    sched_getaffinity sched_yield set_robust_list set_tid_address setitimer setpriority sigaltstack timer_delete timer_gettime
    setrlimit timer_settime timerfd_gettime times umask uname""".split())

# By their command: (call, command) -> errors.
COMMANDS = {
    "fcntl": {0: "EMFILE", 1030: "EMFILE", 5: "ENOLCK", 6: "ENOLCK EAGAIN EINTR", 7: "ENOLCK EINTR", 1031: "EPERM ENOMEM EBUSY",
              1033: "EPERM", 1034: "EPERM"},
    "ioctl": {0xC020AA00: "ENOMEM", 0xC018AA06: "EAGAIN ENOMEM", 0xC0606610: "ENOMEM EINTR",  # UFFDIO_REGISTER, _WRITEPROTECT, PAGEMAP_SCAN
              0x5401: "EIO"},  # TCGETS
    "prctl": {35: "EPERM ENOSYS"},  # PR_SET_MM
}

# By the kind of file that is read or written, as in st_mode >> 12.
FIFO, DEVICE, REGULAR, SOCKET = 1, 2, 8, 12
READING = {REGULAR: READ, FIFO: "EAGAIN EINTR", DEVICE: "EIO EINTR EAGAIN SHORT", SOCKET: RECEIVE + " EINTR"}
WRITING = {REGULAR: WRITE, FIFO: "EAGAIN EINTR", DEVICE: "EIO EINTR EAGAIN", SOCKET: SEND}
KINDS = {"read": READING, "readv": READING, "write": WRITING, "writev": WRITING}


def numbers():
    """{number: name} of this machine's system calls."""
    with open("/usr/include/x86_64-linux-gnu/asm/unistd_64.h") as f:
        return {int(number): name for name, number in re.findall(r"#define __NR_(\w+) (\d+)", f.read())}


NAMES = numbers()


# What cannot be at a place, or for one call there, and why.
UNREAL = {
    "net/stream_loan.c recvfrom": "EAGAIN",  # asks only where poll has found something, and nobody else reads there
    "net/stream_loan.c sendto": "EAGAIN",  # and an edge when there is room again, which there is not where there was
    "net/stream_bell.c dup3": "EMFILE",  # takes the place of a descriptor that is open: fs/file.c has no table to grow
    "shim/call_write.c": "EAGAIN",  # the descriptor blocks
    "net/capture.c": "EAGAIN",  # asks only where something waits
    "net/reopen_event.c": "EAGAIN", "net/reopen_socket.c": "EAGAIN",  # what was just made is empty
    "shim/call_limits.c getcwd": "ENOENT",  # a directory that was removed: there is nothing to come back to
    "net/nameless.c linkat": "EXDEV EPERM EMLINK", "heap/proc.c linkat": "EXDEV EPERM EMLINK",  # another file system, or a file that cannot have one more name: README's limits
    "shim/pending.c": "EAGAIN",  # RLIMIT_SIGPENDING: others have filled what was just taken from; the signal comes without its value
    "net/stream_bell.c": "EAGAIN",  # as many rings as RINGS_MAX always fit
    "net/remote.c setsockopt": "ENOMEM",  # switches and numbers need no memory
    "net/remote.c": "EADDRINUSE",  # somebody else listens there: a line tells it, and who asks is not heard
    "net/transport_listen.c": "EADDRINUSE",  # then the name is another's, who is a peer in our place
}


def errors_of(site, number, command):
    """The errors to try, or None where nobody has said which there are."""
    errors, place = errors_of_call(number, command), site.split("#")[0]
    unreal = (UNREAL.get(place, "") + " " + UNREAL.get(f"{place} {NAMES.get(number)}", "")).split()
    return errors and [error for error in errors if error not in unreal]


def errors_of_call(number, command):
    name = NAMES.get(number, str(number))
    if name in CANNOT_FAIL:
        return []
    if name == "futex":
        return "EINTR EAGAIN".split() if command & 127 in (0, 9) else []  # FUTEX_WAIT, FUTEX_WAIT_BITSET
    if name in KINDS:
        return KINDS[name].get(command, "EAGAIN EINTR").split()
    if name in COMMANDS:
        return COMMANDS[name].get(command, "").split()
    if name not in ERRORS:
        return None
    errors = ERRORS[name].split()
    if name in ("open", "openat") and command & O_CREAT:
        errors += ["ENOSPC", "EDQUOT"]
    return errors


def receives(number):
    return NAMES.get(number) in ("recvfrom", "recvmsg", "recvmmsg", "read", "readv")
