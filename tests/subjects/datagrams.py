"""datagrams.py serve|ask HOST PORT: one of two programs that try what UDP sockets can do, step by step, in lock-step over a TCP connection.
Each prints what it saw: with libken the same as without."""
import array
import ctypes
import fcntl
import os
import select
import socket
import struct
import sys
import termios

from answers import attempt, show

role, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
family = socket.AF_INET6 if ":" in host else socket.AF_INET
libc = ctypes.CDLL(None, use_errno=True)


def say():
    control.sendall(b".")


def hear():
    assert control.recv(1), "the other side is gone"


def ready(s):
    return [bool(x) for x in select.select([s], [s], [], 5)[:2]]


class Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


class Message(ctypes.Structure):
    _fields_ = [("name", ctypes.c_void_p), ("name_length", ctypes.c_uint), ("iov", ctypes.POINTER(Vector)), ("iov_count", ctypes.c_size_t),
                ("control", ctypes.c_void_p), ("control_length", ctypes.c_size_t), ("flags", ctypes.c_int), ("padding", ctypes.c_int),
                ("length", ctypes.c_uint)]


def messages(texts):
    buffers = [ctypes.create_string_buffer(text, max(len(text), 1)) for text in texts]
    vectors = [Vector(ctypes.addressof(b), len(text)) for b, text in zip(buffers, texts)]
    return (Message * len(texts))(*(Message(iov=ctypes.pointer(v), iov_count=1) for v in vectors)), buffers


def send_many(s, texts):
    m, _ = messages(texts)
    return libc.sendmmsg(s.fileno(), m, len(texts), 0), [x.length for x in m]


def receive_many(s, count):
    m, buffers = messages([b"\0" * 99 for _ in range(count)])
    got = libc.recvmmsg(s.fileno(), m, count, 0x10000, None)  # MSG_WAITFORONE
    return [b.raw[:x.length] for x, b in zip(m[:max(got, 0)], buffers)]


def packet_info(s):
    """Where a datagram came to, as servers with several addresses ask."""
    data, control_data, _, _ = s.recvmsg(100, 200)
    found = []
    for level, kind, value in control_data:
        if (level, kind) == (socket.IPPROTO_IP, 8):
            _, ours, to = struct.unpack("I4s4s", value)
            found.append((socket.inet_ntoa(ours), socket.inet_ntoa(to)))
        elif (level, kind) == (socket.IPPROTO_IPV6, 50):
            found.append(socket.inet_ntop(socket.AF_INET6, value[:16]))
    return data, found


def serve():
    global control
    listener = socket.create_server((host, port), family=family)
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.bind((host, port))
    control = listener.accept()[0]
    say()
    for way in ("unbound", "bound", "connected"):
        text, address = s.recvfrom(100)
        show(way, (text, address[0] == host, ready(s)[1]))
        s.sendto(b"%s, from %d" % (text, address[1]), address)
    show("nothing in it", s.recvfrom(100)[0])
    show("the most", len(s.recv(70000)))
    hear()
    pending = array.array("i", [0])
    attempt("ready", lambda: ready(s))
    fcntl.ioctl(s, termios.FIONREAD, pending)
    show("pending", pending[0])
    show("peek", s.recv(100, socket.MSG_PEEK))
    show("cut", s.recvmsg(4)[0::2])
    show("its length", s.recv_into(bytearray(4), 4, socket.MSG_TRUNC))
    got = []
    while len(got) < 5:
        got += receive_many(s, 8)
    show("many", got)
    s.setblocking(False)
    attempt("nothing there", lambda: s.recv(1))
    s.settimeout(0.05)
    attempt("nothing in time", lambda: s.recv(1))
    s.settimeout(None)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 50000))
    attempt("SO_RCVTIMEO", lambda: os.read(s.fileno(), 1))
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 0))
    say()
    show("in order", [int(s.recv(100).split()[0]) for _ in range(60)] == list(range(60)))
    if family == socket.AF_INET:
        s.setsockopt(socket.IPPROTO_IP, 8, 1)  # IP_PKTINFO
    else:
        s.setsockopt(socket.IPPROTO_IPV6, 49, 1)  # IPV6_RECVPKTINFO
    say()
    show("where it came to", packet_info(s))
    say()
    # a connected socket hears its peer alone
    address = s.recvfrom(100)[1]
    s.connect(address)
    say()
    show("from its peer", s.recv(100))
    show("its peer", s.getpeername() == address)
    s.send(b"to its peer")
    s.close()
    say()
    hear()
    # nobody had the port for a while; then somebody has it again
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.bind((host, port))
    say()
    show("there again", s.recv(100))
    hear()


