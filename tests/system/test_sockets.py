#!/usr/bin/python3
"""Sockets between programs under libken do what sockets do: the same steps with and without it, and what is ours alone."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import *
from pairs import *


def dialog(t, program, host, bare):
    """Two programs; `host`: as a list of words."""
    port = free_port()
    kind = "plain" if bare else "ken"
    serve = Output(t, f"serve-{kind}", [PYTHON, subject(program), "serve", *host, str(port)], bare=bare)
    wait_until(lambda: is_open(port, "tcp6" if "::1" in host else "tcp"), "the listener")
    ask = Output(t, f"ask-{kind}", [PYTHON, subject(program), "ask", *host, str(port)], bare=bare)
    for o in (ask, serve):
        wait_until(o.ended, f"the end; {kind}: {ask.lines()[-1:]} {serve.lines()[-1:]} {ask.program.tail()} {serve.program.tail()}")
        o.finish()
    return ask.lines(), serve.lines()


def same_answers(t, program, *host):
    plain, ken = dialog(t, program, host, True), dialog(t, program, host, False)
    for who, a, b in zip(("ask", "serve"), plain, ken):
        wrong = [f"{x!r}, not {y!r}" for x, y in zip(b, a) if x != y]
        check(not wrong and len(a) == len(b), f"{who}: " + "; ".join(wrong) + f" ({len(b)} lines, not {len(a)})")
    t.note(f"{sum(map(len, ken))} answers")


@case
def the_same_over_ipv4(t):
    same_answers(t, "sockets.py", "127.0.0.1")


@case
def the_same_over_ipv6(t):
    same_answers(t, "sockets.py", "::1")


@case
def the_same_datagrams_over_ipv4(t):
    same_answers(t, "datagrams.py", "127.0.0.1")


@case
def the_same_datagrams_over_ipv6(t):
    same_answers(t, "datagrams.py", "::1")


@case
def the_same_endings_over_ipv4(t):
    """Options, time limits, shutdown in all orders, resets."""
    same_answers(t, "endings.py", "127.0.0.1")


@case
def the_same_endings_over_ipv6(t):
    same_answers(t, "endings.py", "::1")


@case
def the_same_alone(t):
    """Calls to oneself, IPv4 at IPv6 sockets, several sockets at one port."""
    seen = []
    for bare in (True, False):
        o = Output(t, f"alone-{bare}", [PYTHON, subject("alone.py"), str(free_port())], bare=bare)
        wait_until(o.ended, f"the end: {o.lines()[-1:]}")
        o.finish()
        seen.append(o.lines())
    check(seen[0] == seen[1], f"{[(a, b) for a, b in zip(*seen) if a != b]} of {len(seen[0])} and {len(seen[1])}")


@case
def groups_stay_plain(t):
    """Multicast and broadcast reach everybody who listens, once: programs under libken, the sender's peers too, and plain ones."""
    port = free_port()
    script = ("import socket, sys\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.setsockopt(1, 15, 1)\ns.bind(('', PORT))\n"
              "s.setsockopt(0, 35, socket.inet_aton('239.77.7.7') + socket.inet_aton('127.0.0.1'))\n"  # IP_ADD_MEMBERSHIP
              "print('up', flush=True)\nfor _ in range(5): print(s.recv(100).decode(), flush=True)\n"
              "s.settimeout(0.5)\ntry: print('and', s.recv(100))\nexcept TimeoutError: print('done', flush=True)\n").replace("PORT", str(port))
    outputs = [Output(t, f"listener{n}", [PYTHON, "-c", script], bare=n == 1) for n in range(2)]
    for o in outputs:
        wait_until(o.lines, "the sockets")
    sender = ("import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.setsockopt(1, 6, 1)\n"  # SO_BROADCAST
              "s.setsockopt(0, 32, socket.inet_aton('127.0.0.1'))\n"  # IP_MULTICAST_IF
              "for n in range(4): s.sendto(b'%d' % n, ('239.77.7.7', PORT))\ns.sendto(b'to all', ('127.255.255.255', PORT))\n")
    o = Output(t, "sender", [PYTHON, "-c", sender.replace("PORT", str(port))])
    for o in [o] + outputs:
        wait_until(o.ended, f"the end: {[x.lines() for x in outputs]}")
        o.finish()
    for o in outputs:
        check(o.lines() == ["up", "0", "1", "2", "3", "to all", "done"], f"it says {o.lines()}")


