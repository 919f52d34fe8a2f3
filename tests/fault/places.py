"""Workloads of test_errors.py whose store, kernel or root is another than usual."""
import errno
import glob
import os
import shutil
import tempfile

import mortal
import seccomp

PAGEMAP_SCAN = 0xC0606610


def counted(t, p, requests=8):
    mortal.counter(t, p, requests)


def in_memory(t, p):
    """The store is on another file system than the programs, in memory: they are copied into it."""
    place = tempfile.mkdtemp(prefix="ken-store-", dir="/dev/shm")
    t.at_end(lambda: shutil.rmtree(place))
    p.store = p.env["KEN_STORE"] = os.path.join(place, "store")
    counted(t, p)


def relative(t, p):
    """KEN_STORE is a path from where it is started."""
    p.env["KEN_STORE"] = "store"
    counted(t, p)


def by_default(t, p):
    """Nobody says where the store is to be."""
    del p.env["KEN_STORE"]
    counted(t, p)
    p.store, = glob.glob(os.path.join(p.cwd, ".ken", "*"))


def older_kernel(t, p):
    """Neither PAGEMAP_SCAN nor io_uring, nor durable writes in one call: as before Linux 6.7, in a container."""
    rules = [seccomp.Rule(seccomp.NR["ioctl"], errno.ENOTTY, argument=1, value=PAGEMAP_SCAN)]
    rules += [seccomp.Rule(seccomp.NR[name], errno.EPERM) for name in ("userfaultfd", "io_uring_setup")]
    rules += [seccomp.Rule(seccomp.NR["pwritev2"], errno.EOPNOTSUPP)]
    p.before_exec = seccomp.deny(*rules)
    counted(t, p)
