"""Programs of which one system call of libken's own fails, and what may come of it.

What happens is right when the program goes on, or when it ends with one `ken: ` line and a start without the fault goes on
as if nothing had been, or when it was told of the error as of one of its own and says so. The workloads are those of
mortal.py, whose answers are known, and more; each start of the program has a call that fails, and a point to die at
later, so that it is also seen whether what was committed behind the failure can be resumed.
"""
import os
import re
import subprocess
import time
import tty

import mortal  # knows where the next ones are
import hosts
import places
from harness import LIB, PYTHON, RESUME, ROOT, Case, Failure, Program, TcpDialog, UdpDialog, check, free_port, subject
from mortal import KENCTL, Mortal, ask, udp_dialog

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
        super().__init__(t, [], env=env)
        self.in_order = self.expected_messages

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
        did_fail = self.did_fail()
        self.failed += did_fail
        if status == -9:
            check(self.fault, "it was killed, but not by the test")
            self.hits.append(self.fault)
            if did_fail and self.outcome != "waits" and self.own_words():
                self.outcome = "told"  # and was on its way out
                raise Told(self.tail())
        elif not did_fail or status == self.final and not self.said():
            self.ended = status
            return False
        else:
            self.judge_end(status)
        self.kills += 1
        if self.over():
            return False
        self.start()
        return True

    def judge_end(self, status):
        check(status > 0, f"{self.call}: it died of signal {-status}: {self.tail()}")
        said = self.said()
        if not said and self.own_words():
            self.outcome = "told"
            raise Told(f"told: {self.tail()}")
        mute = status == LIBKENS and getattr(self, "closes_stderr", False)
        check(said or mute, f"{self.call}: it ended with status {status} and said nothing of it: {self.tail()}")
        # kenrun starts it again after that status.
        check(status in (LIBKENS, self.final) or not said or self.error() not in TROUBLE,
              f"{self.call}: it ended with status {status}: {self.tail()}")
        check(len(said) <= 2, f"{self.call}: it ended with status {status} and {len(said)} lines: {' | '.join(said)}")
        self.outcome = "ends"


known_answers = {}


def command_line(name, port, arguments, place):
    start = [PYTHON, subject(name)] if name.endswith(".py") else [subject(name)]
    return start + [str(port)] + [a.format(dir=place) for a in arguments]


