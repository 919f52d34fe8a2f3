#!/usr/bin/python3
"""Interpreters as they come from the distribution: read-eval-print loops between two pipes.

Each command adds a number once, however often it is sent, and prints `<number total>`.
"""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import *


class Sum:
    """What each of them answers."""

    def __init__(self, t, setup=0, extra=lambda total, count: f"{total}"):
        self.random, self.setup, self.extra = t.random, setup, extra
        self.total, self.count = 0, 0

    def commands(self):
        yield from ["setup"] * self.setup
        while True:
            yield str(self.random.randrange(1, 1000))

    def answer(self, command):
        if command == "setup":
            return "ok"
        self.total += int(command)
        self.count += 1
        return self.extra(self.total, self.count)


def converse(t, argv, translate, sums, kills=None, farewell=None, **kw):
    dialog = PipeDialog.program(t, argv, translate, **kw)
    t.killed_while(dialog.program, Traffic(dialog, sums.commands(), sums.answer), kills)
    status, words = dialog.farewell()
    check(status == 0, f"status {status} at the end of input")
    check(farewell is None or farewell % dialog.answered in words, f"the last words are '{words[-80:]}'")


def python_line(seq, command):
    if command == "setup":
        return f"import collections, json, re; last, total, log = 1, 0, {{}}; print('<{seq} ok>', flush=True)"
    return (f"last, total, _ = ({seq}, total + {command}, log.update({{{seq}: 'x' * {command}}})) "
            f"if last == {seq} - 1 else (last, total, 0); print(f'<{seq} {{total}} {{len(log)}}>', flush=True)")


@case
def python_repl(t):
    converse(t, [PYTHON, "-i", "-u", "-q"], python_line, Sum(t, 1, lambda total, count: f"{total} {count}"))


@case
def python_interact(t):
    converse(t, [PYTHON, "-u", "-c", "import code; code.interact(banner='', exitmsg='')"], python_line,
             Sum(t, 1, lambda total, count: f"{total} {count}"))


@case
def lua(t):
    converse(t, [need("lua5.4"), subject("step.lua")], lambda seq, command: f"{seq} {command}",
             Sum(t, 0, lambda total, count: f"{total} {count}"), farewell="bye after %d")


@case
def gawk(t):
    converse(t, [need("gawk"), "-f", subject("step.awk")], lambda seq, command: f"{seq} {command}",
             Sum(t, 0, lambda total, count: f"{total} {count}"), farewell="bye after %d")


@case
def gawk_tcp(t):
    port = free_port()
    program = t.program([need("gawk"), "-v", f"port={port}", "-f", subject("serve.awk")])
    dialog = TcpDialog(program, port)
    t.at_end(dialog.close)
    times = {}

    def model(word):
        times[word] = times.get(word, 0) + 1
        return f"{word} {times[word]}"

    t.killed_while(program, Traffic(dialog, (t.random.choice("abcdef") for _ in iter(int, 1)), model))


@case
def guile(t):
    """The value of each `set!` takes a moment to compute, so that kills come in the middle of it."""
    def line(seq, command):
        if command == "setup":
            return f'(begin (define last {seq}) (define total 0) (display "<{seq} ok>\\n") (force-output))'
        return (f"(begin (if (= last {seq - 1}) (begin (set! total (let loop ((i 0)) "
                f"(if (< i 3000) (loop (+ i 1)) (+ total {command})))) (set! last {seq}))) "
                f'(display "<{seq} ") (display total) (display ">\\n") (force-output))')

    converse(t, [need("guile"), "--no-auto-compile", "-q"], line, Sum(t, 1), kills=min(KILLS, 15),
             env={"HOME": t.dir})


@case
def sqlite(t):
    """A database in memory."""
    def line(seq, command):
        if command == "setup":
            return ("CREATE TABLE IF NOT EXISTS step(seq INTEGER PRIMARY KEY, value INTEGER, text TEXT); "
                    f"SELECT '<{seq} ok>';")
        return (f"INSERT OR IGNORE INTO step VALUES({seq}, {command}, hex(zeroblob({command}))); "
                f"SELECT '<{seq} ' || (SELECT sum(value) || ' ' || count(*) FROM step) || '>';")

    converse(t, [need("sqlite3"), ":memory:"], line, Sum(t, 1, lambda total, count: f"{total} {count}"))


@case
def bc(t):
    def line(seq, command):
        return f'if (z == {seq - 1}) {{ t = t + {command}; z = {seq}; }}\nprint "<{seq} ", t, ">\\n"'

    converse(t, [need("bc"), "-q"], line, Sum(t))


main()
