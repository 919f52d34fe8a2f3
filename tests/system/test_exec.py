#!/usr/bin/python3
"""Wrapper scripts: what a protected process becomes by exec is protected under the same store."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import *


def script(t, name, text):
    path = os.path.join(t.dir, name)
    with open(path, "w") as f:
        f.write(text)
    os.chmod(path, 0o755)
    return path


def run_counter(t, argv, port):
    program = t.program(argv)
    dialog = UdpDialog(program, port)
    t.at_end(dialog.close)
    count = 0

    def model(command):
        nonlocal count
        count += command == "INC a"
        return f"a {count}"

    t.killed_while(program, Traffic(dialog, (t.random.choice(("INC a", "INC a", "GET a")) for _ in iter(int, 1)), model),
                   min(KILLS, 15))


@case
def wrapper(t):
    """It works for a while, with children, and then becomes the server."""
    port = free_port()
    path = script(t, "wrapper.sh", f"""#!/bin/sh
        where=$(dirname "$0"); echo "$where" | grep -q / || exit 3
        umask 027
        exec {subject("udp_counter")} {port}\n""")
    run_counter(t, [path], port)


@case
def wrappers(t):
    """One that becomes another one, by way of env."""
    port = free_port()
    inner = script(t, "inner.sh", f"""#!/bin/bash
        [ "$COLOUR" = green ] || exit 4
        exec "$@"\n""")
    outer = script(t, "outer.sh", f"""#!/bin/sh
        exec env COLOUR=green {inner} {PYTHON} {subject("kv_udp.py")} {port}\n""")
    run_counter(t, [outer], port)


@case
def wrapper_killed_early(t):
    """Also killed while it is still the wrapper, and in the step from one to the other."""
    port = free_port()
    path = script(t, "wrapper.sh", f"""#!/bin/sh
        for i in 1 2 3 4 5; do sleep 0.005; done
        exec {subject("udp_counter")} {port}\n""")
    program = t.program([path])
    for _ in range(min(KILLS, 15)):
        if program.bare:
            break
        time.sleep(t.random.uniform(0, 0.12))
        program.kill9()
        program.restart()
    dialog = UdpDialog(program, port)
    t.at_end(dialog.close)
    check(dialog.ask("INC a") == "a 1", "the first answer is wrong")


main()
