"""sockets.py serve|ask HOST PORT: one of two programs that try what a TCP socket can do, step by step, in lock-step over a first
connection. Each prints what it saw: with libken the same as without."""
import array
import errno
import fcntl
import os
import select
import signal
import socket
import struct
import sys
import tempfile
import termios
import time

from answers import attempt, show

role, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
family = socket.AF_INET6 if ":" in host else socket.AF_INET
signal.signal(signal.SIGPIPE, signal.SIG_IGN)


def events(s, wanted, wait=2000):
    p = select.poll()
    p.register(s, wanted)
    found = p.poll(wait)
    names = ("IN", "OUT", "RDHUP", "HUP", "ERR")
    bits = (select.POLLIN, select.POLLOUT, select.POLLRDHUP, select.POLLHUP, select.POLLERR)
    return [n for n, b in zip(names, bits) if found and found[0][1] & b]


def pending(s):
    count = array.array("i", [0])
    fcntl.ioctl(s, termios.FIONREAD, count)
    return count[0]


def say(word="."):
    control.sendall(word.encode())


def hear():
    assert control.recv(1), "the other side is gone"


def options(s, who):
    for name in ("SO_TYPE", "SO_DOMAIN", "SO_PROTOCOL", "SO_ERROR", "SO_ACCEPTCONN", "SO_KEEPALIVE", "SO_BROADCAST", "SO_OOBINLINE"):
        attempt(f"{who} {name}", lambda: s.getsockopt(socket.SOL_SOCKET, getattr(socket, name, 38)))
    for level, name, value in ((socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
                               (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 33), (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 7000)):
        attempt(f"{who} set {level} {name}", lambda: s.setsockopt(level, name, value))
        attempt(f"{who} get {level} {name}", lambda: bool(s.getsockopt(level, name)) if value == 1 else s.getsockopt(level, name))
    linger = struct.pack("ii", 1, 5)
    attempt(f"{who} set linger", lambda: s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger))
    attempt(f"{who} get linger", lambda: s.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8) == linger)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 0, 0))
    attempt(f"{who} buffers", lambda: s.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) > 4000 and
            s.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) > 4000)
    attempt(f"{who} state", lambda: s.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0])


def serve():
    global control
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen(50)
    control, _ = listener.accept()
    show("listener accepts", listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    attempt("listener's peer", lambda: listener.getpeername())
    hear()
    s, address = listener.accept()
    show("names", s.getsockname()[1] == port and s.getpeername() == address and address[0] == s.getsockname()[0] == host)
    s.sendall(b"%d" % address[1])
    options(s, "accepted")
    say()
    # half-close: the other side has ended, this one answers
    text = b""
    while piece := s.recv(100):
        text += piece
    show("until its end", text)
    show("after its end", events(s, select.POLLIN | select.POLLOUT | select.POLLRDHUP))
    s.sendall(b"an answer")
    s.shutdown(socket.SHUT_WR)
    attempt("write after shutdown", lambda: s.send(b"x"))
    s.close()
    hear()
    # reset by the other side
    s, _ = listener.accept()
    hear()
    show("reset", events(s, select.POLLIN | select.POLLOUT))
    attempt("read of a reset", lambda: s.recv(10))
    attempt("read again", lambda: s.recv(10))
    attempt("write to a reset", lambda: s.send(b"x"))
    s.close()
    say()
    # closed with unread bytes: a reset for the other side
    s, _ = listener.accept()
    hear()
    s.close()
    say()
    # many pieces, read in several ways
    s, _ = listener.accept()
    hear()
    show("pending", pending(s))
    show("peek", s.recv(5, socket.MSG_PEEK))
    buffers = [bytearray(4), bytearray(6)]
    show("readv", (os.readv(s.fileno(), buffers), buffers))
    show("recvmsg", s.recvmsg(3)[0])
    say()
    show("all of it", len(s.recv(100000, socket.MSG_WAITALL)))
    d = s.dup()
    s.close()
    d.setblocking(False)
    attempt("nothing there", lambda: d.recv(1))
    d.setblocking(True)
    d.settimeout(0.05)
    attempt("timeout", lambda: d.recv(1))
    d.settimeout(None)
    d.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, 50000))
    attempt("SO_RCVTIMEO", lambda: os.read(d.fileno(), 1))
    say()
    show("a file", len(d.recv(30000, socket.MSG_WAITALL)))
    d.close()
    hear()
    # a writer against a full window
    s, _ = listener.accept()
    s.setblocking(False)
    sent = 0
    while events(s, select.POLLOUT, 300):
        try:
            sent += s.send(bytes(65536))
        except BlockingIOError:
            pass
    show("full at some point", 50000 < sent < 20 << 20)
    show("not writable", events(s, select.POLLOUT, 0))
    say()
    s.setblocking(True)
    s.sendall(b"end")
    control.sendall(struct.pack("!q", sent + 3))
    s.close()
    hear()
    # nobody listens any more
    listener.close()
    say()
    hear()
    show("end", control.recv(1))


def connect():
    return socket.create_connection((host, port))


def ask():
    global control
    control = connect()
    say()
    s = socket.socket(family, socket.SOCK_STREAM)
    attempt("peer of nobody", lambda: s.getpeername())
    attempt("shutdown of nothing", lambda: socket.socket(family).shutdown(socket.SHUT_WR))
    s.setblocking(False)
    attempt("connect", lambda: s.connect((host, port)))
    show("connected", events(s, select.POLLOUT))
    show("error", s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
    attempt("connect again", lambda: s.connect((host, port)))
    attempt("and again", lambda: s.connect((host, port)))
    s.setblocking(True)
    show("names", s.getpeername()[:2] == (host, port) and s.getsockname()[0] == host)
    show("my port", int(s.recv(10)) == s.getsockname()[1])
    options(s, "connected")
    hear()
    s.sendall(b"a question")
    s.shutdown(socket.SHUT_WR)
    text = b""
    while piece := s.recv(100):
        text += piece
    show("the answer", text)
    show("both ended", events(s, select.POLLIN | select.POLLRDHUP))
    s.close()
    say()
    s = connect()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()
    say()
    hear()
    s = connect()
    s.sendall(b"never read")
    time.sleep(0.1)
    say()
    hear()
    attempt("read of what was closed", lambda: s.recv(10))
    attempt("write to it", lambda: s.send(b"x"))
    s.close()
    s = connect()
    s.sendmsg([b"0123", b"456789", b"abc"])
    time.sleep(0.1)
    say()
    hear()
    for n in range(100):
        s.sendall(bytes(1000))
        if n % 30 == 0:
            time.sleep(0.01)
    hear()
    with tempfile.TemporaryFile() as f:
        f.write(bytes(30000))
        f.flush()
        show("sendfile", os.sendfile(s.fileno(), f.fileno(), 0, 30000))
    s.close()
    say()
    s = connect()
    hear()
    count = 0
    while piece := s.recv(100000):
        count += len(piece)
    wanted = struct.unpack("!q", control.recv(8, socket.MSG_WAITALL))[0]
    show("all of it", count == wanted or (count, wanted))
    s.close()
    say()
    hear()
    attempt("nobody listens", lambda: connect())
    s = socket.socket(family, socket.SOCK_STREAM)
    s.setblocking(False)
    attempt("nor now", lambda: s.connect((host, port)))
    select.select([], [s], [], 2)
    show("refused", errno.errorcode.get(s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)))
    say()
    control.close()


serve() if role == "serve" else ask()
