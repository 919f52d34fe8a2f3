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


def drain(reader):
    text = b""
    try:
        while more := os.read(reader, 65536):
            text += more
    except BlockingIOError:
        pass
    return text


@case
def killed_at_the_end(t):
    """Kills while it writes its last words: none is missing, none comes twice, the status is right. A run
    that was over when the kill came is over; the next one gets none of its input."""
    right = reference("slow")
    overs = 0
    for n in range(1 if BARE else max(3, KILLS // 2)):
        stdin, writer = os.pipe()
        reader, stdout = os.pipe()
        os.write(writer, b"a line\n")
        os.set_blocking(reader, False)
        program = t.program([subject("exiter"), "slow"], stdin=stdin, stdout=stdout)
        text, status = b"", None
        at = sorted(t.random.randrange(len(right)) for _ in range(0 if program.bare else 3))
        while status is None:
            try:
                text += os.read(reader, 4096)
            except BlockingIOError:
                time.sleep(0.001)
            if at and len(text) >= at[0] and program.process.poll() is None:
                at.pop(0)
                program.kill9()
                status = program.finished()
                if status is None:
                    program.restart()
            else:
                status = program.process.poll()
        text += drain(reader)
        check(status == STATUS["slow"], f"round {n}: status {status}")
        if text != right:
            first = next((i for i, (a, b) in enumerate(zip(text, right)) if a != b), min(len(text), len(right)))
            raise Failure(f"round {n}: {len(text)} bytes, not {len(right)}; at byte {first} {text[first - 20:first + 40]}")
        if program.process is None:  # killed when the run was over
            overs += 1
        else:
            program.wait_gone()
        program.restart()
        os.write(writer, b"another line\n")
        text, deadline = b"", time.monotonic() + PATIENCE
        while (status := program.process.poll()) is None:
            check(time.monotonic() < deadline, f"round {n}: the next run does not end: {program.tail()}")
            text += drain(reader)
            time.sleep(0.001)
        text += drain(reader)
        check(text == right.replace(b"a line", b"another line"), f"round {n}: the next run says {text[:60]}")
        program.wait_gone()
        for fd in (stdin, writer, reader, stdout):
            os.close(fd)
    t.note(f"{overs} kills came when the run was over")


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
