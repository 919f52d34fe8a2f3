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
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback

from dialogs import *
from program import *


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
