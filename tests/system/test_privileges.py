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


def drops_root(t, *root):
    need_root()
    port = free_port()
    program = t.program([subject("drops_root"), str(port), *root])
    dialog = UdpDialog(program, port)
    t.at_end(dialog.close)
    count = 0

    def model(command):
        nonlocal count
        count += command != "who"
        return WHO % ("inside" if root else "outside") if command == "who" else str(count)

    t.killed_while(program, Traffic(dialog, (t.random.choice(("who", "count")) for _ in iter(int, 1)), model), kills=10)


add_case("drops_root", drops_root)


@case
def changes_its_root(t):
    root = os.path.join(t.dir, "root")
    os.mkdir(root)
    open(os.path.join(root, "here"), "w").close()
    drops_root(t, root)


main()
