#!/usr/bin/python3
"""Programs that go into the background while time passes where it usually does not.

At each named point of libken, and whenever the processes of a daemon look at what they tell each other, a pause may come, mostly of
some milliseconds, rarely up to 2.5 s (KEN_FAULT_JITTER). Meanwhile all of its processes are killed, or the one that has the
store, at any time or at a point on the way from one process to the next; or one of them stands still for a while. What must be true then, whatever the times were:

    - the daemon is protected, under the same store, or a line says that it is not;
    - it counts on from where it was;
    - there is one of it, never two.

    test_jitter.py [SEED...]     these cases only: the same pauses and troubles, though not to the microsecond

Environment: KEN_BUILD (a build with -Dfaults=true), KEN_SEED, KEN_SECONDS (how long it goes on; with KEN_LONG=1 it is 240, and in the
short suite, where what is rare would only disturb, it does not run), KEN_JOBS.
"""
import multiprocessing
import os
import random
import signal
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
import points
from daemons import *
from pairs import is_open, wait_until
from servers import lighttpd_settings, need_server, documents

SECONDS = float(os.environ.get("KEN_SECONDS", "240" if LONG else "0"))
JOBS = int(os.environ.get("KEN_JOBS", "4"))
WAYS = ("libc", "single", "double", "dawdles", "lingers", "waits", "ready", "slow", "signal", "bind")
POINTS = [name for name in points.names("FAULT") if name.startswith("heir.")]
UNPROTECTED = "the program went on as a daemon, in a child, which is not protected"
EXPECTED = (UNPROTECTED, "is in use by process")


class Unprotected(Exception):
    """A line said so: that is the end of the case, and in order."""


def subject_command(t, rng, port):
    return [subject("daemon"), rng.choice(WAYS), str(port), os.path.join(t.dir, "pid")]


def lighttpd_command(t, rng, port):
    place, _ = documents(t, (1,))
    return [need_server("lighttpd"), "-f", lighttpd_settings(t, port, place)]


def memcached_command(t, rng, port):
    return [need_server("memcached"), "-d", "-u", "nobody", "-t", "2", "-p", str(port), "-l", "127.0.0.1"]


class Disturbed:
    """One daemon, with its troubles."""

    def __init__(self, t, seed):
        self.t, self.rng = t, random.Random(seed)
        self.port = free_port()
        kind = self.rng.choice((subject_command,) * 8 + (lighttpd_command, memcached_command))
        self.counts = kind is subject_command
        mutants = ",".join(filter(None, ("small.segments", os.environ.get("KEN_MUTANT"))))
        env = {"KEN_FAULT_JITTER": str(seed), "KEN_FAULT_TRACE": os.path.join(t.dir, "trace"), "KEN_MUTANT": mutants}
        self.p = Daemon(kind(t, self.rng, self.port), os.path.join(t.dir, "store"), t.dir, env={})
        self.point = self.rng.choice([None] * 20 + POINTS)  # where the first start dies, if it comes there
        if self.waits_for_others():
            self.point = None
        if self.point:
            env["KEN_FAULT"] = self.point
        self.p.env.update(env)
        self.p.expected_messages += EXPECTED
        t.programs.append(self.p)
        self.dialog, self.count = UdpDialog(self.p, self.port), 0
        self.dialog.retry = 0.04
        t.at_end(self.dialog.close)

    def start(self):
        Program.start(self.p)
        self.p.env.pop("KEN_FAULT", None)
        self.may_be_gone = False  # after a kill, where others may go on, or end with the one that was killed

    def waits_for_others(self):
        """It has a child of another kind before its fork, which a kill would take with it."""
        return "bind" in self.p.argv

    def unprotected(self):
        return any(UNPROTECTED in line for n in range(1, self.p.starts + 1) for line in self.p.messages(n))

    def living(self):
        ours = {self.p.process.pid} if self.p.process and self.p.process.poll() is None else set()
        return ours | set(processes(self.p.argv)) | {self.p.holder()} - {0}

    def kill_all(self):
        self.p.kill_everybody()
        self.start()

    def kill_holder(self):
        """As the machine's operator does; whoever else there is must see it. One that was just passing the store on is not missed."""
        pid, p = self.p.holder(), self.p
        if not pid:
            return
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        p.kills += 1
        if p.process:
            wait_until(lambda: p.process.poll() is not None, f"the end of the parent, {p.process.pid}, after {pid} was killed: {p.who_runs()}")
            p.wait_gone()
        wait_until(lambda: p.holder() != pid, "the killed one's end")
        self.may_be_gone = True
        if not p.holder():
            self.start()

    def hiccup(self):
        some = sorted(self.living())
        if not some:
            return
        pid = self.rng.choice(some)
        try:
            os.kill(pid, signal.SIGSTOP)
            time.sleep(self.rng.choice((0.003, 0.03, 0.3)) * self.rng.random())
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            pass

    def trouble(self):
        troubles = (self.hiccup, self.hiccup, self.kill_all, self.kill_holder)
        if self.waits_for_others():
            troubles = troubles[:2]
        for _ in range(self.rng.choice((0, 0, 1, 2, 4))):
            time.sleep(self.rng.choice((0.01, 0.05, 0.2)) * self.rng.random())
            self.rng.choice(troubles)()
            self.judge()

    def judge(self):
        if self.unprotected():
            raise Unprotected()

    def settle(self):
        """Until the parent has gone, if there is one, and who has the store is in its service."""
        p, deadline = self.p, time.monotonic() + 2 * PATIENCE
        while True:
            if p.process and p.process.poll() is not None:
                killed = p.kills
                status = p.wait_gone()
                self.judge()
                if status == -signal.SIGKILL and self.point:  # it died there, or somebody whose death it saw
                    self.point, self.may_be_gone = None, True
                    p.kills += 1
                    continue
                check(status == 0, f"the parent ended with {status}, {killed} kills: {p.tail()}")
                check(p.holder(), f"the parent ended with 0, and nobody has the store: {p.tail()}; {p.who_runs()}")
            self.judge()
            if self.may_be_gone and not self.living():
                self.start()
            if (p.process is None or self.resumed()) and self.serves():
                pid = p.holder()
                time.sleep(3 if self.may_be_gone else 0)  # longer than any pause: one that is about to end has ended
                if p.holder() == pid and self.serves():
                    return
            check(time.monotonic() < deadline, f"it is not there: {p.tail()}; {p.who_runs()}")
            time.sleep(0.005)

    def serves(self):
        pid = self.p.holder()
        return pid and self.living() == {pid} and is_open(self.port, "udp" if self.counts else "tcp")

    def resumed(self):
        return any(RESUME.match(line) for line in self.p.messages())

    def ask(self, times):
        for _ in range(times if self.counts else 0):
            answer = self.dialog.ask("inc")
            self.count += 1
            self.judge()
            check(answer == str(self.count), f"it counts {answer}, not {self.count}: {self.p.tail()}")

    def one_lives(self):
        wait_until(lambda: len(processes(self.p.argv)) == 1 or self.unprotected(), f"one that lives: {self.p.who_runs()}; {self.p.tail()}")
        self.judge()
        check(processes(self.p.argv) == [self.p.holder()], f"who lives has not the store: {self.p.who_runs()}; {self.p.tail()}")

    def run(self):
        self.start()
        try:
            self.trouble()
            self.settle()
            self.ask(3)
            self.one_lives()
            for _ in range(self.rng.choice((0, 1, 2))):
                self.rng.choice((self.kill_all, self.kill_holder, self.hiccup))()
                self.settle()
                self.ask(2)
                self.one_lives()
        except Unprotected:
            return "unprotected"
        return "protected"


