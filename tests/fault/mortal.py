"""Programs that die where they are told, and workloads whose answers are known.

A workload is a function of (t, p): t is the harness's Case, p a Mortal program that was not started yet. It raises
Failure when something visible is wrong. Each start of the program gets its own KEN_FAULT from p.schedule; whenever it
dies by SIGKILL, it is started again by the same command.
"""
import os
import re
import signal
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import harness
import line_server
from harness import BUILD, Case, Failure, Program, UdpDialog, check, free_port, subject
from pairs import is_open, wait_until

KENCTL = os.path.join(BUILD, "scripts", "kenctl")
PATIENCE = harness.PATIENCE
# As small as a segment may be: segments switch every few turns, and a fresh store is made in a moment.
SMALL = {"KEN_MUTANT": ",".join(filter(None, ("small.segments", os.environ.get("KEN_MUTANT"))))}


class Mortal(Program):
    """A program with a fault for each of its starts, and a thread that starts it again when it has died."""

    def __init__(self, t, schedule, log=None, env=None, later=None):
        place = os.path.join(t.dir, "program")
        os.makedirs(place, exist_ok=True)
        super().__init__([], os.path.join(place, "store"), place, env=dict(SMALL, **(env or {})))
        self.schedule, self.log, self.later = list(schedule), log, later or {}
        self.hits, self.fault, self.trouble, self.ended = [], None, None, None
        self.rest, self.keeper = threading.Event(), None
        self.daemons = False
        self.final = None  # the status that a finished run has
        self.dialog = None
        self.expected_messages.append("the old store is kept as")

    def start(self):
        index = self.starts
        self.fault = self.schedule[index] if index < len(self.schedule) else None
        if index:
            self.env.update(self.later)
        for name, value in (("KEN_FAULT", self.fault), ("KEN_FAULT_LOG", self.log and f"{self.log}.{index}")):
            self.env.pop(name, None)
            if value:
                self.env[name] = value
        super().start()
        if not self.keeper:
            self.keeper = threading.Thread(target=self.keep, daemon=True)
            self.keeper.start()
        return self

    def keep(self):
        while not self.rest.is_set():
            if self.process is not None and self.process.poll() is not None:
                try:
                    status = self.wait_gone()
                    if status == -9:
                        self.note_hit()
                    if self.daemons:
                        if self.holder():
                            status = self.follow()
                        elif status == 0 and "state: stopped" in self.show():
                            status = self.follow()
                        if status is None:
                            return
                    if status != -9:
                        self.ended = status
                        return
                    if self.over():
                        return
                    self.start()
                except Failure as failure:
                    self.trouble = failure
                    if self.dialog:
                        self.dialog.stopping = True
                    return
            time.sleep(0.001)

    def show(self):
        return subprocess.run([KENCTL, "show", self.store], capture_output=True, text=True).stdout

    def holder(self):
        text = subprocess.run([KENCTL, "holder", self.store], capture_output=True, text=True).stdout
        return int(text) if text else 0

    def note_hit(self):
        check(self.fault, "it was killed, but not by the test")
        self.hits.append(self.fault)
        self.fault = None
        self.kills += 1

    def follow(self):
        """Waits for the end of the daemon that the program is now: -9; None: the case was over before."""
        while self.holder():
            if self.rest.wait(0.005):
                return None
        if self.fault:
            self.note_hit()
        return -9

    def over(self):
        """True when it died behind its own end: the store says that the run is finished, and how."""
        if self.final is None:
            return False
        for line in self.show().splitlines():
            if line == f"state: finished, status {self.final}":
                self.ended = self.final
                return True
        return False

    def wait_end(self, timeout=PATIENCE):
        """The status that the run ended with, whoever of its incarnations said so."""
        deadline = time.monotonic() + timeout
        while self.ended is None:
            self.judge()
            if time.monotonic() > deadline:
                raise Failure(f"it does not end: {self.tail()}")
            time.sleep(0.001)
        self.judge()
        return self.ended

    def stderr(self, start=None):
        try:
            return super().stderr(start)
        except FileNotFoundError:  # it is just being started
            return ""

    def judge(self):
        if self.trouble:
            raise self.trouble

    def stop(self):
        self.rest.set()
        if self.keeper:
            self.keeper.join()
        super().stop()
        while self.daemons and (pids := harness.processes(self.argv)):
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            time.sleep(0.002)


