"""A program under libken, with one store, started any number of times; and what the tests of a machine may use: ports, scratch
directories, seeds. The environment that all of it heeds is told of in harness.py."""
import collections
import ctypes
import os
import random
import re
import shutil
import signal
import socket
import subprocess

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
BUILD = os.path.abspath(os.environ.get("KEN_BUILD", os.path.join(ROOT, "build")))
LIB = os.path.abspath(os.environ.get("KEN_LIB", os.path.join(BUILD, "libken.so")))
KENCTL = os.environ.get("KEN_CTL", os.path.join(BUILD, "scripts", "kenctl"))
BARE = os.environ.get("KEN_BARE") == "1"
KILLS = int(os.environ.get("KEN_KILLS", "20"))
LONG = os.environ.get("KEN_LONG") == "1"  # the suite of an hour: more of everything
SEED = int(os.environ.get("KEN_SEED", str(random.SystemRandom().randrange(1 << 31))))
PYTHON = "/usr/bin/python3"
# Seconds without an answer that mean it will never come; a longer patience stands for a slower machine.
PATIENCE = float(os.environ.get("KEN_PATIENCE", "60" if LONG else "20"))
LONGEST_KILLING = 90 if LONG else 30  # seconds of one case: on a busy machine there are fewer kills, and they are counted

ADDR_NO_RANDOMIZE = 0x0040000
RESUME = re.compile(r"^ken: .*\bresum", re.I)


class Skip(Exception):
    """The case cannot run here; the text says why."""


class Failure(AssertionError):
    """What the program did is wrong; the text says how."""


def check(condition, text):
    if not condition:
        raise Failure(text)


def subject(name):
    """The path of a test subject: built from C, or a script in tests/subjects."""
    script = os.path.join(HERE, "subjects", name)
    return script if os.path.exists(script) else os.path.join(BUILD, "tests", name)


def need(program):
    """The path of an installed program; without it the case is skipped."""
    path = shutil.which(program, path="/usr/local/bin:/usr/bin:/bin:/usr/games")
    if not path:
        raise Skip(f"{program} is not installed")
    return path


# Ports that this process has given out: so many that no test needs more at a time, and no long sweep runs out of descriptors.
reserved = collections.deque(maxlen=200)


def free_port():
    """A port below the ephemeral range on which neither TCP nor UDP is in use, and that no other test was given: whoever gets
    it binds it a moment later, or again after a kill. The name of a socket reserves it until this process ends, or has given out many more."""
    while True:
        port = random.SystemRandom().randrange(15000, 32000)
        try:
            name = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            name.bind(f"\0ken-test-port-{port}")
            reserved.append(name)
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                with socket.socket(socket.AF_INET, kind) as s:
                    s.bind(("127.0.0.1", port))
            return port
        except OSError:
            pass


def processes(argv):
    """The pids of all that have this command line."""
    line = "\0".join(argv) + "\0"
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/cmdline", errors="replace") as f:
                if f.read() == line:
                    found.append(int(name))
        except OSError:
            pass
    return found


def file_system(path):
    """The type of the file system that holds `path`."""
    best, kind = "", "unknown"
    for line in open("/proc/self/mounts"):
        _, where, what = line.split()[:3]
        if (path + "/").startswith(where.rstrip("/") + "/") and len(where) >= len(best):
            best, kind = where, what
    return kind


def scratch_root():
    asked = os.environ.get("TMPDIR")
    for place in filter(None, (asked, "/var/tmp", "/tmp")):
        if file_system(os.path.realpath(place)) not in ("tmpfs", "ramfs"):
            return place
    return asked or "/tmp"


