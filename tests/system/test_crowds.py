#!/usr/bin/python3
"""Many connections, much data and many threads between one pair: nothing is lost, nobody waits for ever, and memory stays bounded."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import *
from pairs import *


def pair(t, program, *words):
    port = free_port()
    server = t.program([PYTHON, subject(program), "serve", str(port)])
    wait_until(lambda: is_open(port, "tcp"), "the server's port")
    return server, Output(t, "ask", [PYTHON, subject(program), "ask", str(port), *words])


@case(limit=320)
def thousands_of_connections(t):
    """A thousand between one pair, through kills of both; KEN_LONG=1: four thousand."""
    server, o = pair(t, "many.py", *(("4000", "5") if LONG else ("1000", "2")))
    wait_until(o.lines, "the first connection")
    kill_until(t, [o], [server], 6, 0.5, 300 if LONG else 110)
    check(set(o.lines()) == {"begun", "open", "done"}, f"it says {o.lines()}")


def image(p):
    """Bytes that the program's image takes on the disk, the log left out."""
    return sum(os.stat(os.path.join(p.store, name)).st_blocks * 512 for name in os.listdir(p.store) if name.startswith("image"))


@case(limit=120)
def connections_that_come_and_go(t):
    """Thousands between one pair, a hundred at a time, through kills of both; what is over takes no room."""
    rounds = 400 if LONG else 16
    server, o = pair(t, "come_and_go.py", "100", str(rounds))
    wait_until(lambda: len(o.lines()) >= rounds // 4 or o.ended(), "the first rounds")
    before = image(server), image(o.program)
    kill_until(t, [o], [server], KILLS // 2, 0.2, 90)
    after = image(server), image(o.program)
    check(o.lines() == [str(n) for n in range(rounds)] + ["done"], f"it says {o.lines()[-3:]} {o.program.tail()}")
    check(all(b < a + (4 << 20) for a, b in zip(before, after)), f"the images had {before} bytes after the first rounds, then {after}")
    t.note(f"{rounds * 100} connections")


@case(limit=120)
def a_slow_reader_among_fast_ones(t):
    """Twenty connections between one pair; one that is not read holds up no other, and no more than its window waits for it."""
    size = (100 if LONG else 12) << 20
    port = free_port()
    server = t.program([PYTHON, subject("readers.py"), "serve", str(port)])
    wait_until(lambda: is_open(port, "tcp"), "the server's port")
    asked, words = os.pipe()
    t.at_end(lambda: (os.close(asked), os.close(words)))
    o = Output(t, "ask", [PYTHON, subject("readers.py"), "ask", str(port), "20", str(size)], stdin=asked)
    wait_until(o.lines, "the first connection")
    kills = 0
    while len(o.lines()) < 2 and not o.ended() and kills < KILLS // 2:
        time.sleep(t.random.uniform(0, 0.3))
        for p in t.random.sample([server, o.program], t.random.randrange(1, 3)):
            p.kill9()
            kills += 1
            p.restart()
    wait_until(lambda: len(o.lines()) > 1 or o.ended(), f"the others' end: {o.program.tail()}")
    check(o.lines()[1:] == ["others True 0"], f"it says {o.lines()} {o.program.tail()}")
    sizes = image(server), image(o.program)
    check(max(sizes) < 80 << 20, f"the images have {sizes} bytes")
    os.write(words, b"\n")
    wait_until(o.ended, "the slow one's end")
    o.finish()
    check(o.lines()[2:] == ["all True"], f"it says {o.lines()} {o.program.tail()}")
    t.note(f"{kills} kills, images of {sizes[0] >> 20} and {sizes[1] >> 20} MiB")


@case
def threads_that_wait_apart(t):
    """Four threads, each with a socket of its own, and one that accepts; whichever wakes first, each gets what is for it."""
    ports = [free_port() for _ in range(5)]
    script = ("import select, socket, threading\nP = PORTS\ndef one(port, way):\n s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
              " s.bind(('127.0.0.1', port))\n p = select.poll() if way else select.epoll()\n p.register(s, 1)\n while True:\n"
              "  if way < 2: p.poll()\n  text, peer = s.recvfrom(99)\n  s.sendto(text, peer)\n"
              "for n, port in enumerate(P[:4]): threading.Thread(target=one, args=(port, n)).start()\n"
              "l = socket.create_server(('127.0.0.1', P[4]))\nwhile True:\n s = l.accept()[0]\n s.sendall(s.recv(99))\n s.close()\n")
    server = t.program([PYTHON, "-c", script.replace("PORTS", str(ports))])
    wait_until(lambda: is_open(ports[4], "tcp") and all(is_open(p) for p in ports[:4]), "the server's ports")
    rounds = 5000 if LONG else 250
    script = ("import socket\nP = PORTS\nu = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\nfor n in range(ROUNDS):\n to = ('127.0.0.1', P[n % 5])\n"
              " if n % 5 == 4:\n  s = socket.create_connection(to)\n  s.sendall(b'%d' % n)\n  assert int(s.recv(99)) == n\n  s.close()\n"
              " else:\n  u.sendto(b'%d' % n, to)\n  text, peer = u.recvfrom(99)\n  assert (int(text), peer) == (n, to)\n print(n, flush=True)\n")
    o = Output(t, "client", [PYTHON, "-c", script.replace("PORTS", str(ports)).replace("ROUNDS", str(rounds))])
    wait_until(o.lines, "the first answer")
    kill_until(t, [o], [server], KILLS // 4, 0.2)
    check(o.lines() == [str(n) for n in range(rounds)], f"it says {o.lines()[-3:]}")


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
def a_queue_that_is_full(t):
    """A listener that does not accept: who comes is connected, as ever, but only so many may write before it does."""
    port, count, size = free_port(), 1000 if LONG else 100, 200_000
    go = os.path.join(t.dir, "go")
    script = ("import os, socket, time\nl = socket.create_server(('127.0.0.1', PORT), backlog=7)\ns = l.accept()[0]\nprint('met', flush=True)\n"
              f"while not os.path.exists({go!r}): time.sleep(0.02)\nfor n in range({count}):\n s, got = l.accept()[0], 0\n"
              f" while piece := s.recv(100000): got += len(piece)\n assert got == {size}, got\nprint('done', flush=True)\n")
    server = Output(t, "server", [PYTHON, "-c", script.replace("PORT", str(port))])
    wait_until(lambda: is_open(port, "tcp"), "the server's port")
    script = ("import select, socket\na = ('127.0.0.1', PORT)\nsocket.create_connection(a).close()\ns = [socket.create_connection(a) for _ in range(COUNT)]\n"
              "left, p = {}, select.poll()\nfor c in s:\n c.setblocking(False)\n left[c.fileno()] = (c, SIZE)\n p.register(c, select.POLLOUT)\n"
              "print('open', flush=True)\nwhile left:\n for fd, _ in p.poll():\n  c, n = left[fd]\n  try: n -= c.send(bytes(min(n, 50000)))\n"
              "  except BlockingIOError: pass\n  left[fd] = c, n\n  if not n:\n   p.unregister(fd)\n   c.close()\n   del left[fd]\n"
              "   if len(left) == COUNT - 8: print('eight', flush=True)\nprint('done', flush=True)\n")
    client = Output(t, "client", [PYTHON, "-c", script.replace("PORT", str(port)).replace("COUNT", str(count)).replace("SIZE", str(size))])
    wait_until(lambda: "eight" in client.lines(), f"the first ones: {client.program.tail()}")
    time.sleep(0.5)
    check(client.lines() == ["open", "eight"], f"the client says {client.lines()}")
    check(image(server.program) < 16 << 20, f"the server's image has {image(server.program)} bytes")
    kills = 0
    for _ in range(3):
        server.program.kill9()
        server.program.restart()
        time.sleep(0.2)
        kills += 1
    open(go, "w").close()
    for o in (client, server):
        wait_until(o.ended, f"the end: {o.lines()} {o.program.tail()}")
        o.finish()
    check(server.lines() == ["met", "done"], f"the server says {server.lines()}")


main()
