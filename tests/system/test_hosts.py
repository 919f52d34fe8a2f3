#!/usr/bin/python3
"""Programs under libken on two hosts: network namespaces with their own addresses, a link between them."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import *
from hosts import *


def wait_open(p, kind, port=7001):
    """Until the program, on whatever host, has the port."""
    def is_open():
        with open(f"/proc/{p.pid()}/net/{kind}") as f:
            return any(line.split()[1].endswith(f":{port:04X}") for line in f.readlines()[1:])
    wait_until(is_open, "the server's port")


def numbers(t, kind, count, disturb, seconds=90, address="0.0.0.0"):
    """Server on one host, client on the other; `disturb` does what it likes until the client is done."""
    hosts, key = Hosts(t), make_key(t)
    server = hosts.program(1, [PYTHON, subject("far_server.py"), kind, address, "7001"], key)
    kind = "tcp" if kind == "once" else kind
    wait_open(server, kind)
    path = os.path.join(t.dir, "out")
    out = open(path, "wb")  # for each incarnation
    client = hosts.program(0, [PYTHON, subject("far_client.py"), kind, "10.77.0.2", "7001", str(count), "c"], key, out=out)
    wait_until(lambda: lines_of(path), "the first answer")
    deadline = time.monotonic() + seconds
    while client.process and client.process.poll() is None:
        check(time.monotonic() < deadline, f"no progress: {lines_of(path)[-1:]}; server: {server.tail()}; client: {client.tail()}")
        if not disturb(hosts, server, client):
            time.sleep(0.01)
    status = client.wait_gone() if client.process else client.finished()
    check(status == 0, f"client: {client.tail()}")
    lines = lines_of(path)
    check(lines[-1] == "done", f"the end is {lines[-1:]}")
    check([int(n) for n in lines[:-1]] == list(range(1, count + 1)), "a number is missing, repeated, or out of order")
    server.stop()
    t.note(f"{server.kills + client.kills} kills")


def killing(t, kills):
    done = [0]

    def disturb(hosts, server, client):
        if done[0] >= kills:
            return False
        time.sleep(t.random.uniform(0, 0.2))
        for p in t.random.sample([server, client], t.random.randrange(1, 3)):
            if p.process is None or (p is client and p.process.poll() is not None):
                return False  # it has ended by itself
            p.process.kill()
            p.kills += 1
            done[0] += p.wait_gone() != 0
            if p.finished() is not None:  # the kill may have come behind its end: the next start would be a new run
                return False
            p.restart()
        return True
    return disturb


@case(limit=120)
def datagrams(t):
    numbers(t, "udp", 500, lambda *_: False)


@case(limit=120)
def datagrams_through_kills(t):
    numbers(t, "udp", 1500, killing(t, KILLS))


@case(limit=120)
def datagrams_through_partitions(t):
    """Short ones and one of some seconds; then the network is whole."""
    outages = [0.1, 0.3, 1, 2, 6]

    def cut(hosts, server, client):
        time.sleep(t.random.uniform(0.1, 0.5))
        if not outages:
            return True
        hosts.link(False)
        time.sleep(outages.pop(0))
        hosts.link(True)
        return True
    numbers(t, "udp", 4000, cut)


@case(limit=120)
def streams(t):
    numbers(t, "tcp", 500, lambda *_: False)


@case(limit=120)
def streams_through_kills(t):
    numbers(t, "tcp", 1500, killing(t, KILLS))


@case(limit=120)
def streams_without_a_listener(t):
    """The server has closed its listener, the client never had one: both are killed, and find each other again."""
    numbers(t, "once", 800, killing(t, KILLS))


PORTS_SERVER = """
import socket
l = socket.create_server(('0.0.0.0', 7001))
c, t, u = l.accept()[0], None, None
while word := c.recv(1):
    if word == b't': t = socket.create_server(('0.0.0.0', 7002))
    elif word == b'T': t.close()
    elif word == b'u':
        u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        u.bind(('0.0.0.0', 7002))
    elif word == b'U': u.close()
    elif word == b'e': u.sendto(*u.recvfrom(99))
    elif word == b'a':
        s = t.accept()[0]
        s.sendall(b'first')
        s.close()
    c.sendall(word)
"""
PORTS_CLIENT = """
import select, socket, sys, time
a = ('10.77.0.2', 7002)
c = socket.create_connection(('10.77.0.2', 7001))
def order(word):
    c.sendall(word)
    assert c.recv(1) == word
