"""A counter that was killed with a store, and what is to be true of a store that is refused, or resumed from."""
import hashlib
import os
import re
import subprocess

from harness import *


def counter(t, **kw):
    """A counter that was killed at `a 5`, and its dialog."""
    if BARE:
        raise Skip("without libken there is no store")
    port = free_port()
    program = t.program(kw.pop("argv", [subject("udp_counter")]) + [str(port)], **kw)
    dialog = UdpDialog(program, port)
    t.at_end(dialog.close)
    for n in range(1, 6):
        check(dialog.ask("INC a") == f"a {n}", "it miscounts")
    program.kill9()
    return program, dialog


def contents(store):
    """A digest of every file of the store except the lock."""
    found = {}
    for place, _, names in os.walk(store):
        for name in names:
            path = os.path.join(place, name)
            if name != "lock":
                with open(path, "rb") as f:
                    found[os.path.relpath(path, store)] = hashlib.file_digest(f, "sha256").hexdigest()
    return found


def copy_store(store, to):
    subprocess.run(["cp", "-a", "--sparse=always", store, to], check=True)


def refused(t, program, *words, replayed=False):
    """It must end with a status, not by a signal, after a line with all the words; the store stays.

    `replayed`: what is wrong can only be known from the recovered image, so the log may have been applied
    to it, as every start does."""
    before = contents(program.store)
    program.expected_messages = [".*"]
    program.restart()
    status = program.wait_gone()
    lines = program.messages()
    check(status > 0, f"it ended with {status} and said {program.tail()}")
    check(lines, f"no line on stderr, status {status}")
    text = " ".join(lines)
    for word in words:
        check(re.search(word, text), f"'{word}' is not in what it said: {text}")
    after = contents(program.store)
    if replayed:
        before.pop("image"), after.pop("image")
    check(after == before, f"changed: {sorted(n for n in before | after if before.get(n) != after.get(n))}")
    t.note(lines[0].replace(t.dir, "")[5:120])


def resumes(program, dialog, value="a 6"):
    program.restart()
    answer = dialog.ask("INC a")
    check(answer == value, f"the count goes on with '{answer}', not '{value}'")
    check(any(RESUME.match(m) for m in program.messages()), f"no resume line: {program.tail()}")
