"""Runs ordinary programs under libken, kills them at random and judges what their clients saw.

A system test is a script of cases:

    from harness import *

    @case
    def udp_counter(t):
        port = free_port()
        p = t.program([subject("udp_counter"), str(port)])
        t.killed_while(p, Traffic(UdpDialog(p, port), commands, model))

    main()

The runner is never preloaded, only the program is. Every request carries a sequence number, and a
program answers a repeated request with the answer it gave before, so a client may always ask again.
What no client may ever see: an answer that differs from the model, an answer that changes, or an
older answer after a newer one.

Environment: KEN_BUILD (build directory), KEN_LIB (the library, default KEN_BUILD/libken.so), KEN_KILLS
(kills for each program), KEN_SEED (repeats a run), KEN_BARE=1 (no libken and no kills: tests the tests),
KEN_KEEP=1|failed (leaves the scratch directories), KEN_TRACKER, KEN_SYNC (passed on), KEN_LONG=1 (the long suite).
Arguments choose cases by name. Exit status: 0 passed, 1 failed, 77 nothing but skips.
"""
import atexit
import collections
import ctypes
import os
import random
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback

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
            with open(f"/proc/{name}/cmdline") as f:
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
                    if not k.startswith("KEN_") or k in ("KEN_TRACKER", "KEN_SYNC", "KEN_MUTANT")}
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


class Dialog:
    """A client of one program: asks a numbered request until the answer with that number comes."""

    retry = 0.25  # seconds after which a datagram is taken for lost

    def __init__(self, program):
        self.program = program
        self.seq = 0
        self.answered = 0  # highest number that was answered
        self.answers = {}  # number -> answer
        self.sent_kills = {}  # number -> kills of the program when it was first sent
        self.resends = 0
        self.stopping = False

    def ask(self, command):
        """Sends `<number> <command>`; returns the answer without its number."""
        self.seq += 1
        seq = self.seq
        self.sent_kills[seq] = self.program.kills
        asked_start, deadline = -1, time.monotonic() + PATIENCE
        starts = self.program.starts
        while True:
            if asked_start < 0 or self.may_resend(asked_start):
                self.resends += asked_start >= 0
                asked_start = self.program.starts
                self.send(seq, f"{seq} {command}")
            self.receive(self.retry)
            if seq in self.answers:
                return self.answers[seq]
            if self.stopping:
                raise Failure("stopped while an answer was due")
            if self.program.starts != starts:
                starts = self.program.starts
                deadline = time.monotonic() + PATIENCE
            process = self.program.process
            if process is not None and process.poll() is not None:  # by itself, unless a kill is on its way
                deadline = min(deadline, time.monotonic() + 2)
            if time.monotonic() > deadline:
                alive = process is not None and process.poll() is None
                raise Failure(f"no answer to '{seq} {command}', the program "
                              f"{'runs' if alive else 'is dead'}: {self.program.tail()}")

    def may_resend(self, asked_start):
        return True

    def judge(self, seq, answer):
        """Every answer that becomes visible comes through here."""
        known = self.answers.get(seq)
        if known is not None:
            check(known == answer, f"answer {seq} was '{known}' and is now '{answer}'")
            check(self.program.kills > self.sent_kills[seq] or self.resends,
                  f"answer {seq} came twice and nothing was killed")
        check(seq in self.sent_kills, f"an answer to {seq}, which was never asked: '{answer}'")
        check(seq >= self.answered, f"answer {seq} came again after answer {self.answered}")
        self.answers[seq] = answer
        self.answered = max(self.answered, seq)

    def judge_line(self, line):
        number, _, answer = line.partition(" ")
        check(number.isdigit(), f"not an answer: '{line}'")
        self.judge(int(number), answer)

    def close(self):
        pass


