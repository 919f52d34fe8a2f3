#!/usr/bin/python3
"""All kinds of memory: after each command a program sums up everything it has; a twin that nobody
kills gets the same commands and must say the same."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import *

KITCHEN = ("global", "global", "switch", "arena", "arena", "hole", "block", "block", "grow", "library",
           "sort", "jump", "stack", "misc", "vault", "deep", "deep", "up")


def with_twin(t, name, commands, kills=None, **kw):
    twin = Twin(t, lambda port: [subject(name), str(port)])
    port = free_port()
    program = t.program([subject(name), str(port)], **kw)
    dialog = UdpDialog(program, port)
    dialog.retry = twin.dialog.retry = 2.0 if name == "big_turn" else UdpDialog.retry
    t.at_end(dialog.close)
    t.killed_while(program, Traffic(dialog, commands, twin.answer), kills)
    return program


@case
def kitchen(t):
    with_twin(t, "kitchen", (f"{t.random.choice(KITCHEN)} {t.random.randrange(100000)}"
                             for _ in iter(int, 1)))


def tracker(name):
    def run(t):
        if BARE:
            raise Skip("without libken there is no tracker")
        probe = t.program(["/bin/true"], env={"KEN_TRACKER": name})
        probe.expected_messages = [".*"]
        if probe.wait_gone():
            check(probe.messages(), f"status {probe.status} and not a word")
            older = tuple(map(int, re.findall(r"\d+", os.uname().release)[:2])) < (6, 7)
            check(name == "softdirty" or name == "uffd" and older, f"KEN_TRACKER={name}: {probe.tail()}")
            raise Skip(probe.messages()[-1])
        with_twin(t, "kitchen", (f"{t.random.choice(KITCHEN)} {t.random.randrange(100000)}"
                                 for _ in iter(int, 1)), kills=min(KILLS, 10), env={"KEN_TRACKER": name})
    return run


for which in ("uffd", "softdirty", "compare"):
    add_case("tracker_" + which, tracker(which))


@case
def kitchen_each_alone(t):
    """Every operation right before a kill and right after it."""
    twin = Twin(t, lambda port: [subject("kitchen"), str(port)])
    port = free_port()
    program = t.program([subject("kitchen"), str(port)])
    dialog = UdpDialog(program, port)
    t.at_end(dialog.close)
    for name in sorted(set(KITCHEN)):
        for _ in range(2):
            for _ in range(2):
                command = f"{name} {t.random.randrange(100000)}"
                right, answer = twin.answer(command), dialog.ask(command)
                check(answer == right, f"'{command}': {answer}, not {right}")
            if not program.bare:
                program.kill9()
                program.restart()
    t.note(f"{program.kills} kills")


@case
def stack_grows(t):
    """A little deeper in each incarnation, then much deeper. Where the stack's pages begin is another place in each run,
    and an mmap in between makes libken look at the layout again: parts of the stack may be areas of their own."""
    commands = ("deep 1", "arena 1", "deep 2", "stack 900")
    twin = Twin(t, lambda port: [subject("kitchen"), str(port)])
    right = [twin.answer(command) for command in commands]
    for n in range(1 if BARE else 4 * KILLS):
        port = free_port()
        program = t.program([subject("kitchen"), str(port)])
        dialog = UdpDialog(program, port)
        t.at_end(dialog.close)
        for at, command in enumerate(commands):
            answer = dialog.ask(command)
            check(answer == right[at], f"run {n}, '{command}': {answer}, not {right[at]}")
            if not program.bare and at == 1:
                program.kill9()
                program.restart()
        program.stop()


@case(limit=100)
def big_turn(t):
    """Turns that write 100 MB."""
    def commands():
        yield "fill 100 1"
        for n in range(2, 1000):
            yield f"fill 100 {n}" if n % 4 == 0 else t.random.choice(("sum", "drop", f"fill 10 {n}"))
    with_twin(t, "big_turn", commands(), kills=min(KILLS, 6))


@case
def shared_memory(t):
    """Shared memory without a file: anonymous, a memfd's, and what a child wrote."""
    port = free_port()
    program = t.program([subject("shared_memory"), str(port)])
    dialog = UdpDialog(program, port)
    t.at_end(dialog.close)
    count = 0
    for _ in range(1 if program.bare else 8):
        for _ in range(3):
            count += 1
            answer = dialog.ask("INC")
            check(answer == f"{count} {count} {count}", f"answer {answer} instead of {count} three times")
        if not program.bare:
            program.kill9()
            program.restart()
    t.note("8 restarts")


@case
def deepbind(t):
    """A plug-in that finds libc's own malloc first: it and the program free what the other allocated."""
    port, text = free_port(), ""
    program = t.program([subject("deepbind"), subject("plugin.so"), str(port)])
    dialog = UdpDialog(program, port)
    t.at_end(dialog.close)

    def model(command):
        nonlocal text
        text += command
        return f"{len(text)} {text[-40:]}"

    words = ("".join(t.random.choices("abcdefgh", k=t.random.randrange(1, 60))) for _ in iter(int, 1))
    t.killed_while(program, Traffic(dialog, words, model))


main()