@case
def an_answer_from_one_of_many_addresses(t):
    """A server that chooses the source of its answer (IP_PKTINFO); its client is down when the answer leaves, and hears it later."""
    port, go = free_port(), os.path.join(t.dir, "go")
    script = ("import os, socket, struct, time\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.bind(('', PORT))\n"
              "s.setsockopt(0, 8, 1)\ntext, control, _, peer = s.recvmsg(100, 100)\n"
              "while not os.path.exists(GO): time.sleep(0.01)\n"
              "s.sendmsg([text, b' from there'], [(0, 8, control[0][2])], 0, peer)\ntime.sleep(20)\n")
    t.program([PYTHON, "-c", script.replace("PORT", str(port)).replace("GO", repr(go))])
    wait_until(lambda: is_open(port), "the server's port")
    script = ("import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.bind(('127.0.0.1', 0))\n"
              f"s.sendto(b'hello', ('127.0.0.2', {port}))\nprint('asked', flush=True)\nprint(*s.recvfrom(100), flush=True)\n")
    client = Output(t, "client", [PYTHON, "-c", script])
    wait_until(client.lines, "the question")
    time.sleep(0.2)
    client.program.kill9()
    open(go, "w").close()
    time.sleep(0.2)
    client.restart()
    wait_until(client.ended, "the answer")
    client.finish()
    check(client.lines() == ["asked", f"b'hello from there' ('127.0.0.2', {port})"], f"it says {client.lines()}")


@case
def the_same_by_splice_and_sendfile(t):
    same_answers(t, "splices.py")