def require_aslr():
    """Clears ADDR_NO_RANDOMIZE, which a debugger or a container may have left, for all programs."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.personality.argtypes = [ctypes.c_ulong]
    now = libc.personality(0xFFFFFFFF)
    if now & ADDR_NO_RANDOMIZE:
        libc.personality(now & ~ADDR_NO_RANDOMIZE)
    check(not libc.personality(0xFFFFFFFF) & ADDR_NO_RANDOMIZE, "ASLR cannot be switched on")
    setting = open("/proc/sys/kernel/randomize_va_space").read().strip()
    check(setting == "2", f"kernel.randomize_va_space is {setting}; the tests need 2")


class Program:
    """One program with one store, started any number of times by the same command."""

    alive = set()
    killed = 0  # how often a program of this script died of SIGKILL, before its case was over

    def __init__(self, argv, store, cwd, env=None, stdin=None, stdout=None, bare=BARE, before_exec=None):
        self.argv, self.store, self.cwd, self.bare = list(argv), store, cwd, bare
        self.stdin = subprocess.DEVNULL if stdin is None else stdin
        self.stdout = subprocess.DEVNULL if stdout is None else stdout
        self.env = {k: v for k, v in os.environ.items()
                    if not k.startswith("KEN_") or k in ("KEN_TRACKER", "KEN_SYNC", "KEN_MUTANT", "KEN_FAULT_JITTER", "KEN_FAULT_TRACE")}
        self.env.update(env or {})
        if not bare:
            self.env.update(LD_PRELOAD=LIB, KEN_STORE=store)
        self.before_exec = before_exec  # called in the child between fork and exec
        self.process, self.starts, self.kills = None, 0, 0
        self.status = None  # of the last incarnation, as subprocess tells it
        self.expected_messages = []  # patterns of further `ken: ` lines that are in order
        self.finished_messages = 0

    def start(self):
        check(self.process is None, "it is running already")
        self.starts += 1
        with open(self.stderr_path(), "wb") as err:
            self.process = subprocess.Popen(self.argv, stdin=self.stdin, stdout=self.stdout,
                                            stderr=err, env=self.env, cwd=self.cwd,
                                            preexec_fn=self.before_exec)
        Program.alive.add(self)
        return self

    restart = start

    def pid(self):
        return self.process.pid

    def stderr_path(self, start=None):
        return os.path.join(self.cwd, f"stderr.{start or self.starts}")

    def stderr(self, start=None):
        """What the given (default: the latest) incarnation wrote to stderr."""
        with open(self.stderr_path(start), errors="replace") as f:
            return f.read()

    def messages(self, start=None):
        return [line for line in self.stderr(start).splitlines() if line.startswith("ken: ")]

    def kill9(self):
        """SIGKILL; returns when the process is gone. A program that was dead already is a failure."""
        if self.process.poll() is not None:
            self.wait_gone()
            raise Failure(f"it had died by itself, status {self.status}: {self.tail()}")
        self.process.kill()
        self.kills += 1
        self.wait_gone()

    def wait_gone(self, timeout=PATIENCE):
        """Waits for the end of this incarnation; returns its status (-n: died by signal n)."""
        try:
            self.status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise Failure(f"it did not end within {timeout} s") from None
        self.process = None
        Program.alive.discard(self)
        Program.killed += self.status == -signal.SIGKILL
        self.check_messages(answered=False)
        return self.status

    def check_messages(self, answered):
        """At most one resume line in an incarnation, exactly one in a restart that has answered."""
        if self.bare:
            return
        lines = self.messages()
        resumes = [line for line in lines if RESUME.match(line)]
        check(len(resumes) <= 1, f"{len(resumes)} resume lines in start {self.starts}: {resumes}")
        if answered and self.starts > 1:
            check(resumes, f"no resume line in start {self.starts}: {self.tail()}")
        for line in lines:
            if line not in resumes and not any(re.search(p, line) for p in self.expected_messages):
                raise Failure(f"an unexpected message in start {self.starts}: {line}")

    def finished(self):
        """What the store says: the status of a run that is over, else None. A kill may have come behind it."""
        text = subprocess.run([KENCTL, "show", self.store], capture_output=True, text=True).stdout
        over = re.search(r"^state: finished, status (\d+)", text, re.M)
        return int(over[1]) if over else None

    def stop(self):
        """Ends whatever still runs, without judging it."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
        Program.alive.discard(self)

    def tail(self, lines=4):
        return " | ".join(self.stderr().strip().splitlines()[-lines:]) or "(nothing on stderr)"


def stop_all():
    for program in list(Program.alive):
        program.stop()