def told(s):
    """What poll() tells of a socket whose peer's port is closed, when it does."""
    p = select.poll()
    p.register(s, select.POLLIN)
    return [bits for _, bits in p.poll(5000)]


def from_error_queue(s):
    p = select.poll()
    p.register(s, 0)
    p.poll(5000)
    data, control_data, flags, _ = s.recvmsg(100, 500, socket.MSG_ERRQUEUE)
    error, origin, kind, code = struct.unpack("IBBB", control_data[0][2][:7])
    return data, [c[:2] for c in control_data], os.strerror(error), origin, kind, code, bool(flags & socket.MSG_ERRQUEUE)


def refused(connected, bound, server):
    """A port that was closed by a process that lives."""
    attempt("a stranger is told", lambda: connected.recv(9))
    connected.send(b"lost")
    show("poll", told(connected))
    attempt("recv at once", lambda: connected.recv(9, socket.MSG_DONTWAIT))
    attempt("recv again", lambda: connected.recv(9, socket.MSG_DONTWAIT))
    connected.send(b"lost")
    attempt("recv", lambda: connected.recv(9))
    for word in ("SO_ERROR", "and then"):
        if word == "SO_ERROR":
            connected.send(b"lost")
            told(connected)
        show(word, connected.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
    connected.send(b"lost")
    told(connected)
    attempt("the next send", lambda: connected.send(b"lost"))
    attempt("the next", lambda: connected.send(b"lost"))
    told(connected)
    attempt("the next by sendmsg", lambda: connected.sendmsg([b"lo", b"st"]))
    bound.sendto(b"lost", server)
    bound.settimeout(0.2)
    attempt("without a peer", lambda: bound.recv(9))
    for s, send in ((connected, connected.send), (bound, lambda text: bound.sendto(text, server))):
        s.settimeout(None)
        s.setsockopt(*((socket.IPPROTO_IP, 11) if family == socket.AF_INET else (socket.IPPROTO_IPV6, 25)), 1)  # IP_RECVERR
        send(b"lost and found")
        attempt("error queue", lambda: from_error_queue(s))
        attempt("and the error", lambda: s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))


def ask():
    global control
    control = socket.create_connection((host, port))
    hear()
    server = (host, port)
    unbound, bound, connected = (socket.socket(family, socket.SOCK_DGRAM) for _ in range(3))
    bound.bind((host, 0))
    connected.connect(server)
    unbound.sendto(b"unbound", server)
    bound.sendto(b"bound", server)
    attempt("no destination", lambda: bound.send(b"x"))
    attempt("its peer", lambda: connected.getpeername()[:2] == server)
    connected.send(b"connected")
    for s in (unbound, bound, connected):
        text, address = s.recvfrom(100)
        word, _, source = text.decode().partition(", from ")
        show("answer", (word, int(source) == s.getsockname()[1], address[:2] == server))
    connected.send(b"")
    attempt("the most", lambda: connected.send(bytes(65507)))
    attempt("more", lambda: connected.send(bytes(65508 if family == socket.AF_INET else 65528)))
    attempt("much more", lambda: unbound.sendto(bytes(200000), server))
    connected.sendmsg([b"pie", b"", b"ces"])
    show("many", send_many(connected, [b"cut off", b"long", b"one", b"two", b"", b"three"]))
    say()
    hear()
    for n in range(60):
        (unbound if n % 2 else connected).sendto(b"%d " % n + bytes(n % 70), server) if n % 2 else connected.send(b"%d " % n + bytes(n % 70))
    hear()
    connected.send(b"whereto")
    hear()
    bound.sendto(b"hello", server)
    hear()
    connected.send(b"a stranger")
    bound.sendto(b"again", server)
    show("answer", bound.recv(100))
    hear()
    attempt("nobody is told", lambda: bound.sendto(b"x", server))
    refused(connected, bound, server)
    say()
    hear()
    attempt("there again", lambda: connected.send(b"here"))
    say()


serve() if role == "serve" else ask()