class UdpDialog(Dialog):
    """Requests and answers are datagrams."""

    def __init__(self, program, port):
        super().__init__(program)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.connect(("127.0.0.1", port))

    def send(self, seq, text):
        try:
            self.socket.send(text.encode())
        except ConnectionRefusedError:
            time.sleep(0.002)

    def receive(self, seconds):
        self.socket.settimeout(seconds)
        try:
            self.judge_line(self.socket.recv(65536).decode())
        except ConnectionRefusedError:
            time.sleep(0.002)
        except socket.timeout:
            pass

    def close(self):
        self.socket.close()


class TcpDialog(Dialog):
    """Requests and answers are lines; a connection that breaks is made anew."""

    def __init__(self, program, port):
        super().__init__(program)
        self.port, self.socket, self.buffer = port, None, b""
        self.connects = 0

    def connect(self):
        if self.socket is None:
            try:
                self.socket = socket.create_connection(("127.0.0.1", self.port), timeout=2)
                self.connects += 1
                return True
            except OSError:
                time.sleep(0.005)
        return False

    def drop(self):
        if self.socket is not None:
            self.socket.close()
        self.socket, self.buffer = None, b""

    def send(self, seq, text):
        self.text = text
        self.connect()
        try:
            if self.socket is not None:
                self.socket.sendall(text.encode() + b"\n")
        except OSError:
            self.drop()

    def may_resend(self, asked_start):
        return self.socket is None

    def receive(self, seconds):
        if self.socket is None:
            return
        self.socket.settimeout(seconds)
        try:
            data = self.socket.recv(65536)
        except socket.timeout:
            return
        except OSError:
            data = b""
        if not data:
            return self.drop()
        self.buffer += data
        while b"\n" in self.buffer:
            line, _, self.buffer = self.buffer.partition(b"\n")
            self.judge_line(line.decode())

    close = drop


class PipeDialog(Dialog):
    """Commands are lines on the program's stdin, answers are `<number answer>` anywhere on its stdout.

    Both pipes stay open over restarts. A command that a killed program had read may be lost with it
    and is then sent again; an answer may be repeated after a kill, in the same words.
    """

    TOKEN = re.compile(r"<(\d+) ([^<>]*)>")

    def __init__(self, program, translate):
        """`translate(seq, command)` gives the line to send."""
        super().__init__(program)
        self.translate = translate
        self.to_program, self.from_program, self.open = None, None, set()
        self.buffer = ""
        self.resend_at = 0.0
        self.raw = []  # everything that was ever visible

    @classmethod
    def program(cls, t, argv, translate, **kw):
        """Starts `argv` between two pipes whose four ends the harness holds; returns the dialog with it."""
        stdin, writer = os.pipe()
        reader, stdout = os.pipe()
        dialog = cls(t.program(argv, start=False, stdin=stdin, stdout=stdout, **kw), translate)
        dialog.to_program, dialog.from_program, dialog.open = writer, reader, {stdin, writer, reader, stdout}
        t.at_end(dialog.close)
        dialog.program.start()
        return dialog

    @classmethod
    def tokens(cls, text):
        """The answers in a piece of output: (number, words), a broken one left out."""
        return [(int(number), words) for number, words in cls.TOKEN.findall(text)]

    def say(self, text):
        """Sends a line that has no answer."""
        os.write(self.to_program, text.encode() + b"\n")

    def send(self, seq, text):
        self.resend_at = 0.0
        self.say(self.translate(seq, text.partition(" ")[2]))

    def may_resend(self, asked_start):
        """Only input that a killed incarnation may have taken with it; its answer had a second to come."""
        if self.program.starts == asked_start:
            return False
        self.resend_at = self.resend_at or time.monotonic() + 1.0
        return time.monotonic() > self.resend_at

    def receive(self, seconds):
        if not select.select([self.from_program], [], [], min(seconds, 0.05))[0]:
            return
        text = os.read(self.from_program, 65536).decode(errors="replace")
        self.raw.append(text)
        self.buffer += text
        while match := self.TOKEN.search(self.buffer):
            self.judge(int(match[1]), match[2])
            self.buffer = self.buffer[match.end():]

    def shut(self, fd):
        self.open.discard(fd)
        os.close(fd)

    def farewell(self):
        """End of input: waits until the program has ended; returns its status and its last words."""
        self.shut(self.to_program)
        status = self.program.wait_gone()
        self.shut(self.program.stdout)
        rest = []
        while text := os.read(self.from_program, 65536):
            rest.append(text.decode(errors="replace"))
        return status, self.buffer + "".join(rest)

    def close(self):
        for fd in list(self.open):
            self.shut(fd)