def path_of(t):
    """What its processes went through, without what says nothing of the order."""
    shown, last = [], None
    try:
        with open(os.path.join(t.dir, "trace")) as f:
            lines = [line.split() for line in f]
    except OSError:
        return ""
    for at, pid, name in lines:
        wanted = name in ("boot.begin", "resume.done", "turn.begin", "turn.committed", "exit.finished") or name.startswith(("heir.", "tie."))
        if wanted and name not in ("tie.looked", "tie.puts", "tie.above") and (pid, name) != last:
            last = pid, name
            shown.append(f"{(int(at) - int(lines[0][0])) / 1000:.1f} {pid} {name}")
    return "\n    path: " + " | ".join(shown[-120:])


def one(seed):
    t = Case(f"jitter-{seed}")
    started, outcome, wrong, case = time.monotonic(), None, None, None
    try:
        case = Disturbed(t, seed)
        outcome = case.run()
    except Skip as skip:
        outcome = f"skipped: {skip}"
    except Exception as error:
        wrong = str(error) if isinstance(error, Failure) else f"{type(error).__name__}: {error}"
    if wrong:
        wrong += f" [{' '.join(case.p.argv[:2]) if case else '-'}, holder {case.p.holder() if case else 0}]"
        if case:
            wrong += "".join(f"\n    start {n}: {' | '.join(case.p.stderr(n).strip().splitlines()[-3:]) or '(silent)'}"
                             for n in range(1, case.p.starts + 1))
        wrong += path_of(t)
    try:
        t.finish(wrong)
    except Failure:
        pass
    return seed, wrong, outcome, time.monotonic() - started


def seeds():
    if sys.argv[1:]:
        yield from map(int, sys.argv[1:])
        return
    until, n = time.monotonic() + SECONDS, 0
    while time.monotonic() < until:
        yield SEED % 1000000 * 1000 + n
        n += 1


def main():
    require_aslr()
    if not SECONDS and not sys.argv[1:]:
        print("SKIP jitter: a part of the long suite; KEN_SECONDS=60 runs it for a minute\n0 passed, 0 failed, 1 skipped")
        sys.exit(77)
    failed, outcomes, slowest = 0, {}, 0
    with multiprocessing.Pool(JOBS) as pool:
        waiting, left = [], seeds()
        while True:
            while len(waiting) < JOBS and (seed := next(left, None)) is not None:
                waiting.append(pool.apply_async(one, (seed,)))
            if not waiting:
                break
            for result in [r for r in waiting if r.ready()]:
                waiting.remove(result)
                seed, wrong, outcome, seconds = result.get()
                slowest = max(slowest, seconds)
                if wrong:
                    failed += 1
                    print(f"FAIL {seed} ({seconds:.1f} s): {wrong}\n    repeat it: KEN_BUILD={BUILD} {sys.executable} "
                          f"{os.path.abspath(__file__)} {seed}", flush=True)
                else:
                    outcomes[outcome] = outcomes.get(outcome, 0) + 1
            time.sleep(0.002)
    passed = outcomes.get("protected", 0) + outcomes.get("unprotected", 0)
    print(f"NOTE {outcomes}, slowest {slowest:.1f} s, seed {SEED}")
    print(f"{passed} passed, {failed} failed, {sum(outcomes.values()) - passed} skipped", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