def tell(*what):
    print(*what, flush=True)
def attempt(action):
    try: return action()
    except OSError as error: return type(error).__name__
def asked():
    u.send(b'here')
    order(b'e')
    return u.recv(9).decode()
def poll():
    u.send(b'lost')
    p = select.poll()
    p.register(u, select.POLLIN)
    return [bits for _, bits in p.poll(5000)]
def connected():
    with socket.create_connection(a) as s:
        if first: order(b'a')
        return s.recv(9).decode()
u, first = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), True
order(b'u')
u.connect(a)
tell('open', asked())
order(b'U')
for n in range(3): tell('poll', poll(), attempt(lambda: u.recv(9)), u.getpeername() == a)
u.send(b'lost')
tell('recv', attempt(lambda: u.recv(9)))
poll()
tell('error', u.getsockopt(1, 4), u.getsockopt(1, 4))
poll()
tell('send', attempt(lambda: u.send(b'lost')), attempt(lambda: u.send(b'lost')))
attempt(lambda: u.recv(9))
order(b'u')
tell('again', asked())
order(b't')
tell('listens', connected())
order(b'T')
for n in range(3): tell('closed', attempt(connected))
order(b't')
tell('again', connected())
order(b'T')
order(b'U')
tell('gone')
sys.stdin.readline()
first = False
u.settimeout(0.5)
for way in (connected, lambda: (u.send(b'?'), u.recv(9).decode())[1]):
    while (answer := attempt(way)) in ('ConnectionRefusedError', 'TimeoutError'): time.sleep(0.05)
    tell(answer)
"""


@case
def ports_that_a_living_peer_has_closed(t):
    """They are refused as on one host, connections and datagrams alike; open again they answer; and so does another peer that has them."""
    hosts, key, path = Hosts(t), make_key(t), os.path.join(t.dir, "out")
    server = hosts.program(1, [PYTHON, "-c", PORTS_SERVER], key)
    wait_open(server, "tcp")
    asked, words = os.pipe()
    t.at_end(lambda: (os.close(asked), os.close(words)))
    client = hosts.program(0, [PYTHON, "-c", PORTS_CLIENT], key, out=open(path, "wb"), stdin=asked)
    wait_until(lambda: "gone" in lines_of(path) or client.process.poll() is not None, f"the first part: {client.tail()}")
    wanted = ["open here"] + ["poll [8] ConnectionRefusedError True"] * 3 + ["recv ConnectionRefusedError", "error 111 0",
              "send ConnectionRefusedError 4", "again here", "listens first"] + ["closed ConnectionRefusedError"] * 3 + ["again first", "gone"]
    check(lines_of(path) == wanted, f"it says {lines_of(path)} {client.tail()}")
    other = hosts.program(1, [PYTHON, "-c", "import socket\nl = socket.create_server(('0.0.0.0', 7002))\nu = socket.socket(socket.AF_INET, "
                              "socket.SOCK_DGRAM)\nu.bind(('0.0.0.0', 7002))\ns = l.accept()[0]\ns.sendall(b'second')\nu.sendto(b'second', "
                              "u.recvfrom(9)[1])\nimport time\ntime.sleep(60)\n"], key)
    wait_open(other, "udp", 7002)
    os.write(words, b"\n")
    wait_until(lambda: client.process.poll() is not None, f"the second part: {lines_of(path)[-1:]} {client.tail()}")
    check(lines_of(path)[-2:] == ["second", "second"], f"it says {lines_of(path)[-2:]} {client.tail()}")


def first_contact(t, kind, host):
    """A client whose server is down: listed, so it is waited for, through kills of the client. `host` 1: the server's own."""
    hosts, key, path = Hosts(t), make_key(t), os.path.join(t.dir, "out")
    with open(path, "wb") as out:
        client = hosts.program(host, [PYTHON, subject("far_client.py"), kind, "10.77.0.2", "7001", "50", "c"], key, out=os.dup(out.fileno()))
    t.at_end(lambda: os.close(client.stdout))
    for _ in range(3):
        if kind == "select":
            wait_until(lambda: lines_of(path) or client.process.poll() is not None, "a word of the client")
            check(lines_of(path) == ["on its way"], f"it says {lines_of(path)} {client.tail()}")
        time.sleep(0.4)
        check(client.process.poll() is None, f"it does not wait: {lines_of(path)} {client.tail()}")
        client.kill9()
        client.restart()
    server = hosts.program(1, [PYTHON, subject("far_server.py"), "udp" if kind == "udp" else "tcp", "0.0.0.0", "7001"], key)
    wait_until(lambda: client.process.poll() is not None, f"the end: {lines_of(path)[-1:]} {client.tail()}; {server.tail()}")
    check(client.wait_gone() == 0, f"client: {client.tail()}")
    got = [line for line in lines_of(path) if line != "on its way"]
    check(got == [str(n) for n in range(1, 51)] + ["done"], f"it got {got[:3]} ... {got[-1:]}")
    server.stop()