class Traffic(threading.Thread):
    """Asks one command after the other until it is told to stop; compares answers with the model."""

    def __init__(self, dialog, commands, model):
        """`commands`: an iterator of texts. `model(command)`: the right answer, called once for each."""
        super().__init__(daemon=True)
        self.dialog, self.commands, self.model = dialog, commands, model
        self.count, self.wanted, self.error = 0, None, None
        self.moved = threading.Condition()

    def run(self):
        try:
            for command in self.commands:
                if self.wanted is not None and self.count >= self.wanted:
                    break
                right = self.model(command)
                answer = self.dialog.ask(command)
                check(right is None or answer == right,
                      f"'{self.dialog.seq} {command}': the answer is '{answer}', not '{right}'")
                with self.moved:
                    self.count += 1
                    self.moved.notify_all()
        except BaseException as error:
            self.error = error
        with self.moved:
            self.wanted = self.count
            self.moved.notify_all()

    def wait_for(self, more, timeout=PATIENCE + 5):
        """Waits until `more` further answers have come, or the traffic has ended."""
        with self.moved:
            goal = self.count + more
            self.moved.wait_for(lambda: self.count >= goal or not self.is_alive() or self.error
                                or (self.wanted is not None and self.count >= self.wanted), timeout)
        if self.error:
            raise self.error

    def finish(self, timeout=PATIENCE + 5):
        """Stops after the answer that is due; raises what went wrong."""
        with self.moved:
            if self.wanted is None:
                self.wanted = 0
        self.join(timeout)
        if self.is_alive():
            self.dialog.stopping = True
            self.join(2)
            raise Failure(f"the traffic did not end: {self.dialog.program.tail()}")
        if self.error:
            raise self.error


class Twin:
    """A model that is the program itself: the same commands given to an incarnation that nobody kills."""

    def __init__(self, t, argv, dialog_class=None, **kw):
        port = free_port()
        program = t.program(argv(port), bare=True, **kw)
        self.dialog = (dialog_class or UdpDialog)(program, port)
        t.at_end(self.dialog.close)

    def answer(self, command):
        return self.dialog.ask(command)


class Case:
    """What one case is handed: its random numbers, its scratch directory, its programs."""

    def __init__(self, name):
        self.name = name
        self.random = random.Random(f"{SEED}:{name}")
        self.dir = tempfile.mkdtemp(prefix=f"ken-{name}-", dir=scratch_root())
        self.programs, self.endings, self.notes = [], [], []

    def program(self, argv, start=True, **kw):
        """A program with its own store and working directory below the case's directory."""
        place = os.path.join(self.dir, str(len(self.programs)))
        cwd = kw.pop("cwd", place)
        os.makedirs(cwd, exist_ok=True)
        program = Program(argv, kw.pop("store", os.path.join(place, "store")), cwd, **kw)
        self.programs.append(program)
        return program.start() if start else program

    def at_end(self, action):
        self.endings.append(action)

    def note(self, text):
        self.notes.append(text)

    def killed_while(self, program, traffic, kills=None, longest=0.05):
        """Kills `program` at random instants while `traffic` runs; after the last restart it must go on.

        A third of the kills come right after an answer, a third after 0..`longest` seconds whatever
        the program does then (restoring included), the rest after the first answers of a restart.
        """
        kills, began = 0 if program.bare else KILLS if kills is None else kills, program.kills
        if not kills:
            traffic.dialog.retry = PATIENCE / 2  # nothing is lost, so what is late is not to be asked for again
        traffic.start()
        traffic.wait_for(3)
        lost = traffic.dialog.resends  # while it was starting
        until = time.monotonic() + LONGEST_KILLING
        for _ in range(kills):
            if time.monotonic() > until:
                break
            way = self.random.randrange(3)
            if way == 0:
                traffic.wait_for(1)
            elif way == 1:
                time.sleep(self.random.uniform(0, longest))
            else:
                traffic.wait_for(self.random.randrange(1, 6))
                time.sleep(self.random.uniform(0, longest / 10))
            if traffic.error:
                raise traffic.error
            program.kill9()
            program.restart()
        traffic.wait_for(3 if kills else 200)
        traffic.finish()
        if kills:
            program.check_messages(answered=True)
        else:
            lost = traffic.dialog.resends - lost
            check(not lost, f"{lost} requests had to be sent again, and nothing was killed")
        self.note(f"{program.kills - began} kills, {traffic.count} answers")

    def finish(self, failed):
        for program in self.programs:
            program.stop()
        for action in reversed(self.endings):
            action()
        keep = os.environ.get("KEN_KEEP")
        if keep == "1" or keep == "failed" and failed:
            print(f"     kept: {self.dir}")
        else:
            shutil.rmtree(self.dir, ignore_errors=True)


