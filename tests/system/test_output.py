#!/usr/bin/python3
"""Outputs: much at once, to slow readers, in order; through pipes, TCP and UDP; stderr at once."""
import os
import socket
import subprocess
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import *

LINES = (1 << 20) // 16  # of a megabyte


def numbered(lines):
    return b"".join(b"%015d\n" % n for n in range(lines))


@case
def pipe_slow_reader(t):
    """Eight turns of a megabyte each through a pipe that holds 64 KiB, killed while it writes: every byte,
    in order, those of a write that a kill interrupted perhaps twice."""
    megabytes = 8
    dialog = PipeDialog.program(t, [subject("bulk"), "pipe", str(megabytes)], None)
    program, got, kills = dialog.program, bytearray(), 0
    want_kills = 0 if program.bare else 10
    at = sorted(t.random.randrange(megabytes << 20) for _ in range(want_kills))
    asked = 0
    while len(got) < megabytes << 20:
        if asked < megabytes - 1 and len(got) >= asked << 20:  # the last one is its farewell: it has to live to be killed
            dialog.say("go on")
            asked += 1
        check(select.select([dialog.from_program], [], [], PATIENCE)[0],
              f"nothing more after {len(got)} bytes: {program.tail()}")
        got += os.read(dialog.from_program, t.random.randrange(1, 200000))
        if kills < len(at) and len(got) > at[kills]:
            kills += 1
            program.kill9()
            program.restart()
    right = numbered(megabytes * LINES)
    if bytes(got) != right:
        first = next(i for i, (a, b) in enumerate(zip(got, right)) if a != b)
        raise Failure(f"at byte {first}: {bytes(got[first - 20:first + 40])}")
    status, rest = dialog.farewell()
    check(status == 0 and not rest, f"status {status}, and then '{rest[:80]}'")
    t.note(f"{kills} kills")


@case
def tcp_slow_reader(t):
    """20 MB in one turn to a client that reads slowly."""
    port = free_port()
    program = t.program([subject("bulk"), "tcp", str(port)])
    for round_ in range(3):
        for _ in range(500):
            try:
                client = socket.create_connection(("127.0.0.1", port))
                break
            except OSError:
                time.sleep(0.01)
        with client:
            client.settimeout(PATIENCE)
            client.sendall(b"20\n")
            got = bytearray()
            while data := client.recv(1 << 18):
                got += data
                if len(got) < 1 << 20:
                    time.sleep(0.01)
        check(len(got) == 20 << 20, f"round {round_}: {len(got)} bytes of {20 << 20}: {program.tail()}")
        check(bytes(got) == numbered(20 * LINES), f"round {round_}: the bytes are wrong")
        if not program.bare:
            program.kill9()
            program.restart()


@case
def tcp_killed_while_sending(t):
    """The client sees a right beginning and then a reset or an end, never a wrong byte."""
    port = free_port()
    program = t.program([subject("bulk"), "tcp", str(port)])
    right = numbered(8 * LINES)
    for n in range(1 if program.bare else max(3, KILLS // 3)):
        got = bytearray()
        for _ in range(500):
            try:
                client = socket.create_connection(("127.0.0.1", port))
                break
            except OSError:
                time.sleep(0.01)
        with client:
            client.settimeout(PATIENCE)
            try:
                client.sendall(b"8\n")
                stop = t.random.randrange(8 << 20)
                while data := client.recv(1 << 16):
                    got += data
                    if len(got) > stop and not program.bare:
                        program.kill9()
                        program.restart()
                        stop = 1 << 40
            except ConnectionError:
                pass
        check(bytes(got) == right[:len(got)], f"round {n}: wrong bytes among {len(got)}")


@case
def many_datagrams(t):
    """20 answers to one request, and a line on stdout before them: all of them, in order, once more only
    after a kill."""
    reader, writer = os.pipe()
    t.at_end(lambda: os.close(reader))
    port = free_port()
    program = t.program([subject("bulk"), "both", str(port)], stdout=writer)
    os.close(writer) if program.bare else t.at_end(lambda: os.close(writer))
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    t.at_end(client.close)
    client.connect(("127.0.0.1", port))
    client.settimeout(0.3)
    printed = b""
    for n in range(1, 60):
        got, deadline, sent = [], time.monotonic() + PATIENCE, False
        while f"{n} done" not in got:
            check(time.monotonic() < deadline, f"no answer to {n}: {program.tail()}")
            try:
                if not sent or not got:
                    client.send(f"{n} r{n}".encode())
                    sent = True
                while f"{n} done" not in got:
                    text = client.recv(1000).decode()
                    if not got and not text.startswith(f"r{n}."):
                        continue  # what a kill repeated of the request before
                    got.append(text)
            except ConnectionRefusedError:
                time.sleep(0.005)
            except socket.timeout:
                sent = False
                if got:
                    client.send(f"{n} r{n}".encode())
        once = list(dict.fromkeys(got))
        right = [f"r{n}.{i}" for i in range(20)] + [f"{n} done"]
        check(once == right, f"answers to {n}: {once}")
        while f"r{n}\n".encode() not in printed:  # the line left before the answers did
            check(select.select([reader], [], [], 0)[0], f"answer {n} came before line {n}: {printed[-50:]}")
            printed += os.read(reader, 65536)
        if not program.bare and t.random.random() < KILLS / 60:
            program.kill9()
            program.restart()
    t.note(f"{program.kills} kills")


@case
def stderr_at_once(t):
    """What goes to stderr is there while the turn still runs; what goes to stdout is not."""
    reader, writer = os.pipe()
    slower = max(1, PATIENCE / 20)  # the machine, as whoever runs it says
    program = t.program([PYTHON, "-c", "import os, sys, time\nos.pwritev(1, [b'o'], -1)\nos.write(1, b'ut')\nos.write(2, b'err')\n"
                         f"end = time.monotonic() + {1.5 * slower}\nwhile time.monotonic() < end: pass\ntime.sleep(0.01)\n"
                         "sys.stdin.read()"], stdin=reader, stdout=subprocess.PIPE)
    t.at_end(lambda: [os.close(reader), os.close(writer)])
    out = program.process.stdout
    deadline = time.monotonic() + 1.2 * slower
    while "err" not in program.stderr():
        check(time.monotonic() < deadline, "stderr was held")
        time.sleep(0.01)
    if not program.bare:
        check(not select.select([out], [], [], 0.2)[0], "stdout was not held though the turn still ran")
    check(select.select([out], [], [], PATIENCE)[0] and out.read(3) == b"out", "stdout never came")


main()
