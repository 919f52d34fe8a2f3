#!/usr/bin/python3
"""A server that gives up root goes on committing and resuming, as who it became. Needs root."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import *
from servers import *

WHO = "65534 65534 65534 65534 2:60001 1 4000 root:refused %s"


def need_root():
    if os.geteuid():
        raise Skip("not root")


def commands(t, may_load):
    """A library that comes when root is gone cannot be pinned any more."""
    if may_load:
        yield "load"
    while True:
        yield t.random.choice(("who", "count"))


def drops_root(t, *root):
    need_root()
    port = free_port()
    program = t.program([subject("drops_root"), str(port), *root])
    program.expected_messages.append("cannot pin .*libanl")
    dialog = UdpDialog(program, port)
    t.at_end(dialog.close)
    count = 0

    def model(command):
        nonlocal count
        count += command != "who"
        return WHO % ("inside" if root else "outside") if command == "who" else str(count)

    t.killed_while(program, Traffic(dialog, commands(t, not root), model), kills=10)
    said = [line for start in range(1, program.starts + 1) for line in program.messages(start) if "pin" in line]
    check(len(said) == (0 if root or BARE else 1), f"what could not be pinned is to be told once: {said}")


add_case("drops_root", drops_root)


@case
def changes_its_root(t):
    root = os.path.join(t.dir, "root")
    os.mkdir(root)
    open(os.path.join(root, "here"), "w").close()
    drops_root(t, root)


@case
def is_jailed(t):
    """Files, directories and what only /proc tells are found again in a root directory within a root directory, by two threads."""
    need_root()
    root, port = os.path.join(t.dir, "root"), free_port()
    os.makedirs(os.path.join(root, "cell", "corner"))
    for place, letter in ((t.dir, "a"), (root, "b"), (os.path.join(root, "cell"), "c")):
        with open(os.path.join(place, "file"), "w") as file:
            file.write(letter * 100000)
    open(os.path.join(root, "cell", "here"), "w").close()
    program = t.program([subject("jailed"), str(port), root], cwd=t.dir)
    dialog = UdpDialog(program, port)
    t.at_end(dialog.close)
    count = 0

    def model(command):
        nonlocal count
        count += command == "count"
        return str(count) if command == "count" else f"65534 /corner inside {count} {count}:a {count}:b {count}:c"

    def commands():
        while True:
            yield t.random.choice(("where", "count"))

    t.killed_while(program, Traffic(dialog, commands(), model), kills=10)


main()
