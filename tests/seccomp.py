"""Makes chosen system calls fail in a program, as an older kernel or a container's filter does.

    program = t.program(argv, before_exec=seccomp.deny(Rule(NR["userfaultfd"], errno.EPERM), ...))

A filter outlives exec and is inherited by fork (seccomp(2)); the test's own process is not touched.
"""
import ctypes
import struct
from typing import NamedTuple

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
LD_W_ABS, JEQ, JSET, AND, RET = 0x20, 0x15, 0x45, 0x54, 0x06
ALLOW, FAIL = 0x7FFF0000, 0x00050000

NR = {"ioctl": 16, "open": 2, "prctl": 157, "openat": 257, "userfaultfd": 323, "pwritev2": 328, "io_uring_setup": 425,
      "io_uring_enter": 426, "io_uring_register": 427}


class Rule(NamedTuple):
    """The call `nr` fails with `error`; with `argument`, only where argument & mask == value (low 32 bits)."""
    nr: int
    error: int
    argument: int = -1
    value: int = 0
    mask: int = 0xFFFFFFFF


def instruction(code, k, yes=0, no=0):
    return struct.pack("=HBBI", code, yes, no, k)


def assemble(rules):
    program = b""
    for rule in rules:
        fail = instruction(RET, FAIL | rule.error)
        test = b""
        if rule.argument >= 0:
            test = (instruction(LD_W_ABS, 16 + 8 * rule.argument) + instruction(AND, rule.mask) +
                    instruction(JEQ, rule.value, 0, 1))
        program += (instruction(LD_W_ABS, 0) + instruction(JEQ, rule.nr, 0, len(test + fail) // 8) + test + fail)
    return program + instruction(RET, ALLOW)


def deny(*rules):
    """A function for the child between fork and exec."""
    code = assemble(rules)
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("=HxxxxxxQ", len(code) // 8, ctypes.addressof(buffer))

    def install():
        if (libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or
                libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, header, 0, 0)):
            raise OSError(ctypes.get_errno(), "no seccomp")

    install.keep = buffer
    return install
