#!/usr/bin/python3
"""Servers with an event loop (select, poll, epoll level and edge triggered), many TCP clients and UDP; every way to wait; a
loop that waits for room while output is held."""
import contextlib
import itertools
import os
import socket
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import *
from pairs import wait_until


def event_loop(way, dialog_class):
    def run(t):
        port = free_port()
        program = t.program([subject("echo_loop"), str(port), way])
        dialog = dialog_class(program, port)
        t.at_end(dialog.close)
        counts = itertools.count(1)
        traffic = Traffic(dialog, (f"text-{t.random.randrange(1000)}" for _ in iter(int, 1)),
                          lambda command: f"{next(counts)} {command}")
        idle = []
        t.at_end(lambda: [s.close() for s in idle])
        for _ in range(200):  # connections that say nothing, to be there when it is killed
            try:
                idle.append(socket.create_connection(("127.0.0.1", port)))
            except OSError:
                time.sleep(0.01)
            if len(idle) == 3:
                break
        check(len(idle) == 3, "three clients could not connect within two seconds")
        t.killed_while(program, traffic)
    return run


WAYS = "select pselect poll ppoll epoll epoll_pwait epoll_pwait2 oneshot edge nested recv timeout".split()


@case
def waits(t):
    port = free_port()
    program = t.program([subject("waits"), str(port)])
    dialog = UdpDialog(program, port)
    t.at_end(dialog.close)
    counts = itertools.count(1)

    def model(command):
        count = next(counts)
        return f"{count} by {WAYS[(count - 1) % len(WAYS)]}"

    t.killed_while(program, Traffic(dialog, (t.random.choice(("next", "next", "sweep")) for _ in iter(int, 1)), model), kills=2 * KILLS)


class UnixDialog(Dialog):
    """Asks over a UNIX socket, each time over another kind: stream, packets or datagrams, at a path or an abstract name."""

    KINDS = {"stream": socket.SOCK_STREAM, "packet": socket.SOCK_SEQPACKET, "datagram": socket.SOCK_DGRAM}

    def __init__(self, program, abstract):
        super().__init__(program)
        self.places = list(itertools.product(self.KINDS, ("path", abstract)))
        self.at, self.kind, self.socket = -1, None, None

    def send(self, seq, text):
        self.close()
        self.at += 1
        self.kind, name = self.places[self.at % len(self.places)]
        self.socket = socket.socket(socket.AF_UNIX, self.KINDS[self.kind])
        self.socket.settimeout(self.retry)
        try:
            if self.kind == "datagram":
                self.socket.bind("")  # a name of the kernel's choice, to be answered at
            self.socket.connect(os.path.join(self.program.cwd, self.kind) if name == "path" else f"\0{name}-{self.kind}")
            self.socket.send(text.encode() + (b"\n" if self.kind == "stream" else b""))
        except OSError:
            time.sleep(0.005)

    def receive(self, seconds):
        try:
            text = self.socket.recv(1000).decode()
        except OSError:
            return time.sleep(0.002)
        if text:
            self.judge_line(text.rstrip("\n"))

    def close(self):
        if self.socket:
            self.socket.close()


@case
def unix_sockets(t):
    """A server on UNIX sockets of every kind, whose clients, and the one that it reports to, are plain programs: no count is lost
    or reported twice."""
    program = t.program([PYTHON, subject("unix_server.py")], start=False)
    log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    t.at_end(log.close)
    log.bind(os.path.join(program.cwd, "log"))
    abstract = f"ken-test-{os.getpid()}-{t.random.randrange(1 << 30)}"
    with open(os.path.join(program.cwd, "abstract"), "w") as f:
        f.write(abstract)
    program.start()
    dialog, counts, reported = UnixDialog(program, abstract), itertools.count(1), []
    t.at_end(dialog.close)

    def model(command):
        with contextlib.suppress(BlockingIOError):
            while True:
                reported.append(int(log.recv(100, socket.MSG_DONTWAIT)))
        return f"{next(counts)} {command}"

    traffic = Traffic(dialog, (f"text-{t.random.randrange(1000)}" for _ in iter(int, 1)), model)
    t.killed_while(program, traffic)
    model("")
    check(reported == list(range(1, traffic.count + 1)), f"of {traffic.count} counts it reported {reported}")


