"""Programs of which one system call of libken's own fails, and what may come of it.

What happens is right when the program goes on, or when it ends with one `ken: ` line and a start without the fault goes on
as if nothing had been, or when it was told of the error as of one of its own and says so. The workloads are programs.py's;
each start of the program has a call that fails, and a point to die at later, so that it is also seen whether what was
committed behind the failure can be resumed.
"""
import os
import re
import signal
import subprocess
import time

import mortal  # knows where the next one is
from harness import LIB, RESUME, ROOT, Case, Failure, Program, UdpDialog, check, free_port, subject
from mortal import KENCTL, Mortal

FULL = "ENOSPC", "EDQUOT"
TROUBLE = "ENOMEM", "ENOBUFS", "EMFILE", "ENFILE", "ENOSPC", "EDQUOT", "EIO", "EINTR"
FOR_GOOD = 1000000
LIBKENS = 75  # the status of an end that trouble brought about
STAYS = 2.5  # seconds after which a trouble that is there for good goes all the same
LAST_WORDS = 0.7  # seconds in which a program that waits for room would say so again


class Told(Failure):
    """The program was told of the error and ended by itself: nothing further can be asked of it."""


class Erring(Mortal):
    """Its schedule has pairs for each start: the call that fails, and the point to die at, or None."""

    def start(self):
        index = self.starts
        call, death = self.plan[index] if index < len(self.plan) else (None, None)
        self.schedule = self.schedule[:index] + [None] * (index - len(self.schedule)) + [death]
        self.call = call
        self.log_path = f"{self.calls}.{index}"
        if call or self.lists:  # one that gives up root goes on writing there
            self.open_log()
        for name, value in (("KEN_FAULT_CALL", call), ("KEN_FAULT_CALLS", (call or self.lists) and self.log_path)):
            self.env.pop(name, None)
            if value:
                self.env[name] = value
        # What a program in trouble may say is judged when it has ended.
        self.expected_messages = [".*"] if call else self.in_order
        self.started = time.monotonic()
        return super().start()

    def __init__(self, t, plan, env=None, lists=None):
        """`lists`: where each start's calls are listed, none of which fails."""
        self.plan, self.calls, self.lists, self.call = plan, lists or os.path.join(t.dir, "calls"), bool(lists), None
        self.failed, self.outcome = 0, "goes on"
        self.roots = []  # root directories that it will have
        super().__init__(t, [], env=env)
        self.in_order = self.expected_messages

    def open_log(self):
        """For one that gives up root, or goes to another root directory: there the list has the same path."""
        open(self.log_path, "a").close()
        os.chmod(self.log_path, 0o666)
        for root in ("", *self.roots):
            path = root + self.log_path
            os.makedirs(os.path.dirname(path), exist_ok=True)
            os.chmod(os.path.dirname(path), 0o711)
            if not os.path.exists(path):
                os.link(self.log_path, path)

    def did_fail(self):
        """True when this start's call has come and failed."""
        if not self.call or not os.path.exists(self.log_path):
            return False
        with open(self.log_path) as f:
            return any(line.endswith(("failed\n", "short\n")) for line in f)

    def error(self):
        return self.call.split(":")[2]

    def own_words(self):
        return [line for line in self.stderr().splitlines() if not line.startswith("ken: ")]

    def said(self):
        return [line for line in self.messages()
                if not RESUME.match(line) and not any(re.search(pattern, line) for pattern in self.in_order)]

    def waits_for_room(self):
        if not self.call or self.error() not in FULL or not self.call.endswith(f":{FOR_GOOD}"):
            return False
        return any("waiting for room" in line for line in self.said())

    def keep(self):
        while not self.rest.is_set():
            try:
                process = self.process
                if process is not None and process.poll() is not None:
                    if not self.survive():
                        return
                elif process is not None and self.waits_for_room():
                    self.end_waiting(process)
                elif process is not None and self.waits_for_ever():
                    self.outcome, self.fault = "waits", "the test"
                    process.kill()
                    process.wait()
            except Failure as failure:
                self.trouble = failure
                if self.dialog:
                    self.dialog.stopping = True
                return
            time.sleep(0.002)

    def waits_for_ever(self):
        """The trouble stays, so waiting for its end is in order; without it, it must go on."""
        lasts = self.call and self.call.endswith(f":{FOR_GOOD}")
        return lasts and time.monotonic() > self.started + STAYS and self.did_fail()

    def end_waiting(self, process):
        """It waits for room that will never come: as it should, and having said so once."""
        time.sleep(LAST_WORDS)
        check(process.poll() is None, f"it died while it waited for room: {self.tail()}")
        check(len(self.said()) == 1, f"on a full disk it says: {self.said()}")
        self.outcome = "waits"
        self.fault = "the test"
        process.kill()
        process.wait()

    def survive(self):
        """Judges an end; starts it again where it is to go on. False when it is over."""
        status = self.wait_gone()
        if self.daemons:
            status = self.status_with_daemon(status)
            if status is None:
                return False
        did_fail = self.did_fail()
        self.failed += did_fail
        if status == -9:
            check(self.fault, "it was killed, but not by the test")
            self.hits.append(self.fault)
            if did_fail and self.outcome != "waits" and self.own_words():
                self.outcome = "told"  # and was on its way out
                raise Told(self.tail())
        elif not did_fail and self.failed and status != self.final and not self.said() and self.own_words():
            self.outcome = "told"  # in an earlier incarnation, which died before it had said so
            raise Told(self.tail())
        elif not did_fail or status == self.final and not self.said():
            self.ended = status
            return False
        elif self.daemons and status == 0:
            check(self.said(), f"{self.call}: its daemon goes on, and nobody has the store; nothing was said of it")
            self.outcome = "goes on unprotected"
            return False
        else:
            self.judge_end(status)
        self.kills += 1
        if self.over():
            return False
        self.start()
        return True

    def status_with_daemon(self, status):
        """What this start came to, with its daemon, whose status nobody has and whose last words nobody hears. None: the case was
        over before."""
        if not self.holder() and not (status == 0 and "state: stopped" in self.show()):
            return status
        while pid := self.holder():
            if self.waits_for_ever():
                self.outcome, self.fault = "waits", "the test"
                os.kill(pid, signal.SIGKILL)
            if self.rest.wait(0.005):
                return None
        return -9 if self.fault else LIBKENS

    def judge_end(self, status):
        check(status > 0, f"{self.call}: it died of signal {-status}: {self.tail()}")
        said = self.said()
        if (not said or self.daemons) and self.own_words():  # a parent misses the child that ended in trouble
            self.outcome = "told"
            raise Told(f"told: {self.tail()}")
        mute = status == LIBKENS and getattr(self, "closes_stderr", False)
        check(said or mute, f"{self.call}: it ended with status {status} and said nothing of it: {self.tail()}")
        # kenrun starts it again after that status.
        check(status in (LIBKENS, self.final) or not said or self.error() not in TROUBLE,
              f"{self.call}: it ended with status {status}: {self.tail()}")
        check(len(said) <= 2, f"{self.call}: it ended with status {status} and {len(said)} lines: {' | '.join(said)}")
        self.outcome = "ends"


