#!/usr/bin/python3
"""Who is no peer comes to the doors of a program under libken, again and again: its peers and the program notice nothing."""
import errno
import os
import socket
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import *
from hosts import *

DROPPED = r"peer \S+: the connection was dropped: "


def wait_open(p, kind, port=7001):
    wait_until(lambda: any(where == port for where in listening(p, kind)), "the server's port")


def listening(p, kind="tcp"):
    with open(f"/proc/{p.pid()}/net/{kind}") as f:
        lines = [line.split() for line in f.readlines()[1:]]
    return [int(words[1].split(":")[1], 16) for words in lines if words[3] in ("0A", "07")]


def burden(p):
    """Descriptors, and memory in KiB."""
    with open(f"/proc/{p.pid()}/status") as f:
        rss = next(int(line.split()[1]) for line in f if line.startswith("VmRSS"))
    return len(os.listdir(f"/proc/{p.pid()}/fd")), rss


class Stranger:
    """On a listed host: it knows the form of a handshake, and not the key."""

    def __init__(self, t, hosts, host, address):
        self.random, self.address, self.open, self.count = t.random, address, [], 0
        self.hosts, self.host = hosts, host
        t.at_end(self.leave)

    def words(self):
        start = b"KenAut" + bytes([1, 1])
        return self.random.choice([
            b"", self.random.randbytes(72), self.random.randbytes(5000), b"GET / HTTP/1.0\r\n\r\n",
            start + self.random.randbytes(64), start + self.random.randbytes(30), b"KenAut" + bytes([9, 1]) + self.random.randbytes(64),
            b"KenAut" + bytes([1, 3]) + self.random.randbytes(32), bytes(200000)])

    def come(self, times, ports):
        def go():
            for _ in range(times):
                s = socket.socket()
                s.setblocking(False)
                s.bind((self.address, 0))
                if s.connect_ex(("10.77.0.2", self.random.choice(ports))) in (0, errno.EINPROGRESS):
                    self.count += 1
                self.open.append((s, self.words()))
        self.hosts.within(self.host, go)
        time.sleep(0.02)
        for s, words in self.open[-times:]:
            try:
                s.send(words)
            except OSError:
                pass
        while len(self.open) > 300:  # the others stay, half-open
            self.open.pop(self.random.randrange(len(self.open)))[0].close()

    def leave(self):
        while self.open:
            self.open.pop()[0].close()


@case(limit=120)
def a_flood_of_handshakes(t):
    """From a listed host, at the program's port and at libken's own, while peers talk and are killed. One line says so."""
    hosts, key, path = Hosts(t), make_key(t), os.path.join(t.dir, "out")
    hosts.add_address(0, "10.77.0.3")
    server = hosts.program(1, [PYTHON, subject("far_server.py"), "tcp", "0.0.0.0", "7001"], key)
    server.expected_messages.append(DROPPED)
    wait_open(server, "tcp")
    count = 6000 if LONG else 1500
    client = hosts.program(0, [PYTHON, subject("far_client.py"), "tcp", "10.77.0.2", "7001", str(count), "c"], key, out=open(path, "wb"))
    wait_until(lambda: lines_of(path), "the first answer")
    stranger, kills, before, most, lines = Stranger(t, hosts, 0, "10.77.0.3"), 0, burden(server), (0, 0), []
    deadline = time.monotonic() + (400 if LONG else 80)
    while client.process.poll() is None:
        check(time.monotonic() < deadline, f"no progress: {lines_of(path)[-1:]}; {server.tail()}; {client.tail()}")
        stranger.come(50, listening(server))
        most = max(most[0], burden(server)[0]), max(most[1], burden(server)[1])
        if kills < KILLS // 4 and stranger.count > 1000 and t.random.random() < 0.1:
            lines.append(len(server.messages()))
            for p in t.random.sample([server, client], t.random.randrange(1, 3)):
                if p.process.poll() is None:
                    p.kill9()
                    kills += 1
                    p.restart()
            wait_open(server, "tcp")
    lines.append(len(server.messages()))
    check(client.wait_gone() == 0, f"client: {client.tail()}")
    check(lines_of(path)[-1] == "done" and [int(n) for n in lines_of(path)[:-1]] == list(range(1, count + 1)), "a number is missing")
    check(stranger.count > 1000 and max(lines) >= 1, f"nobody came: {stranger.count}, {lines}")
    check(max(lines) <= 3, f"{lines} lines about it")  # a resume line among them; and one a minute
    check(most[0] < before[0] + 120 and most[1] < before[1] + 30000, f"it had {before} descriptors and KiB, then {most}")
    t.note(f"{stranger.count} strangers, {kills} kills")


@case
def another_user_at_the_names(t):
    """Within one host: many connections of another user to the name that peers ask at."""
    if os.geteuid() != 0:
        raise Skip("needs root, to be another user")
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
    script = f"import socket\nl = socket.create_server(('127.0.0.1', {port}))\nwhile True:\n s = l.accept()[0]\n s.sendall(s.recv(9))\n s.close()\n"
    server = t.program([PYTHON, "-c", script])
    wait_open(server, "tcp", port)
    code = ("import os, socket, sys\nos.setuid(65534)\nopen = []\nfor n in range(2000):\n"
            " s = socket.socket(socket.AF_UNIX)\n s.setblocking(False)\n s.connect_ex('\\0ken/tcp/127.0.0.1:PORT')\n"
            " try: s.send(os.urandom(96))\n except OSError: pass\n open.append(s)\n if n > 500: open.pop(0).close()\nprint('done', flush=True)\nsys.stdin.read()\n")
    stranger = subprocess.Popen([PYTHON, "-c", code.replace("PORT", str(port))], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    t.at_end(lambda: (stranger.kill(), stranger.wait(), stranger.stdin.close(), stranger.stdout.close()))
    before = burden(server)
    for n in range(20):
        client = t.program([PYTHON, "-c", f"import socket\ns = socket.create_connection(('127.0.0.1', {port}))\ns.sendall(b'{n}')\n"
                            f"assert s.recv(9) == b'{n}'\n"])
        check(client.wait_gone() == 0, f"client {n}: {client.tail()}")
    check(stranger.stdout.readline() == b"done\n", "the stranger failed")
    after = burden(server)
    check(after[0] < before[0] + 50 and not server.messages(), f"it had {before} descriptors and KiB, then {after}; {server.messages()}")


main()