@case(limit=120)
def a_file_is_spliced(t):
    """By sendfile() and splice() into a connection, and by splice() out of it; both sides are killed all the time."""
    port, source, target = free_port(), os.path.join(t.dir, "source"), os.path.join(t.dir, "target")
    with open(source, "wb") as f:
        f.write(t.random.randbytes((200 if LONG else 24) << 20))
    left = Output(t, "to", [PYTHON, subject("splices.py"), "to", str(port), target])
    wait_until(lambda: is_open(port, "tcp"), "the listener")
    right = Output(t, "from", [PYTHON, subject("splices.py"), "from", str(port), source])
    wait_until(lambda: os.path.exists(target) and os.path.getsize(target), "the first bytes")
    check(not plain_connections(port), "the connection is a plain one")
    kill_until(t, [left, right], [], KILLS // 2, 0.1, 100)
    with open(source, "rb") as f, open(target, "rb") as g:
        check(f.read() == g.read(), "what came out is not what went in")


@case
def a_socket_for_each_family(t):
    """At one port, as many servers have them: who comes by IPv4 is not the IPv6 socket's, and the other way round."""
    port = free_port()
    script = ("import select, socket\nall = []\n"
              "for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):\n for family, any in ((10, '::'), (2, '')):\n"
              "  s = socket.socket(family, kind)\n  if family == 10: s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)\n"
              "  s.bind((any, PORT))\n  if kind == socket.SOCK_STREAM: s.listen()\n  all.append(s)\nprint('up', flush=True)\n"
              "for _ in range(4):\n s = select.select(all, [], [])[0][0]\n"
              " peer = s.accept()[1] if s.type == socket.SOCK_STREAM else s.recvfrom(9)[1]\n"
              " print(s.family.value, s.type.value, peer[0], flush=True)\n")
    server = Output(t, "server", [PYTHON, "-c", script.replace("PORT", str(port))])
    wait_until(server.lines, "the sockets")
    script = ("import socket, time\nfor kind in (1, 2):\n for family, host in ((2, '127.0.0.1'), (10, '::1')):\n"
              f"  s = socket.socket(family, kind)\n  s.connect((host, {port}))\n"
              "  if kind == 2: s.send(b'x')\n  time.sleep(0.1)\n")
    client = Output(t, "client", [PYTHON, "-c", script])
    for o in (client, server):
        wait_until(o.ended, f"the end: {server.lines()}")
        o.finish()
    check(server.lines() == ["up", "2 1 127.0.0.1", "10 1 ::1", "2 2 127.0.0.1", "10 2 ::1"], f"it says {server.lines()}")


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


PORTS_CLIENT = """
import socket
def connected(port):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.connect(('127.0.0.1', port))
    return s
def order(word):
    a.send(word)
    assert a.recv(100) == word
def refused():
    b.settimeout(0.3) # an error that the kernel had for a process that was killed is gone
    for attempt in range(100):
        try:
            b.send(b'nobody')
            b.recv(100)
        except ConnectionRefusedError:
            return attempt
        except TimeoutError:
            pass
    return -1
a, b = connected(STEADY), connected(PORT)
"""


def ports_server(t):
    """Opens and closes a port as it is told to at another one: (program, the steady port, the other one)."""
    steady, port = free_port(), free_port()
    script = ("import socket\ndef opened(port):\n s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n s.bind(('127.0.0.1', port))\n return s\n"
              "s, other = opened(STEADY), None\nwhile True:\n word, peer = s.recvfrom(100)\n if word == b'open': other = opened(PORT)\n"
              " elif word == b'close': other.close()\n else:\n  text = b'nobody'\n  while text == b'nobody': text, whom = other.recvfrom(100)\n  other.sendto(text, whom)\n s.sendto(word, peer)\n")
    server = t.program([PYTHON, "-c", script.replace("STEADY", str(steady)).replace("PORT", str(port))])
    wait_until(lambda: is_open(steady), "the server's port")
    return server, steady, port


@case(limit=120)
def a_port_that_comes_and_goes(t):
    """A peer closes its port and opens it again, and both are killed: closed it refuses, open it does not, and who is down is only late.
    What a client said twice, since it was killed meanwhile, may come when the port is open again."""
    server, steady, port = ports_server(t)
    script = PORTS_CLIENT + """
for n in range(ROUNDS):
    order(b'open')
    b.settimeout(None)
    b.send(b'%d' % n)
    order(b'echo')
    assert b.recv(100) == b'%d' % n
    order(b'close')
    again = refused()
    print(n, again >= 0, flush=True)
    if again: # the second one may come late
        b = connected(PORT)
print('done')
"""
    rounds = 2000 if LONG else 100
    for word, value in (("STEADY", steady), ("PORT", port), ("ROUNDS", rounds)):
        script = script.replace(word, str(value))
    o = Output(t, "client", [PYTHON, "-c", script])
    wait_until(lambda: o.lines() or o.ended(), "the first refusal")
    kill_until(t, [o], [server], KILLS, 0.1)
    check(o.lines() == [f"{n} True" for n in range(rounds)] + ["done"], f"it says {o.lines()[-3:]}")


@case
def a_port_that_is_open_again_while_its_peer_is_down(t):
    """It was closed, and refused; since then it was opened. Its peer, which was killed then, is only late."""
    server, steady, port = ports_server(t)
    go = os.path.join(t.dir, "go")
    o = Output(t, "client", [PYTHON, "-c", PORTS_CLIENT.replace("STEADY", str(steady)).replace("PORT", str(port)) + f"""
order(b'open')
b.send(b'first')
order(b'echo')
b.recv(100)
order(b'close')
assert refused() >= 0
b.settimeout(None)
order(b'open')
print('open again', flush=True)
import os, time
while not os.path.exists({go!r}): time.sleep(0.01)
b.send(b'late')
order(b'echo')
print(b.recv(100).decode(), flush=True)
"""])
    wait_until(lambda: o.lines() or o.ended(), "the port to be open again")
    server.kill9()
    open(go, "w").close()
    time.sleep(0.4)
    server.restart()
    wait_until(o.ended, "the end")
    o.finish()
    check(o.lines() == ["open again", "late"], f"it says {o.lines()}")


@case
def a_port_that_another_takes(t):
    """A peer has closed its port, and lives; the next who takes it is heard there, whether it is a peer or a plain process."""
    port = free_port()
    script = ("import socket, sys, time\nl = socket.create_server(('127.0.0.1', PORT))\nu = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
              "u.bind(('127.0.0.1', PORT))\nfor _ in range(int(sys.argv[2])):\n"
              " text, peer = u.recvfrom(9)\n u.sendto(sys.argv[1].encode(), peer)\n s = l.accept()[0]\n s.sendall(sys.argv[1].encode())\n s.close()\n"
              "l.close()\nu.close()\nprint('gone', flush=True)\ntime.sleep(60)\n").replace("PORT", str(port))
    client = """
import select, socket, sys
a = ('127.0.0.1', PORT)
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
u.connect(a)
def datagram():
    while True:
        try:
            u.send(b'?')
            if select.select([u], [], [], 0.5)[0]:
                return u.recv(9).decode()
        except ConnectionRefusedError:
            pass
def connected():
    s, p, e = socket.socket(), select.poll(), select.epoll()
    if sys.argv[1] == 'wait':
        s.connect(a)
        return s
    s.setblocking(False)
    p.register(s, select.POLLOUT)
    e.register(s, select.EPOLLOUT)
    s.connect_ex(a)
    found = (p if sys.argv[1] == 'poll' else e).poll(5)
    while s.getsockopt(6, 11, 1)[0] == 2: # SYN_SENT
        assert s.getsockopt(1, 4) == 0
        found = (p if sys.argv[1] == 'poll' else e).poll(5)
    assert found and found[0][1] & select.POLLOUT and s.getpeername() == a, found
    s.setblocking(True)
    return s
for line in sys.stdin:
    print(datagram(), connected().recv(9).decode(), flush=True)
""".replace("PORT", str(port))
    clients = []
    for way in ("wait", "poll", "epoll"):
        asked, words = os.pipe()
        t.at_end(lambda ends=(asked, words): [os.close(end) for end in ends])
        clients.append((way, words, Output(t, way, [PYTHON, "-c", client, way], stdin=asked)))
    for n, (name, bare) in enumerate((("a", False), ("b", False), ("c", True), ("d", False), ("e", True), ("f", True))):
        holder = Output(t, name, [PYTHON, "-c", script, name, str(len(clients))], bare=bare)
        wait_until(lambda: is_open(port) and is_open(port, "tcp"), f"{name}'s port")
        for way, words, o in clients:
            os.write(words, b"\n")
            wait_until(lambda: len(o.lines()) > n or o.ended(), f"{name}'s answer by {way}")
            check(len(o.lines()) > n and o.lines()[n] == f"{name} {name}", f"{name} is asked by {way}: {o.lines()[n:]} {o.program.tail()}")
        wait_until(holder.lines, "the end of its sockets")


# --- connections that a child of fork uses ---------------------------------------------------------------------------


CAT_CLIENT = """
import socket, sys, threading
a, whole = ('127.0.0.1', int(sys.argv[1])), bytes(range(256)) * 4000
for n in range(int(sys.argv[2])):
    with socket.create_connection(a) as s:
        def write():
            s.sendall(whole)
            s.shutdown(socket.SHUT_WR)
        t = threading.Thread(target=write)
        t.start()
        got = b''
        while piece := s.recv(100000):
            got += piece
        t.join()
        assert got == whole, len(got)
    print(n, flush=True)
"""


def forking(t, client, rounds, kills, *words):
    port = free_port()
    server = t.program([PYTHON, subject("forking.py"), str(port), *words])
    wait_until(lambda: is_open(port, "tcp"), "the server's port")
    o = Output(t, "client", [PYTHON, *client, str(port), str(rounds)])
    wait_until(lambda: o.lines() or o.ended(), "the first connection")
    check(not plain_connections(port), "the connection is a plain one")
    kill_until(t, [o], [], kills, 0.1)
    check(o.lines() == [str(n) for n in range(rounds)], f"it says {o.lines()[-3:]}")
    check(server.process.poll() is None, "the server is gone")
    return server


@case
def a_child_serves(t):
    """A server that forks for each connection; the client is killed all the time."""
    forking(t, [subject("fork_client.py")], 12, KILLS // 2)


@case
def a_parent_waits_for_its_child(t):
    """One connection at a time: the parent sits in wait() while its child serves."""
    forking(t, [subject("fork_client.py")], 6, KILLS // 5, "wait")


@case
def children_accept(t):
    """A server with workers that accept for themselves, while the parent waits for them."""
    forking(t, [subject("fork_client.py")], 6, KILLS // 5, "workers")


@case
def a_child_execs(t):
    """The connection is another program's stdin and stdout."""
    forking(t, ["-c", CAT_CLIENT], 10, KILLS // 4, "cat")


@case
def a_child_is_spawned(t):
    """The same by posix_spawn(), whose child borrows the memory."""
    forking(t, ["-c", CAT_CLIENT], 10, KILLS // 4, "spawn")


@case
def an_epoll_of_the_parent(t):
    """A connection that a child still has, and the parent has taken off its epoll and closed, is heard of no more there."""
    port = free_port()
    script = ("import os, select, socket\nl = socket.create_server(('127.0.0.1', PORT))\ns = l.accept()[0]\n"
              "e = select.epoll()\ne.register(s, select.EPOLLIN)\n"
              "here = os.getpid()\nif os.fork() == 0:\n import time\n while os.getppid() == here: time.sleep(0.05)\n os._exit(0)\n"
              "e.unregister(s)\ns.sendall(b'go')\ns.close()\nprint(e.poll(1), flush=True)\n")
    p = Output(t, "server", [PYTHON, "-c", script.replace("PORT", str(port))])
    wait_until(lambda: is_open(port, "tcp"), "the server's port")
    t.program([PYTHON, "-c", "import socket, time\n" f"s = socket.create_connection(('127.0.0.1', {port}))\n"
               "s.recv(2)\ns.sendall(b'for the child')\ntime.sleep(20)\n"])
    wait_until(p.lines, "what epoll tells")
    check(p.lines() == ["[]"], f"it tells {p.lines()}")


@case
def a_child_writes(t):
    """A client whose child writes to the connection, while it reads itself."""
    port = free_port()
    t.program([PYTHON, subject("many.py"), "serve", str(port)])
    wait_until(lambda: is_open(port, "tcp"), "the server's port")
    script = ("import os, socket\ns = socket.create_connection(('127.0.0.1', PORT))\nf = s.makefile('rb')\n"
              "for n in range(1, 51):\n if os.fork() == 0:\n  s.sendall(b'x\\n')\n  os._exit(0)\n"
              " assert f.readline() == b'x %d\\n' % n\nwhile True:\n try: os.wait()\n except ChildProcessError: break\n"
              "s.sendall(b'y\\n')\nassert f.readline() == b'y 51\\n'\nprint('done')\n")
    o = Output(t, "client", [PYTHON, "-c", script.replace("PORT", str(port))])
    wait_until(o.ended, "the end")
    o.finish()
    check(o.lines() == ["done"], f"it says {o.lines()}")


@case
def what_a_child_had_is_reset(t):
    """The parent is killed: the child's connection reads as reset at the peer, and new ones work."""
    port = free_port()
    server = t.program([PYTHON, subject("forking.py"), str(port)])
    wait_until(lambda: is_open(port, "tcp"), "the server's port")
    script = ("import socket\na = ('127.0.0.1', PORT)\n"
              "def ask():\n s = socket.create_connection(a)\n s.sendall(b'sum 1\\n')\n assert s.recv(10) == b'1\\n'\n return s\n"
              "s = ask()\nprint('open', flush=True)\ntry:\n print(s.recv(10), flush=True)\n"
              "except ConnectionResetError: print('reset', flush=True)\nask()\nprint('again', flush=True)\n")
    o = Output(t, "client", [PYTHON, "-c", script.replace("PORT", str(port))])
    wait_until(o.lines, "the first answer")
    server.kill9()
    server.restart()
    wait_until(o.ended, "the end")
    o.finish()
    check(o.lines() == ["open", "reset", "again"], f"it says {o.lines()}")


main()
