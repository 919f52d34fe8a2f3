"""Calls in libken's source that can fail and that no workload of test_errors.py reaches, each with its reason. One that is
neither reached nor named here fails the long suite; so does a reason for a line that is no longer there.
"""
import re

import call_errors

PAUSE = "waits for a moment: an interruption makes it shorter"
GIVES_BACK = "gives something back, whether or not that works"
ANSWER = "its result is the answer to the program's own call"
REPORT = "a report of what goes on all the same"
SELDOM = "needs a coincidence that no workload makes for certain"

# By the text of the line, wherever it is.
RULES = ((r"SYS_(poll, NULL|nanosleep|clock_nanosleep|futex, [^,]*, FUTEX_WAIT)", PAUSE),
         (r"^\s*(trouble_none\()?sys\(SYS_(close|munmap|unlink|unlinkat)\b", GIVES_BACK))

REASONS = {
    "heap/chaos.c": ((r"SYS_(read|write)", REPORT),),
    "heap/log_apply.c": ((r"SYS_mmap, at, bytes", SELDOM),),  # a death between the runs that are the image's own head
    # Where the turn that is lost is the one with the rename: which one that is, is the scheduler's.
    "heap/moved.c": ((r"SYS_(renameat2|mmap)", SELDOM),),
    "heap/region.c": ((r"SYS_mprotect, e->end, want - have", SELDOM), (r"MADV_DONTNEED", SELDOM)),
    "heap/restorer.c": ((r"SYS_write, 2", REPORT),),
    "heap/store.c": ((r"F_GETLK", REPORT),),
    "net/bulk.c": ((r"MADV_DONTNEED", SELDOM),),  # unit/test_lending.c has it
    "net/inbox.c": ((r"FALLOC_FL_PUNCH_HOLE", SELDOM),),
    "net/nameless.c": ((r"beside", SELDOM), (r"not_given_back|f->given \? ", SELDOM)),
    "net/peers_end.c": ((r"SYS_poll", PAUSE),),
    "net/progress.c": ((r"FALLOC_FL_PUNCH_HOLE", SELDOM),),
    "net/release.c": ((r"SYS_poll", PAUSE),),
    "net/remote.c": ((r"SO_LINGER", "a switch needs no memory"),),
    "net/reopen_socket.c": ((r"SYS_sendto, from, p", SELDOM),),  # what was on its way when it died; in most runs there is some
    "net/transport_listen.c": ((r"r = sys\(SYS_bind", SELDOM),),
    "shim/call_memory.c": ((r"SYS_(mmap|madvise), start", SELDOM),),
    "shim/call_names.c": ((r"SYS_unlinkat", ANSWER),),
    "shim/call_read.c": ((r"SYS_recvmsg", ANSWER),),
    "shim/call_send.c": ((r"SYS_sendmsg", ANSWER),),
    "shim/call_splice.c": ((r"SYS_pread64", ANSWER),),
    "shim/call_write.c": ((r"SYS_pwrite64", ANSWER),),
    "shim/crash.c": ((r"SYS_(clone|execve|wait4|access|rt_tgsigqueueinfo)", REPORT),),
    "shim/pending.c": ((r"SYS_rt_sigqueueinfo, me", SELDOM),),
}

# Commands of these calls that can fail (call_errors.COMMANDS), as the source names them.
FALLIBLE = {"fcntl": r"F_DUPFD|F_(OFD_)?SETLK|F_GETLK|F_SETPIPE_SZ|F_ADD_SEALS", "ioctl": r"UFFDIO|PAGEMAP_SCAN|\bTCGETS\b",
            "prctl": r"PR_SET_MM", "futex": r"FUTEX_WAIT"}


def can_fail(text):
    """Whether the call that this line makes has an error worth trying, as far as a look at the text tells."""
    name = re.search(r"SYS_(\w+)", text)
    if not name or name[1] in call_errors.CANNOT_FAIL:
        return False
    if name[1] in FALLIBLE:
        return bool(re.search(FALLIBLE[name[1]], text))
    return name[1] in call_errors.KINDS or bool(call_errors.ERRORS.get(name[1]))


def reason_of(file, text):
    for pattern, reason in (*REASONS.get(file, ()), *RULES):
        if re.search(pattern, text):
            return reason
    return None


def stale(source):
    """Reasons that are for no line: `source` is {file: [its lines that make calls]}."""
    return [f"{file}: {pattern}" for file, reasons in REASONS.items() for pattern, _ in reasons
            if not any(re.search(pattern, text) for text in source.get(file, ()))]