for kind in ("udp", "tcp", "select"):
    add_case(f"first_contact_{kind}", lambda t, k=kind: first_contact(t, k, 0))
    add_case(f"first_contact_{kind}_on_this_host", lambda t, k=kind: first_contact(t, k, 1))


@case
def a_plain_process_at_a_listed_address_of_this_host(t):
    """Listed is the network; but the kernel says that a process here has the address, and it is none under libken."""
    hosts, key = Hosts(t), make_key(t)
    for kind in ("udp", "tcp"):
        server = hosts.program(1, [PYTHON, subject("far_server.py"), kind, "0.0.0.0", "7001"], bare=True)
        wait_open(server, kind)
        path = os.path.join(t.dir, kind)
        with open(path, "wb") as out:
            client = hosts.program(1, [PYTHON, subject("far_client.py"), kind, "10.77.0.2", "7001", "5", "c"], key, out=out)
        wait_until(lambda: client.process.poll() is not None, f"the end: {client.tail()}")
        check(client.wait_gone() == 0 and lines_of(path)[-1] == "done", f"client: {client.tail()}")
        server.stop()


@case
def broadcast_in_a_listed_network(t):
    """Its broadcast address is nobody's: what goes there is plain, and does not wait."""
    hosts, key = Hosts(t), make_key(t)
    plain = hosts.within(1, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    plain.bind(("", 7001))
    script = ("import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.setsockopt(1, 6, 1)\n"
              "s.sendto(b'to all', ('10.77.0.255', 7001))\n")
    client = hosts.program(0, [PYTHON, "-c", script], key)
    plain.settimeout(PATIENCE)
    check(plain.recv(100) == b"to all", "something else")
    check(client.wait_gone() == 0, client.tail())
    plain.close()


@case
def both_protocols_at_one_port(t):
    """As name servers do: where a program takes datagrams, libken listens by TCP; the program may do that, too."""
    hosts, key, path = Hosts(t), make_key(t), os.path.join(t.dir, "out")
    collector = hosts.program(1, [PYTHON, subject("collector.py"), "0.0.0.0:7001"], key)
    wait_open(collector, "tcp")
    for n in range(3):
        with open(path, "wb") as out:
            client = hosts.program(0, [PYTHON, subject("teller.py"), "10.77.0.2:7001", f"tcp:t{n}", "hello", "1-2", "tell"], key, out=out)
        wait_until(lambda: client.process.poll() is not None, f"the end: {client.tail()}; {collector.tail()}")
        check(client.wait_gone() == 0, client.tail())
        check(lines_of(path)[-1].split(",").count("1") == n + 1, f"it has {lines_of(path)[-1]}")
        collector.kill9()
        collector.restart()
    with open(path, "wb") as out:
        client = hosts.program(0, [PYTHON, subject("teller.py"), "10.77.0.2:7001", "hello", "tell"], key, out=out)
    check(client.wait_gone() == 0, client.tail())
    check({f"[t{n}]" for n in range(3)} <= set(lines_of(path)[-1].split(",")), f"it has {lines_of(path)[-1]}")
    check("cannot" not in collector.stderr(), collector.stderr())


@case(limit=60)
def streams_of_plain_clients(t):
    """A server that peers and plain clients reach at one port: the plain ones are of this host, or not listed."""
    hosts, key = Hosts(t), make_key(t)
    server = hosts.program(1, [PYTHON, subject("far_server.py"), "tcp", "0.0.0.0", "7001"], key, peers="10.77.0.1 10.99.0.0/16")
    wait_open(server, "tcp")
    ip("-n", hosts.names[0], "addr", "add", "10.77.0.9/24", "dev", "ken0")
    path = os.path.join(t.dir, "out")
    with open(path, "wb") as out:
        client = hosts.program(0, [PYTHON, subject("far_client.py"), "tcp", "10.77.0.2", "7001", "3", "c"], key, out=out)
        check(client.wait_gone() == 0, client.tail())
    for host, source in ((0, "10.77.0.9"), (1, "10.77.0.2"), (1, "127.0.0.1")):
        s = hosts.within(host, socket.socket)
        s.settimeout(5)
        s.bind((source, 0))
        s.connect(("10.77.0.2" if host == 0 else source, 7001))
        s.sendall(b"hello\n")
        check(s.recv(100).startswith(b"hello "), source)
    s = hosts.within(0, socket.socket)
    s.settimeout(5)
    s.bind(("10.77.0.1", 0))
    s.connect(("10.77.0.2", 7001))
    s.sendall(b"GET / HTTP/1.1\r\n\r\n")
    try:
        check(s.recv(100) == b"", "a listed address got raw bytes")
    except ConnectionResetError:
        pass
    server.expected_messages = ["does not speak libken's handshake"]


@case(limit=60)
def without_a_key_nothing_leaves(t):
    """Not a byte, neither of Ken nor of the program, reaches a listed address; one line says what to set."""
    hosts = Hosts(t)
    plain = hosts.within(1, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    plain.bind(("10.77.0.2", 7001))
    listener = hosts.within(1, socket.socket)
    listener.bind(("10.77.0.2", 7001))
    listener.listen()
    client = hosts.program(0, [PYTHON, subject("far_client.py"), "udp", "10.77.0.2", "7001", "1", "c"])
    client.expected_messages = ["there is no key for peers"]
    wait_until(lambda: "KEN_KEY_FILE" in client.stderr(), "the line")
    time.sleep(0.5)
    check(len(client.messages()) == 1, client.messages())
    for s in (plain, listener):
        s.settimeout(0.1)
        try:
            s.recv(100) if s is plain else s.accept()
            raise Failure("something arrived")
        except TimeoutError:
            pass
    client.stop()


@case(limit=60)
def another_key_is_refused(t):
    hosts = Hosts(t)
    server = hosts.program(1, [PYTHON, subject("far_server.py"), "udp", "0.0.0.0", "7001"], make_key(t))
    wait_open(server, "udp")
    path = os.path.join(t.dir, "out")
    with open(path, "wb") as out:
        client = hosts.program(0, [PYTHON, subject("far_client.py"), "udp", "10.77.0.2", "7001", "1", "c"], make_key(t, "other"), out=out)
    server.expected_messages = ["its key is not ours"]
    wait_until(lambda: "its key is not ours" in server.stderr(), "the line")
    time.sleep(1)
    check(len(server.messages()) == 1 and not lines_of(path), f"{server.messages()} {lines_of(path)}")
    client.stop()
    server.stop()


@case(limit=60)
def who_is_not_listed_is_plain(t):
    """A plain client of a server that has peers, and a client with peers of a plain server."""
    hosts, key = Hosts(t), make_key(t)
    server = hosts.program(1, [PYTHON, subject("far_server.py"), "udp", "0.0.0.0", "7001"], key, peers="10.99.0.0/16")
    wait_open(server, "udp")
    for peers in (None, "10.98.0.0/16"):
        path = os.path.join(t.dir, f"out{peers is None}")
        with open(path, "wb") as out:
            client = hosts.program(0, [PYTHON, subject("far_client.py"), "udp", "10.77.0.2", "7001", "20", "c"], key, peers=peers, out=out)
        check(client.wait_gone() == 0, client.tail())
        check(lines_of(path)[-1] == "done", "not done")


@case
def wrong_settings_do_not_start(t):
    key = make_key(t)
    for env, words in (({"KEN_PEERS": "10.0.0.1/8"}, "KEN_PEERS: '10.0.0.1/8'"),
                       ({"KEN_PEERS": "no-such-host.invalid"}, "no-such-host.invalid"),
                       ({"KEN_PEERS": "10.0.0.0/8", "KEN_KEY_FILE": key + "x"}, "KEN_KEY_FILE")):
        p = t.program([PYTHON, "-c", "print(1)"], env=env)
        p.expected_messages = ["KEN_"]
        check(p.wait_gone() == 70 and words in p.stderr(), p.tail())


main()
