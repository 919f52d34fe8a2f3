#!/usr/bin/python3
"""Sockets between programs under libken do what sockets do: the same steps with and without it, and what is ours alone."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import *
from pairs import *


def dialog(t, host, bare):
    port = free_port()
    kind = "plain" if bare else "ken"
    serve = Output(t, f"serve-{kind}", [PYTHON, subject("sockets.py"), "serve", host, str(port)], bare=bare)
    wait_until(lambda: is_open(port, "tcp6" if ":" in host else "tcp"), "the listener")
    ask = Output(t, f"ask-{kind}", [PYTHON, subject("sockets.py"), "ask", host, str(port)], bare=bare)
    for o in (ask, serve):
        wait_until(o.ended, f"the end; {kind}: {ask.lines()[-1:]} {serve.lines()[-1:]} {ask.program.tail()} {serve.program.tail()}")
        o.finish()
    return ask.lines(), serve.lines()


def same_answers(t, host):
    plain, ken = dialog(t, host, True), dialog(t, host, False)
    for who, a, b in zip(("ask", "serve"), plain, ken):
        wrong = [f"{x!r}, not {y!r}" for x, y in zip(b, a) if x != y]
        check(not wrong and len(a) == len(b), f"{who}: " + "; ".join(wrong) + f" ({len(b)} lines, not {len(a)})")
    t.note(f"{sum(map(len, ken))} answers")


@case
def the_same_over_ipv4(t):
    same_answers(t, "127.0.0.1")


@case
def the_same_over_ipv6(t):
    same_answers(t, "::1")


def pair(t, program, *words):
    port = free_port()
    server = t.program([PYTHON, subject(program), "serve", str(port)])
    wait_until(lambda: is_open(port, "tcp"), "the server's port")
    return server, Output(t, "ask", [PYTHON, subject(program), "ask", str(port), *words])


@case(limit=120)
def thousands_of_connections(t):
    """Two thousand between one pair, through kills of both."""
    server, o = pair(t, "many.py", "2000", "3")
    wait_until(o.lines, "the first connection")
    kill_until(t, [o], [server], 6, 0.5, 110)
    check(set(o.lines()) == {"begun", "open", "done"}, f"it says {o.lines()}")


def rss(p):
    with open(f"/proc/{p.pid()}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS"))


@case
def memory_is_bounded(t):
    """A writer whose peer does not read stops; neither side grows."""
    port = free_port()
    script = ("import socket, time\nl = socket.create_server(('127.0.0.1', PORT))\ns = l.accept()[0]\ns.recv(1)\n"
              "print('asleep', flush=True)\ntime.sleep(1.5)\nn = 1\nwhile p := s.recv(100000): n += len(p)\nprint(n, flush=True)\n")
    reader = Output(t, "reader", [PYTHON, "-c", script.replace("PORT", str(port))])
    wait_until(lambda: is_open(port, "tcp"), "the reader's port")
    script = "import socket\ns = socket.create_connection(('127.0.0.1', PORT))\nfor i in range(800): s.sendall(bytes(50000))\n"
    writer = Output(t, "writer", [PYTHON, "-c", script.replace("PORT", str(port))])
    wait_until(reader.lines, "the first byte")
    before = rss(reader.program), rss(writer.program)
    time.sleep(1)
    after = rss(reader.program), rss(writer.program)
    for name, a, b in zip(("reader", "writer"), before, after):
        check(b - a < 4096, f"the {name} grew by {b - a} KiB while nothing was read")
    for o in (writer, reader):
        wait_until(o.ended, "the end")
        o.finish()
    check(reader.lines()[-1] == str(800 * 50000), f"the reader got {reader.lines()}")


@case
def who_is_down_is_waited_for(t):
    """A peer that is known and down: connections and datagrams wait for it, and none is refused or lost."""
    port = free_port()
    server = t.program([PYTHON, subject("collector.py"), str(port)])
    wait_until(lambda: is_open(port), "the collector's port")
    go = os.path.join(t.dir, "go")
    script = (f"import socket, os, time, select\na = ('127.0.0.1', {port})\n"
              "u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\nu.connect(a)\nu.send(b'hello')\nu.recv(9)\n"
              "socket.create_connection(a).close()\nprint('met', flush=True)\n"
              f"while not os.path.exists({go!r}): time.sleep(0.01)\n"
              "for n in range(50): u.send(b'%d' % n)\nprint('sent', flush=True)\n"
              "n = socket.socket()\nn.setblocking(False)\nassert n.connect_ex(a) == 115\n"
              "assert not select.select([], [n], [], 0.3)[1]\nprint('not yet', flush=True)\n"
              "s = socket.create_connection(a)\ns.sendall(b'late')\ns.close()\n"
              "assert select.select([], [n], [], 10)[1] and n.getsockopt(1, 4) == 0\n"
              "n.setblocking(True)\nn.sendall(b'first')\nn.close()\n"
              "time.sleep(0.3)\nu.send(b'tell')\nprint(u.recv(9999).decode(), flush=True)\n")
    o = Output(t, "client", [PYTHON, "-c", script])
    wait_until(o.lines, "the first contact")
    server.kill9()
    open(go, "w").close()
    wait_until(lambda: "not yet" in o.lines(), "the connection's wait")
    time.sleep(0.3)
    check(not o.ended(), f"it did not wait: {o.program.tail()}")
    server.restart()
    wait_until(o.ended, "the end")
    o.finish()
    kept = o.lines()[-1].split(",")
    check([k for k in kept if k.isdigit()] == [str(n) for n in range(50)] and "[late]" in kept and "[first]" in kept,
          f"the collector has {kept}")


main()