@case
def a_socket_whose_turn_is_lost(t):
    """It is bound to a path, and the process is killed before the turn is over: the turn that is done again binds it."""
    port, bound, go = free_port(), os.path.join(t.dir, "bound"), os.path.join(t.dir, "go")
    program = t.program([PYTHON, "-c", f"""
import os, socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('127.0.0.1', {port}))
unix = None
while True:
    number, whom = s.recvfrom(100)
    if unix is None:
        unix = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        unix.bind('socket')
        open({bound!r}, 'w').close()
        while not os.path.exists({go!r}): pass
    s.sendto(number.split()[0] + b' ' + unix.getsockname().encode(), whom)
"""])
    dialog = UdpDialog(program, port)
    t.at_end(dialog.close)
    traffic = Traffic(dialog, iter(["bind", "bind"]), lambda command: "socket")
    traffic.start()
    wait_until(lambda: os.path.exists(bound), "the socket")
    if not program.bare:
        program.kill9()
        program.restart()
    open(go, "w").close()
    traffic.wait_for(2)
    traffic.finish()


class Line:
    """A connection on which numbers are asked for."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
        self.file = self.socket.makefile("rb")

    def ask(self, text):
        self.socket.sendall(text.encode())
        return int(self.file.readline())

    def close(self):
        self.file.close()
        self.socket.close()


def answering(t, port):
    """A connection that the server has answered on: it may still be coming up."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            line = Line(port)
            t.at_end(line.close)
            line.ask("turns")
            return line
        except (OSError, ValueError):
            check(time.monotonic() < until, "the server does not answer")
            time.sleep(0.02)


@case
def room_is_waited_for(t):
    """While a client does not read, a loop that waits for room comes to rest."""
    size = 251 * 60000
    port = free_port()
    program = t.program([PYTHON, subject("flood.py"), str(port)])
    for start in range(2):
        asker, reader = answering(t, port), answering(t, port)
        reader.socket.sendall(f"send {size}".encode())
        quiet, history = 0, []
        while quiet < 3:  # all buffers are full
            time.sleep(0.2)
            history.append(asker.ask("turns"))
            quiet = quiet + 1 if history[-1] <= 2 else 0  # the question itself is one
            check(len(history) < 5 * PATIENCE, f"the loop never comes to rest: it turned {history} times")
        data = reader.file.read(size)
        check(data == bytes(range(251)) * (size // 251), "the bytes are not those that were sent")
        turns = asker.ask("turns")
        check(turns < size // 1000, f"the loop turned {turns} times for {size} bytes")
        if start == 0 and not BARE:
            program.kill9()
            program.start()


@case
def io_uring_is_refused(t):
    """With ENOSYS, so that programs fall back; said once."""
    script = ("import ctypes, os; libc = ctypes.CDLL(None, use_errno=True)\n"
              "for i in range(3): print(libc.syscall(425, 4, ctypes.create_string_buffer(120)), ctypes.get_errno())")
    out = os.path.join(t.dir, "out")
    program = t.program([PYTHON, "-c", script], stdout=open(out, "w"), bare=False)
    check(program.process.wait(PATIENCE) == 0, "the program failed: " + program.tail())
    check(open(out).read() == "-1 38\n" * 3, open(out).read())
    said = [line for line in program.messages() if "io_uring" in line]
    check(len(said) == 1, f"said {len(said)} times: {program.messages()}")


for way in ("select", "poll", "epoll", "edge"):
    add_case(f"{way}_tcp", event_loop(way, TcpDialog))
    add_case(f"{way}_udp", event_loop(way, UdpDialog))
main()