def ask(p, dialog, command, right):
    try:
        answer = dialog.ask(command)
    except Failure:
        p.judge()
        raise
    p.judge()
    check(right is None or answer == right, f"'{dialog.seq} {command}': the answer is '{answer}', not '{right}'")


def udp_dialog(t, p, argv):
    port = free_port()
    p.argv = argv + [str(port)]
    p.dialog = dialog = UdpDialog(p, port)
    dialog.retry = 0.04
    t.at_end(dialog.close)
    p.start()
    return dialog


def counter(t, p, requests=10):
    dialog = udp_dialog(t, p, [subject("udp_counter")])
    for n in range(1, requests + 1):
        ask(p, dialog, "INC key", f"key {n}")
    ask(p, dialog, "GET key", f"key {requests}")


def pages_saved(p):
    text = subprocess.run([KENCTL, "show", p.store], capture_output=True, text=True).stdout
    found = re.search(r"^memory: .* in (\d+) pages", text, re.M)
    return int(found[1]) if found else 1 << 40  # in the middle of a commit


def remap(t, p):
    dialog = udp_dialog(t, p, [subject("remapper")])
    for command, total in (("fill", 0), ("sum", 3 << 20), ("replace", 0), ("fill", 0), ("replace", 0), ("sum", 0),
                           ("fill", 0), ("sum", 3 << 20), ("replace", 0), ("sum", 0)):
        ask(p, dialog, command, f"{command} {total}")
    ask(p, dialog, "fill", "fill 0")
    time.sleep(0.02)
    ask(p, dialog, "sum", f"sum {3 << 20}")
    full, deadline = pages_saved(p), time.monotonic() + 2
    ask(p, dialog, "replace", "replace 0")
    while pages_saved(p) > full - 200:
        check(time.monotonic() < deadline, f"what was unmapped is still in the store: {full} pages before, {pages_saved(p)} now")
        time.sleep(0.01)


def threads(t, p):
    dialog = udp_dialog(t, p, [subject("threaded_counter")])
    for n in range(1, 13):
        ask(p, dialog, "inc", f"{n} {n}")


KITCHEN = [f"{name} {n * 977}" for n, name in enumerate(
    "global arena block hole grow library arena sort jump deep hole up block misc switch arena deep hole check".split())]
kitchen_answers = []


def kitchen_model():
    t = Case("kitchen")
    port = free_port()
    p = Program([subject("kitchen"), str(port)], t.dir, t.dir, bare=True).start()
    dialog = UdpDialog(p, port)
    kitchen_answers.extend(dialog.ask(command) for command in KITCHEN)
    dialog.close()
    p.stop()
    t.finish(False)


def kitchen(t, p):
    dialog = udp_dialog(t, p, [subject("kitchen")])
    for command, right in zip(KITCHEN, kitchen_answers):
        ask(p, dialog, command, right)


NAMELESS = "tmp gone moved over mapped gone moved tmp over moved gone mapped inside inside anew inside tmp moved gone gone anew over over".split()
nameless_answers = []


def nameless_model():
    t = Case("nameless")
    port = free_port()
    p = Program([subject("nameless"), t.dir, str(port)], t.dir, t.dir, bare=True).start()
    dialog = UdpDialog(p, port)
    nameless_answers.extend(dialog.ask(command) for command in NAMELESS)
    dialog.close()
    p.stop()
    t.finish(False)


def models():
    """What the programs answer alone: asked once, before the cases."""
    kitchen_model()
    nameless_model()


def nameless(t, p):
    """Files that lose their names while they are open."""
    place = os.path.join(t.dir, "files")
    os.mkdir(place)
    dialog = udp_dialog(t, p, [subject("nameless"), place])
    for command, right in zip(NAMELESS, nameless_answers):
        ask(p, dialog, command, right)


def lines(t, p):
    dialog = line_server.serve_pipes(t, p)
    for command, right in line_server.additions(f"{n * n} " * n + "." for n in range(1, 9)):
        ask(p, dialog, command, right)
    dialog.shut(dialog.to_program)
    check(p.wait_end() == 0, f"status {p.ended}")
    dialog.shut(p.stdout)
    rest = dialog.buffer
    while piece := os.read(dialog.from_program, 65536):
        rest += piece.decode()
    check(rest.replace("\n", "") == "bye after 8", f"its last words: '{rest[-80:]}'")