cases = []


def case(function=None, *, limit=60):
    """Registers a case: a function of one `Case`, ended after `limit` seconds."""
    if function is None:
        return lambda f: case(f, limit=limit)
    cases.append((function.__name__, function, limit))
    return function


def add_case(name, function, limit=60):
    cases.append((name, function, limit))


def run_case(name, function, limit):
    def expired(*_):
        raise Failure(f"not done after {limit} s")

    limit = int(limit * max(10 if LONG else 1, PATIENCE / 20))
    signal.signal(signal.SIGALRM, expired)
    started = time.monotonic()
    t = Case(name)
    try:
        signal.alarm(limit)
        try:
            function(t)
        finally:
            signal.alarm(0)
        verdict, text = "ok", ", ".join(t.notes)
    except Skip as reason:
        verdict, text = "SKIP", str(reason)
    except Failure as failure:
        verdict, text = "FAIL", str(failure)
    except Exception:
        verdict, text = "FAIL", traceback.format_exc()
    if verdict == "FAIL":
        for p in t.programs[-3:]:
            text += f"\n    {os.path.basename(p.argv[0])}: {p.starts} starts, {p.kills} kills"
            if p.starts:
                text += "; stderr:" + "".join("\n        " + line for line in p.tail(25).split(" | "))
        text += (f"\n    repeat it: KEN_SEED={SEED} KEN_BUILD={BUILD} KEN_LIB={LIB} KEN_KILLS={KILLS} "
                 f"{PYTHON} {os.path.abspath(sys.argv[0])} {name}")
    t.finish(verdict == "FAIL")
    print(f"{verdict:4} {name} ({time.monotonic() - started:.1f} s){': ' if text else ''}{text}", flush=True)
    return verdict


def main():
    """Runs the cases that the arguments name (default: all) and ends the process."""
    atexit.register(stop_all)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:  # by nohup(1) or a shell's `&`: programs would inherit it
            signal.signal(number, signal.SIG_DFL)
    require_aslr()
    if not BARE and not os.path.exists(LIB):
        print(f"{LIB} does not exist: build it first\n0 passed, 1 failed, 0 skipped")
        sys.exit(1)
    chosen = [c for c in cases if not sys.argv[1:] or c[0] in sys.argv[1:]]
    unknown = set(sys.argv[1:]) - {c[0] for c in cases}
    check(not unknown, f"no such case: {', '.join(sorted(unknown))}")
    verdicts = [run_case(*c) for c in chosen]
    passed, failed, skipped = (verdicts.count(v) for v in ("ok", "FAIL", "SKIP"))
    if failed:
        print(f"seed {SEED}")
    if Program.killed:
        print(f"KILLS {Program.killed}")
    print(f"{passed} passed, {failed} failed, {skipped} skipped", flush=True)
    sys.exit(1 if failed else 0 if passed else 77)
