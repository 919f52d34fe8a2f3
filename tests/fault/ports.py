"""Workloads of test_errors.py: ports that a living peer has closed, options of its connections, threads that wait apart."""
import os
import socket
import threading
import time

import companions
from harness import PYTHON, free_port

OPTIONS_SERVER = """
import socket, sys
l = socket.create_server(("127.0.0.1", int(sys.argv[1])))
l.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 44)
while True:
    s = l.accept()[0]
    try:
        while text := s.recv(100):
            s.sendall(text + b" %d" % s.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE))
    except ConnectionError:
        pass
    s.close()
"""

OPTIONS_CLIENT = """
import ctypes, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
s = socket.socket()
for n in range(8):
    s.connect(("127.0.0.1", int(sys.argv[1])))
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 33 + n)
    s.sendall(b"%d" % n)
    text = s.recv(100).decode()
    print(text, s.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE), s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0], flush=True)
    if libc.connect(s.fileno(), bytes(16), 16):
        raise OSError(ctypes.get_errno(), "it cannot be dissolved")
print("done", flush=True)
"""


def options(ours):
    def run(t, p):
        port = free_port()
        companions.converse(t, p, ours, [PYTHON, "-c", OPTIONS_SERVER, str(port)], [PYTHON, "-c", OPTIONS_CLIENT, str(port)], port, "tcp",
                            [f"{n} 44 {33 + n} 1" for n in range(8)] + ["done"])
    return run


GIVING = """
import socket, sys, time
first, second = (int(p) for p in sys.argv[1:3])
l, m = (socket.create_server(("127.0.0.1", p)) for p in (first, second))
c = l.accept()[0]
m.accept()[0].sendall(b"peer")
m.close()
c.sendall(b"closed")
while c.recv(1): pass
time.sleep(60)
"""

TAKING = """
import os, select, socket, sys, time
first, second = (("127.0.0.1", int(p)) for p in sys.argv[1:3])
c = socket.create_connection(first)
print(socket.create_connection(second).recv(9).decode(), c.recv(9).decode(), flush=True)
while not os.path.exists(sys.argv[3]): time.sleep(0.01)
for n in range(6):
    s = socket.socket()
    if n % 2:
        s.setblocking(False)
        s.connect_ex(second)
        while not select.select([], [s], [], 1)[1]: pass
        s.setblocking(True)
    else:
        s.connect(second)
    try:
        text = s.recv(9).decode()
    except ConnectionResetError: # a plain one, when it came back
        text = "plain"
    print(text, flush=True)
print("done", flush=True)
"""


def former_port(t, p):
    """A port that was a peer's is a plain process's."""
    first, second, there = free_port(), free_port(), os.path.join(t.dir, "there")
    over = threading.Event()
    t.at_end(over.set)

    def plain():
        while not over.is_set():
            try:
                listener = socket.create_server(("127.0.0.1", second))
                break
            except OSError:
                time.sleep(0.01)
        else:
            return
        listener.settimeout(0.1)
        open(there, "w").close()
        while not over.is_set():
            try:
                with listener.accept()[0] as s:
                    s.sendall(b"plain")
            except TimeoutError:
                pass
        listener.close()

    def begin(server, client):
        start = client.start

        def after():
            if client.starts == 0:
                time.sleep(0.1)
                threading.Thread(target=plain, daemon=True).start()
            return start()
        client.start = after
    companions.converse(t, p, "client", [PYTHON, "-c", GIVING, str(first), str(second)],
                        [PYTHON, "-c", TAKING, str(first), str(second), there], first, "tcp", ["peer closed"] + ["plain"] * 6 + ["done"], begin)


CLOSING = """
import socket
l = socket.create_server(("0.0.0.0", 7001))
c = l.accept()[0]
while word := c.recv(1):
    u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    u.bind(("0.0.0.0", 7002))
    if word == b"e": u.sendto(*u.recvfrom(99))
    u.close()
    c.sendall(word)
"""

REFUSED = """
import socket
c = socket.create_connection(("10.77.0.2", 7001))
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
v = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
v.setsockopt(socket.IPPROTO_IP, 11, 1) # IP_RECVERR
c.sendall(b"e")
u.connect(("10.77.0.2", 7002))
u.send(b"open")
assert c.recv(1) == b"e"
print(u.recv(9).decode(), flush=True)
u.settimeout(0.2) # such an answer may get lost, with a process that had it
for n in range(4):
    while True:
        try:
            u.send(b"lost")
            u.recv(9)
        except ConnectionRefusedError:
            break
        except TimeoutError:
            pass
    v.sendto(b"lost", ("10.77.0.2", 7002))
    print("refused", flush=True)
print("done", flush=True)
"""


def far_port(t, p):
    two, key = companions.hosts.Hosts(t), companions.hosts.make_key(t)

    def within(server, client):
        for program, where in ((server, 1), (client, 0)):
            program.env.update(KEN_PEERS="10.77.0.0/24", KEN_KEY_FILE=key)
            program.start = lambda start=program.start, where=where: two.within(where, start)
    companions.converse(t, p, "client", [PYTHON, "-c", CLOSING], [PYTHON, "-c", REFUSED], 7001, "tcp",
                        ["open"] + ["refused"] * 4 + ["done"], within)


far_port.needs = companions.hosts.Hosts

APART = """
import socket, sys, threading
def echo(port):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind(("127.0.0.1", port))
    while True: s.sendto(*s.recvfrom(99))
ports = [int(p) for p in sys.argv[1:]]
for port in ports[1:]: threading.Thread(target=echo, args=(port,)).start()
echo(ports[0])
"""

ASKING = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for n in range(24):
    s.sendto(b"%d" % n, ("127.0.0.1", int(sys.argv[1 + n % 3])))
    print(s.recv(99).decode(), flush=True)
print("done", flush=True)
"""


def apart(t, p):
    """Each thread has a socket of its own; whichever wakes takes in what came for all."""
    ports = [str(free_port()) for _ in range(3)]
    companions.converse(t, p, "server", [PYTHON, "-c", APART, *ports], [PYTHON, "-c", ASKING, *ports], int(ports[0]), "udp",
                        [str(n) for n in range(24)] + ["done"], late=0)