def under_kenrun(call="pwritev2:9:EIO", requests=40):
    """Each start of the program ends in trouble after a few turns, and kenrun starts it again. What went wrong, or None."""
    t = Case("kenrun")
    p = Program([os.path.join(ROOT, "scripts", "kenrun"), "--", subject("udp_counter"), str(free_port())],
                os.path.join(t.dir, "store"), t.dir, bare=True,
                env=dict(mortal.SMALL, KEN_LIB=LIB, KEN_CTL=KENCTL, KEN_STORE=os.path.join(t.dir, "store"), KEN_FAULT_CALL=call))
    wrong = None
    try:
        dialog = UdpDialog(p, int(p.argv[-1]))
        t.at_end(dialog.close)
        p.start()
        for n in range(1, requests + 1):
            answer = dialog.ask("INC key")
            check(answer == f"key {n}", f"the answer to request {n} is '{answer}'")
        p.process.terminate()
        check(p.wait_gone() == 143, f"kenrun ended with {p.status}")
        said = [line for line in p.stderr().splitlines() if line.startswith("kenrun: ")]
        check(len(said) >= 3 and all("libken ended it in trouble; starting it again" in line for line in said), f"kenrun says {said}")
    except Failure as failure:
        p.stop()
        wrong = f"{failure}: {p.stderr(1)[-2000:]}"
    try:
        t.finish(wrong)
    except Failure:
        pass
    return wrong


def check_identity(p):
    """What the kernel tells of a process that resumed: libken gives that back. One that is about to end has none."""
    until = time.monotonic() + 1
    while p.process is not None and p.process.poll() is None:
        try:
            with open(f"/proc/{p.process.pid}/cmdline", "rb") as f:
                if f.read():
                    return
        except (AttributeError, OSError):  # it has ended
            return
        check(time.monotonic() < until, "it has no command line any more")
        time.sleep(0.005)


def run(name, function, env, plan, lists=None):
    """One workload. Returns (what went wrong or None, how often a call failed, what came of it)."""
    t = Case(name)
    p = Erring(t, plan, env=env, lists=lists)
    t.programs.append(p)
    wrong = None
    try:
        try:
            function(t, p)
            p.judge()
        except Told:
            pass
        except Failure as failure:
            # The program's own call answered the error, and it says so; or it talks to somebody who has given it up.
            told = p.outcome == "goes on" and p.did_fail() and f"-1 {p.error()} " in str(failure)
            if not told and not (p.outcome == "waits" and name.startswith(("number", "stream"))):
                raise
            p.outcome = p.outcome if p.outcome == "waits" else "told"
        check_identity(p)
        p.stop()
        p.failed += p.did_fail()
        if os.path.exists(os.path.join(p.store, "super")):
            done = subprocess.run([KENCTL, "check", p.store], capture_output=True, text=True)
            check(done.returncode == 0, f"kenctl check: {done.stderr.strip() or done.stdout.strip()}")
    except Failure as failure:
        p.stop()
        wrong = str(failure)
        wrong += "".join(f"\n    start {n}: {' | '.join(p.stderr(n).strip().splitlines()[-3:]) or '(silent)'}"
                         for n in range(1, p.starts + 1))
    try:
        t.finish(wrong)
    except Failure:
        pass
    return wrong, p.failed, p.outcome