def lay(files, place):
    for name, text in files.items():
        path = os.path.join(place, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as f:
            f.write(text)


def answers(name, commands, arguments, files):
    """What the program answers that runs alone: asked once, before the cases."""
    if (name, commands, arguments) not in known_answers:
        t, port = Case(name), free_port()
        lay(files, t.dir)
        p = Program(command_line(name, port, arguments, t.dir), t.dir, t.dir, bare=True).start()
        dialog = UdpDialog(p, port)
        known_answers[name, commands, arguments] = [dialog.ask(command) for command in commands]
        dialog.close()
        p.stop()
        t.finish(False)
    return known_answers[name, commands, arguments]


def service(name, text, *arguments, files={}):
    """A workload of a subject that answers datagrams, with the answers that a run of it alone gives."""
    commands = tuple(text.split(", "))

    def run(t, p):
        port, right_ones = free_port(), answers(name, commands, arguments, files)
        lay(files, t.dir)
        p.argv = command_line(name, port, arguments, t.dir)
        p.dialog = dialog = UdpDialog(p, port)
        dialog.retry = 0.04
        t.at_end(dialog.close)
        p.start()
        for command, right in zip(commands, right_ones):
            ask(p, dialog, command, right)
    run.prepare = lambda: answers(name, commands, arguments, files)
    return run


def tcp(t, p, argv=None, requests=12):
    port = free_port()
    p.argv = (argv or [subject("tcp_counter")]) + [str(port)] + (["edge"] if argv else [])
    p.dialog = dialog = TcpDialog(p, port)
    t.at_end(dialog.close)
    p.start()
    for n in range(1, requests + 1):
        ask(p, dialog, f"text-{n}" if argv else "INC key", f"{n} text-{n}" if argv else f"key {n}")


def edge(t, p):
    tcp(t, p, [subject("echo_loop")])


def converse(t, p, ours, server_argv, client_argv, port, table, right, within=None):
    """A server and a client under libken; one of them is the one whose calls fail."""
    path = os.path.join(t.dir, "answers")
    place = os.path.join(t.dir, "other")
    os.makedirs(place)
    other = Mortal(t, [])
    other.cwd, other.store = place, os.path.join(place, "store")
    other.env["KEN_STORE"] = other.store
    t.programs.append(other)
    server, client = (p, other) if ours == "server" else (other, p)
    server.argv, client.argv = server_argv, client_argv
    client.stdout, client.final = os.open(path, os.O_CREAT | os.O_WRONLY), 0
    t.at_end(lambda: os.close(client.stdout))
    if within:
        within(server, client)
    server.start()
    await_port(server, port, table)
    client.start()
    deadline = time.monotonic() + mortal.PATIENCE
    while client.ended is None:
        p.judge()
        other.judge()
        check(time.monotonic() < deadline, f"no progress: {client.tail()}; {server.tail()}")
        time.sleep(0.002)
    if ours == "server" and server.starts > 1 and "Connection refused" in client.stderr():
        return  # it came just between two incarnations
    if client.ended and ours == "server":  # perhaps because the server was told, and left
        await_judgement(p)
    check(client.ended == 0, f"the client ended with {client.ended}: {client.tail()}")
    with open(path) as f:
        lines = f.read().splitlines()
    check(lines == right, f"{len(lines)} lines, the last is {lines[-1:]}")


def talk(kind, count, ours):
    def run(t, p):
        port = free_port()
        converse(t, p, ours, [subject(f"{kind}_server"), str(port)], [subject(f"{kind}_client"), str(port), str(count), "c"], port,
                 "udp" if kind == "number" else "tcp", [f"{n} {n + 1}" for n in range(count)] + ["done"])
    return run


def far(kind, count, ours):
    """They are on two hosts."""
    def run(t, p):
        two, key = hosts.Hosts(t), hosts.make_key(t)

        def within(server, client):
            for program, host in ((server, 1), (client, 0)):
                program.env.update(KEN_PEERS="10.77.0.0/24", KEN_KEY_FILE=key)
                program.start = lambda start=program.start, host=host: two.within(host, start)
        converse(t, p, ours, [PYTHON, subject("far_server.py"), kind, "0.0.0.0", "7001"],
                 [PYTHON, subject("far_client.py"), kind, "10.77.0.2", "7001", str(count), "c"], 7001, kind,
                 [str(n + 1) for n in range(count)] + ["done"], within)
    run.needs = hosts.Hosts
    return run


def await_judgement(p):
    deadline = time.monotonic() + 1
    while isinstance(p, Erring) and time.monotonic() < deadline and p.ended is None:
        p.judge()
        if p.did_fail() and p.own_words():  # it lingers, for a peer that is gone
            p.outcome = "told"
            raise Told(p.tail())
        time.sleep(0.01)


def await_port(p, port, table):
    deadline = time.monotonic() + mortal.PATIENCE
    while not mortal.has_open(p, port, table):
        p.judge()
        check(time.monotonic() < deadline, "the server's port does not open")
        time.sleep(0.002)


def children(t, p):
    dialog = udp_dialog(t, p, [PYTHON, subject("children.py")])
    for n in range(1, 5):
        ask(p, dialog, "text", f"TEXT {n} none {n}")


def wrapper(t, p):
    path = os.path.join(t.dir, "wrapper.sh")
    with open(path, "w") as f:
        f.write(f"#!/bin/sh\numask 027\necho a | grep -q a\nunset KEN_FAULT KEN_FAULT_CALL KEN_FAULT_CALLS\nexec {subject('udp_counter')} $1\n")
    os.chmod(path, 0o755)
    dialog = udp_dialog(t, p, [path])
    for n in range(1, 8):
        ask(p, dialog, "INC key", f"key {n}")


def terminal(t, p):
    """The line server at a terminal, whose modes it has set."""
    master, slave = os.openpty()
    tty.setraw(slave)
    p.stdin, p.stdout, p.argv, p.final = slave, slave, [subject("line_server")], 0
    p.dialog = dialog = mortal.PipeDialog(p, lambda seq, command: f"{seq} {command}")
    dialog.to_program, dialog.from_program, dialog.open = master, master, {master, slave}
    t.at_end(dialog.close)
    p.start()
    total = 1
    for n in range(1, 7):
        text = f"{n * n}."
        for byte in text.encode():
            total = (total * 31 + byte) & 0xFFFFFFFF
        try:
            ask(p, dialog, f"add {text}", f"{n} {total:08x}")
        except Failure:
            asked = any(call and call.split(":")[2] == "EIO" for call, _ in p.plan)
            if asked and (p.failed or p.did_fail()) and p.ended == 0:  # what reading from a terminal that hung up answers
                p.outcome = "told"
                raise Told(p.tail()) from None
            raise


FORK_CLIENT = """
import socket, sys
for n in range(4):
    s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    f = s.makefile("rwb")
    for k in range(1, 4):
        f.write(b"sum %d\\n" % k)
        f.flush()
        assert f.readline() == b"%d\\n" % (k * (k + 1) // 2)
    f.write(b"send 100000\\n")
    f.flush()
    assert f.read(100000) == b"x" * 100000
    print(n, flush=True)
"""


def forking(t, p):
    """A server that forks for each connection; its client is under libken as well. A server that was killed has reset what its
    children had, so none is killed here but by the error."""
    port = free_port()
    p.argv = [PYTHON, subject("forking.py"), str(port)]
    p.start()
    await_port(p, port, "tcp")
    client = Program([PYTHON, "-c", FORK_CLIENT, str(port)], os.path.join(t.dir, "client"), t.dir, stdout=subprocess.PIPE)
    t.programs.append(client)
    client.start()
    deadline = time.monotonic() + mortal.PATIENCE
    while client.process.poll() is None:
        p.judge()
        check(time.monotonic() < deadline, f"no progress: {client.tail()}; {p.tail()}")
        time.sleep(0.002)
    time.sleep(0.05)
    p.judge()
    text = client.process.stdout.read().decode().split()
    client.wait_gone()
    if p.starts > 1 and any(word in client.stderr() for word in ("Refused", "Reset", "reset", "BrokenPipe", "assert")):
        return
    if p.did_fail() and p.own_words():  # its fork was refused, and it says so
        p.outcome = "told"
        raise Told(p.tail())
    check(text == list("0123"), f"the client has {text}: {client.tail()}")


FILES = "read 100, line, log a, pread 77, seek 40, read 33, line, log b, where, read 200, line, where"
PIPES = ("put one, send two, event 3, put four, take, send five, dup, event 6, get, put seven, count, take, get, put eight, dup, "
         "take")
SIGNALS = ("cd /usr, handle 10, handle 12, stack, itimer 50, block 10, raise 10, umask 077, limit 500, raise 12, unblock 10, "
           "limit 900, cd /tmp, umask 022, block 12, raise 12, unblock 12")
KINDS = ", ".join("eventfd signal timer inotify pair message memfd unix epoll dup option pipe move lock vfork".split() * 3)
PTHREADS = ("mutex 0, mutex 2, robust, timer, rwlock, worker, pipe, mutex 3, robust, timer, clock, worker, timeout, cancel, timer, "
            "mutex 1, barrier, robust, pipe, detach, timer")
# What the first eight have made, the next ones change in another process.
MEMORY = ("vault 1, arena 3, arena 4, grow 900, block 5, vault 2, arena 6, grow 901, hole 3, arena 36, vault 9, grow 90000, hole 6, stack 8, "
          "vault 4, hole 4, arena 3")
WAITING = ", ".join("a" * 26)
QUEUED = ("queue sleeper 100 1, kill sleeper 10, queue process 101 2, queue main 102 3, show, kill process 10, queue sleeper 100 4, "
          "queue process 100 5, kill main 10, hit sleeper, show, queue process 102 6, queue sleeper 101 7, show")
HALF = ", ".join("pair message unix dup pipe epoll lock memfd timer".split() * 3)
EARLY, LATER = "turn.applied:5", "turn.applied:4"

# name: (function, environment, where its first start dies when the second is looked at, where the one looked at dies)
WORKLOADS = {name: (function, env, mortal_death, LATER) for name, function, env, mortal_death in (
    ("counter", mortal.counter, {}, EARLY),
    ("compare", mortal.counter, {"KEN_TRACKER": "compare"}, EARLY),
    ("softly", mortal.counter, {"KEN_SYNC": "process"}, EARLY),
    ("kitchen", mortal.kitchen, {}, EARLY),
    ("remap", mortal.remap, {}, EARLY),
    ("threads", mortal.threads, {}, "release.noted:6"),
    ("lines", mortal.lines, {}, "turn.applied:3"),
    ("leave", mortal.leave, {}, "release.noted:20"),
    ("leave_again", mortal.leave_again, {}, "turn.released:1"),
    ("copy", mortal.copy, {}, "release.noted:40"),
    ("fresh", mortal.fresh, {"KEN_FRESH": "1"}, None),
    ("tcp", tcp, {}, EARLY),
    ("edge", edge, {}, "turn.applied:7"),
    ("pipes", service("pipes", PIPES), {}, "turn.applied:8"),
    ("signals", service("signals", SIGNALS), {}, "turn.applied:9"),
    ("files", service("files", FILES, "/proc/cpuinfo", "{dir}/log"), {}, "turn.applied:6"),
    ("number_server", talk("number", 40, "server"), {}, "turn.applied:15"),
    ("number_client", talk("number", 40, "client"), {}, "turn.applied:15"),
    ("stream_server", talk("stream", 60, "server"), {}, "turn.applied:20"),
    ("stream_client", talk("stream", 60, "client"), {}, "turn.applied:20"),
    ("kinds", service("descriptor_kinds", KINDS), {}, "turn.applied:24"),
    ("pthreads", service("pthread_kinds", PTHREADS), {}, "turn.applied:12"),
    ("user", service("drops_root", "who, count, count, who, count, who, count, who"), {}, EARLY),
    ("terminal", terminal, {}, "turn.applied:3"),
    ("forking", forking, {}, None),
    ("unsent", mortal.unsent, {}, "turn.applied:2"),
    ("far_server", far("tcp", 20, "server"), {}, "turn.applied:10"),
    ("far_client", far("udp", 20, "client"), {}, "turn.applied:10"),
    ("children", children, {}, EARLY),
    ("wrapper", wrapper, {}, EARLY),
    ("nameless", mortal.nameless, {}, "commit.captured:7"),
    ("in_memory", places.in_memory, {}, EARLY),
    ("relative", places.relative, {}, EARLY),
    ("by_default", places.by_default, {}, EARLY),
    ("older_kernel", places.older_kernel, {}, EARLY),
    ("memory", service("kitchen", MEMORY), {}, "turn.applied:9"),
    ("shared", service("shared_memory", WAITING), {}, EARLY),
    ("waits", service("waits", WAITING), {}, "turn.applied:9"),
    ("queued", service("pending", QUEUED), {}, "turn.applied:9"),
    ("half_done", service("descriptor_kinds", HALF), {}, "turn.applied:10"),
    ("spliced", service("spliced", "pump 900, file, pump 5000, pump 70, file, pump 12345, file, pump 1, pump 8000", "{dir}/text",
                        files={"text": "f" * 300000}), {}, EARLY),
    ("inside", service("drops_root", "who, count, count, who, count, who, count, who", "{dir}/root", files={"root/here": ""}), {}, EARLY),
    ("allocations", service("malloc_kinds", ", ".join(f"step {n * 7919}" for n in range(1, 21))), {}, "turn.applied:9"),
)}


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


def run(name, plan, lists=None):
    """One workload. Returns (what went wrong or None, how often a call failed, what came of it)."""
    function, env, _, _ = WORKLOADS[name]
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
