#!/usr/bin/python3
"""Line servers with stdio: fdopen on a socket, fgets on stdin, printf on stdout."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import *


class Notebook:
    """What line_server answers."""

    def __init__(self, rng):
        self.random, self.texts, self.sum = rng, [], 1

    def commands(self):
        while True:
            if self.texts and self.random.random() < 0.4:
                yield f"show {self.random.randrange(len(self.texts))}"
            else:
                yield "add " + "".join(self.random.choices("abcdefg ", k=self.random.randrange(1, 200))) + "."

    def answer(self, command):
        verb, _, rest = command.partition(" ")
        if verb == "show":
            return self.texts[int(rest)]
        self.texts.append(rest)
        for byte in rest.encode():
            self.sum = (self.sum * 31 + byte) & 0xFFFFFFFF
        return f"{len(self.texts)} {self.sum:08x}"


@case
def line_server_tcp(t):
    port = free_port()
    program = t.program([subject("line_server"), str(port)])
    dialog = TcpDialog(program, port)
    t.at_end(dialog.close)
    notebook = Notebook(t.random)
    t.killed_while(program, Traffic(dialog, notebook.commands(), notebook.answer))


@case
def line_server_stdin(t):
    dialog = PipeDialog.program(t, [subject("line_server")], lambda seq, command: f"{seq} {command}")
    notebook = Notebook(t.random)
    t.killed_while(dialog.program, Traffic(dialog, notebook.commands(), notebook.answer))
    status, words = dialog.farewell()
    check(status == 0 and f"bye after {dialog.answered}" in words, f"status {status}, last words '{words[-80:]}'")


main()