def collect(p, reader, right, mark=0, passed=None):
    """Reads what it writes until it has ended; compares it with what it should have written. Calls `passed` when
    `mark` bytes have come."""
    text, moved = b"", time.monotonic()
    os.set_blocking(reader, False)
    while True:
        p.judge()
        over = p.ended is not None
        try:
            piece = os.read(reader, 65536)
            text += piece
            if piece:
                moved = time.monotonic()
                if passed and len(text) >= mark:
                    passed = passed()
                continue
        except BlockingIOError:
            pass
        if over:
            break
        if time.monotonic() > moved + PATIENCE:
            raise Failure(f"stuck after {len(text)} of {len(right)} bytes: {p.tail()}")
        time.sleep(0.001)
    if text != right:
        at = next((i for i, (a, b) in enumerate(zip(text, right)) if a != b), min(len(text), len(right)))
        raise Failure(f"{len(text)} bytes, not {len(right)}; at byte {at} {text[max(0, at - 20):at + 40]}")


def leave(t, p, way="slow"):
    """exiter: something to say at the end, then a status."""
    more = b"".join(b"line %d\n" % n for n in range(20000)) if way == "slow" else b""
    right = b"hello\ngot a line\n" + more + b"atexit second\natexit first\n"
    p.final = {"slow": 3, "return": 5, "exit": 7}[way]
    stdin, writer = os.pipe()
    reader, p.stdout = os.pipe()
    p.stdin, p.argv = stdin, [subject("exiter"), way]
    t.at_end(lambda: [os.close(fd) for fd in (stdin, writer, reader, p.stdout)])
    os.write(writer, b"a line\n")
    p.start()
    collect(p, reader, right)
    check(p.wait_end() == p.final, f"status {p.ended}")


def leave_again(t, p):
    """A second run where one just like it has ended."""
    once = Mortal(t, [])
    once.store = once.env["KEN_STORE"] = p.store
    leave(t, once, "exit")
    once.stop()
    leave(t, p, "return")


def told(t, p):
    """exiter, its output in a file that was opened once for all starts: a turn that is done again writes to the same place."""
    p.final = 5
    stdin, writer = os.pipe()
    p.stdout = os.open(os.path.join(t.dir, "told"), os.O_RDWR | os.O_CREAT)
    p.stdin, p.argv = stdin, [subject("exiter"), "return"]
    t.at_end(lambda: [os.close(fd) for fd in (stdin, writer, p.stdout)])
    os.write(writer, b"a line\n")
    p.start()
    check(p.wait_end() == p.final, f"status {p.ended}")
    text = os.pread(p.stdout, 1000, 0)
    check(text == b"hello\ngot a line\natexit second\natexit first\n", f"the file: {text}")


def copy(t, p):
    """cat: a FIFO and then stdin, which it copies to stdout."""
    first, second = b"".join(b"first %d\n" % n for n in range(3000)), b"".join(b"second %d\n" % n for n in range(150000))
    fifo = os.path.join(t.dir, "fifo")
    os.mkfifo(fifo)
    hold = [os.open(fifo, os.O_RDWR)]
    stdin, writer = os.pipe()
    reader, p.stdout = os.pipe()
    p.stdin, p.argv, p.final = stdin, ["/bin/cat", "-u", fifo, "-"], 0
    p.closes_stderr = True  # before it exits, as all of coreutils does: what libken says then, nobody hears
    t.at_end(lambda: [os.close(fd) for fd in hold + [stdin, reader, p.stdout]])
    os.write(hold[0], first)

    def feed():
        try:
            with open(writer, "wb") as f:
                f.write(second)
        except BrokenPipeError:
            pass  # the case has failed

    threading.Thread(target=feed, daemon=True).start()
    p.start()
    # The FIFO's end comes when all of it was seen: whoever opens it before finds a writer.
    collect(p, reader, first + second, len(first), lambda: os.close(hold.pop()))
    check(p.wait_end() == 0, f"status {p.ended}")


def fresh(t, p):
    """KEN_FRESH puts the store of an earlier run aside."""
    once = Program([], p.store, p.cwd, env=SMALL)
    dialog = udp_dialog(t, once, [subject("udp_counter")])
    for n in range(1, 4):
        ask(p, dialog, "INC key", f"key {n}")
    once.kill9()
    counter(t, p)
    kept = [name for name in os.listdir(p.cwd) if name.startswith("store.old-")]
    check(len(kept) == 1, f"the store of the first run was kept as {kept}")


