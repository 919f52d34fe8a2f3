#!/usr/bin/python3
"""How programs end: exit, _exit, return from main, crashes; and a kill while they do."""
import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import *

STATUS = {"return": 5, "exit": 7, "_exit": 8, "quick": 9, "slow": 3}
CRASHES = {"segv": 11, "abort": 6, "fpe": 8, "ill": 4, "bus": 7, "stack": 11}


def reference(way):
    done = subprocess.run([subject("exiter"), way], input=b"a line\n", capture_output=True)
    check(done.returncode == STATUS[way], f"bare, it ends with {done.returncode}")
    return done.stdout


def run_once(t, way, store=None, **kw):
    """One run to its end; returns the program and what it wrote."""
    stdin, writer = os.pipe()
    reader, stdout = os.pipe()
    os.write(writer, b"a line\n")
    program = t.program([subject("exiter"), way], stdin=stdin, stdout=stdout,
                        **(dict(kw, store=store) if store else kw))
    for fd in (stdin, writer, stdout):
        os.close(fd)
    with open(reader, "rb") as f:
        text = f.read()
    check(program.wait_gone() == STATUS[way], f"status {program.status}, not {STATUS[way]}")
    return program, text


def ends(way):
    def run(t):
        right = reference(way)
        program, text = run_once(t, way)
        check(text == right, f"its output is {text[-200:]}")
        # The run is over: the same command begins a new one.
        again, text = run_once(t, way, store=program.store)
        check(text == right, f"the output of the second run is {text[-200:]}")
        check(not any(RESUME.match(m) for m in again.messages()), f"it resumed a run that was over: {again.tail()}")
    return run


for way in STATUS:
    add_case("end_" + way.lstrip("_") + ("_raw" if way == "_exit" else ""), ends(way))


@case
def killed_at_the_end(t):
    """Kills while it writes its last words: some may come twice, none is missing, the status is right."""
    right = reference("slow").decode().splitlines()
    repeats = 0
    for n in range(1 if BARE else max(3, KILLS // 4)):
        stdin, writer = os.pipe()
        reader, stdout = os.pipe()
        os.write(writer, b"a line\n")
        program = t.program([subject("exiter"), "slow"], stdin=stdin, stdout=stdout)
        os.set_blocking(reader, False)
        text, status, want = b"", None, t.random.randrange(1, 200000)
        while status is None:
            try:
                text += os.read(reader, 4096)
            except BlockingIOError:
                time.sleep(0.001)
            if not program.bare and program.kills < 3 and len(text) >= want * (program.kills + 1) // 3:
                if program.process.poll() is None:
                    program.kill9()
                    program.restart()
            status = program.process.poll()
        program.wait_gone()
        try:
            while more := os.read(reader, 65536):
                text += more
        except BlockingIOError:
            pass
        for fd in (stdin, writer, reader, stdout):
            os.close(fd)
        check(status == STATUS["slow"], f"round {n}: status {status}")
        lines = text.decode().splitlines()
        missing = set(right) - set(lines)
        check(not missing, f"round {n}: {len(missing)} lines never came, as '{sorted(missing)[:1]}'")
        check(lines[-1] == right[-1], f"round {n}: the last line is '{lines[-1]}'")
        repeats += len(lines) - len(right)
    t.note(f"{repeats} lines came twice")


def crash(how):
    def run(t):
        port = free_port()
        program = t.program([subject("crasher"), str(port)])
        dialog = UdpDialog(program, port)
        t.at_end(dialog.close)
        program.expected_messages += [".*"]
        for n in range(1, 4):
            check(dialog.ask("hello") == str(n), "it miscounts")
        dialog.socket.send(f"4 {how}".encode())
        check(program.wait_gone() == -CRASHES[how], f"status {program.status}, not {-CRASHES[how]}")
        if program.bare:
            return
        story = program.stderr()
        if how != "stack":
            check("crash_in_here" in story, f"no backtrace that names the function: {story[-500:]}")
        check("turn " in story, f"the message names no turn: {story[-500:]}")
        program.restart()
        check(dialog.ask("hello") == "4", "the turn that crashed was not rolled back")
        program.check_messages(answered=True)
    return run


for how in CRASHES:
    add_case("crash_" + how, crash(how))


@case
def killed_by_term(t):
    """A signal that ends it leaves the store resumable."""
    port = free_port()
    program = t.program([subject("crasher"), str(port)])
    dialog = UdpDialog(program, port)
    t.at_end(dialog.close)
    dialog.ask("hello")
    program.process.terminate()
    check(program.wait_gone() == -15, f"status {program.status}")
    if not program.bare:
        program.restart()
        check(dialog.ask("hello") == "2", "the run was not resumed")


main()
