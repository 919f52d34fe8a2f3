#!/usr/bin/python3
"""Kernels and containers that lack something: it still runs, killed and resumed, or says what is missing."""
import errno
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import *
from seccomp import NR, Rule, deny

PAGEMAP_SCAN = 0xC0606610
PR_SYSCALL_USER_DISPATCH, PR_SET_MM, PR_GET_TID_ADDRESS = 59, 35, 40


def counted(t, rules, messages=(), argv=None, **kw):
    """A counter under these rules, killed; returns its program."""
    port = free_port()
    program = t.program((argv or [subject("udp_counter")]) + [str(port)], before_exec=deny(*rules), **kw)
    program.expected_messages = list(messages)
    dialog = UdpDialog(program, port)
    t.at_end(dialog.close)
    total = 0
    kills = 0 if program.bare else 6
    for n in range(kills + 1):
        for _ in range(t.random.randrange(1, 30)):
            total += 1
            check(dialog.ask("INC a") == f"a {total}", "it miscounts")
        if n < kills:
            program.kill9()
            program.restart()
    program.check_messages(answered=True)
    return program


@case
def container(t):
    """What Docker's default filter refuses: no userfaultfd, no io_uring."""
    refused = ("userfaultfd", "io_uring_setup", "io_uring_enter", "io_uring_register")
    counted(t, [Rule(NR[name], errno.EPERM) for name in refused], argv=[PYTHON, subject("kv_udp.py")])


@case
def no_pagemap_scan(t):
    """Before Linux 6.7."""
    counted(t, [Rule(NR["ioctl"], errno.ENOTTY, argument=1, value=PAGEMAP_SCAN)])


@case
def no_direct_io(t):
    """File systems that refuse O_DIRECT."""
    rules = [Rule(NR[name], errno.EINVAL, argument=at, value=os.O_DIRECT, mask=os.O_DIRECT)
             for name, at in (("openat", 2), ("open", 1))]
    program = counted(t, rules)
    check(program.bare or not any(flags & os.O_DIRECT for flags in open_flags(program)), "O_DIRECT was not refused")


def open_flags(program):
    place = f"/proc/{program.pid()}/fdinfo"
    for fd in os.listdir(place):
        yield int(re.search(r"flags:\s*(\d+)", open(f"{place}/{fd}").read())[1], 8)


@case
def no_syscall_user_dispatch(t):
    """Before Linux 5.11: one line says what is not covered."""
    program = counted(t, [Rule(NR["prctl"], errno.EINVAL, argument=0, value=PR_SYSCALL_USER_DISPATCH)],
                      ["not covered"])
    said = [line for line in program.messages(1) if "not covered" in line]
    check(program.bare or len(said) == 1, f"it said {program.messages(1)}")


@case
def no_checkpoint_restore(t):
    """Kernels without CONFIG_CHECKPOINT_RESTORE."""
    counted(t, [Rule(NR["prctl"], errno.EINVAL, argument=0, value=option)
                for option in (PR_SET_MM, PR_GET_TID_ADDRESS)], argv=[PYTHON, subject("kv_udp.py")])


@case
def asked_for_what_is_missing(t):
    """KEN_TRACKER=uffd where there is none: it does not start, and says what to do."""
    if BARE:
        raise Skip("without libken nothing is tracked")
    program = t.program([subject("udp_counter"), str(free_port())], start=False, env={"KEN_TRACKER": "uffd"},
                        before_exec=deny(Rule(NR["userfaultfd"], errno.EPERM)))
    program.expected_messages = ["unset KEN_TRACKER"]
    program.start()
    status = program.wait_gone()
    check(status > 0 and "unset KEN_TRACKER" in program.stderr(), f"status {status}: {program.tail()}")


main()