def daemon(t, p):
    """Two forks, and a parent that waits for the daemon."""
    port = free_port()
    p.argv = [subject("daemon"), "ready", str(port), os.path.join(t.dir, "pid")]
    p.daemons = True
    p.expected_messages.append("is in use by process")
    p.dialog = dialog = UdpDialog(p, port)
    dialog.retry = 0.04
    t.at_end(dialog.close)
    p.start()
    for n in range(1, 9):
        ask(p, dialog, "inc", str(n))
    # Whoever answered must be the one that has the store, not a child that a killed parent has left.
    wait_until(lambda: len(harness.processes(p.argv)) == 1, "there is one daemon")
    p.judge()
    check(p.ended is None, f"a start ended with {p.ended}: {p.tail()}")


def has_open(p, port, table):
    """Whether a port is open in the program's own network namespace."""
    try:
        with open(f"/proc/{p.process.pid}/net/{table}") as f:
            return any(line.split()[1].endswith(f":{port:04X}") for line in f.readlines()[1:])
    except (AttributeError, OSError):  # it is between two starts
        return False


def unsent(t, p, heard=False):
    """A run ends while its peer is down; the next one, which dies, stands in for it. With `heard` the peer is there again,
    else a third run stands in for both."""
    port = free_port()
    teller, store = [harness.PYTHON, subject("teller.py"), str(port)], dict(store=p.store, cwd=p.cwd)
    go = os.path.join(t.dir, "go")
    collector = t.program([harness.PYTHON, subject("collector.py"), str(port)], env=SMALL)
    wait_until(lambda: is_open(port) and is_open(port, "tcp"), "the collector's ports")
    first = Program(teller + ["hello", f"wait:{go}", "1-20"], env=dict(SMALL, KEN_LINGER="0"), stdout=subprocess.PIPE, **store)
    t.programs.append(first)
    first.start()
    check(first.process.stdout.readline() == b"met\n", "it meets nobody")
    first.expected_messages.append("the rest stays in the store")
    collector.kill9()
    open(go, "w").close()
    check(first.wait_gone() == 0, "the first run fails")
    if heard:
        collector.restart()
    p.expected_messages.append("the rest stays in the store")
    p.argv, p.final, p.env["KEN_LINGER"] = teller + ["21-40", "exit:3"], 3, "10" if heard else "0"
    p.start()
    check(p.wait_end() == 3, f"status {p.ended}")
    if not heard:
        collector.restart()
    last = Program(teller + ["41-60", "tell"], env=dict(SMALL, KEN_LINGER="10"), stdout=subprocess.PIPE, **store)
    t.programs.append(last)
    last.start()
    text = last.process.stdout.readline().decode().strip()
    check(text == ",".join(str(n) for n in range(1, 61)), f"the peer has {text}")


def unsent_heard(t, p):
    unsent(t, p, True)


# name: (function, environment of the first start, of later ones)
WORKLOADS = {
    "counter": (counter, {}, {}),
    "kitchen": (kitchen, {}, {}),
    "remap": (remap, {}, {}),
    "nameless": (nameless, {}, {}),
    "threads": (threads, {}, {}),
    "lines": (lines, {}, {}),
    "leave": (leave, {}, {}),
    "leave_again": (leave_again, {}, {}),
    "told": (told, {}, {}),
    "copy": (copy, {}, {}),
    "softly": (counter, {"KEN_SYNC": "process"}, {"KEN_SYNC": "power"}),
    "copied_pins": (counter, {"KEN_FAULT_CALL": "linkat:1:EXDEV:1000"}, {}),
    "daemon": (daemon, {}, {}),
    "unsent": (unsent, {}, {}),
    "unsent_heard": (unsent_heard, {}, {}),
    "fresh": (fresh, {"KEN_FRESH": "1"}, {"KEN_FRESH": "1"}),
}


def run(name, schedule, log=None, env=None):
    """One workload with these deaths. Returns (what went wrong or None, the faults that it died of, how often it was started)."""
    function, first, later = WORKLOADS[name]
    t = Case(name)
    p = Mortal(t, schedule, log=log, env=dict(first, **(env or {})), later=later)
    t.programs.append(p)
    wrong = None
    try:
        function(t, p)
        p.judge()
    except Failure as failure:
        wrong = str(failure)
    hits = list(p.hits)
    if wrong:
        p.rest.set()
        wrong += "".join(f"\n    start {n}: {' | '.join(p.stderr(n).strip().splitlines()[-3:]) or '(silent)'}"
                         for n in range(1, p.starts + 1))
    try:
        t.finish(wrong)
    except Failure:
        pass
    return wrong, hits, p.starts
