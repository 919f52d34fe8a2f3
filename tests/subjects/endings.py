"""endings.py serve|ask HOST PORT: one of two programs that try a TCP socket's options, time limits and endings, step by step, in
lock-step over a first connection. Each prints what it saw: with libken the same as without."""
import array
import errno
import fcntl
import os
import select
import signal
import socket
import struct
import sys
import termios
import time

from answers import attempt, show

role, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
family = socket.AF_INET6 if ":" in host else socket.AF_INET
signal.signal(signal.SIGPIPE, signal.SIG_IGN)
SOCKET, TCP = socket.SOL_SOCKET, socket.IPPROTO_TCP
STATES = ("", "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT", "FIN_WAIT", "TIME_WAIT", "CLOSE", "CLOSE_WAIT", "LAST_ACK", "LISTEN")
WAIT = 0.1  # for what the other side sent to be there


def say():
    control.sendall(b".")


def hear():
    assert control.recv(1), "the other side is gone"


def meet():
    """Both come here before either goes on."""
    say()
    hear()


def pair():
    """A new connection; on either side."""
    if role == "ask":
        s = socket.create_connection((host, port))
    else:
        s = listener.accept()[0]
    meet()
    return s


def events(s, wait=2000):
    p = select.poll()
    p.register(s, select.POLLIN | select.POLLOUT | select.POLLRDHUP | select.POLLPRI)
    names = {n: getattr(select, "POLL" + n) for n in ("IN", "PRI", "OUT", "RDHUP", "HUP", "ERR")}
    return [n for _, bits in p.poll(wait) for n, b in names.items() if bits & b]


def state(s):
    return STATES[s.getsockopt(TCP, socket.TCP_INFO, 1)[0]]


def count(s, request):
    found = array.array("i", [-1])
    fcntl.ioctl(s, request, found)
    return found[0]


def told(what, s):
    """How a socket stands. Hung up says it all: whether an error comes with it, SO_ERROR tells."""
    try:
        peer = s.getpeername()[0]
    except OSError as error:
        peer = errno.errorcode[error.errno]
    told = events(s, 0)
    show(what, ([e for e in told if e != "ERR" or "HUP" not in told], state(s), peer, s.getsockname()[0], count(s, termios.FIONREAD)))


def limit(name, ms):
    return SOCKET, name, struct.pack("ll", ms // 1000, ms % 1000 * 1000)


def timed(action):
    began = time.monotonic()
    try:
        return action()
    finally:
        took = time.monotonic() - began
        if not 0.05 < took < 5:
            show("took", took)


# --- options --------------------------------------------------------------------------------------------------------

KNOWN = [("SOCKET", n) for n in ("SO_ACCEPTCONN BROADCAST DEBUG DONTROUTE ERROR KEEPALIVE OOBINLINE PRIORITY RCVLOWAT REUSEADDR REUSEPORT "
                                 "SNDLOWAT TYPE DOMAIN PROTOCOL INCOMING_CPU MARK").split()]
NUMBERS = {"ACCEPTCONN": 30, "SNDLOWAT": 19, "DOMAIN": 39, "PROTOCOL": 38, "INCOMING_CPU": 49, "MARK": 36}
TCP_NAMES = {"NODELAY": 1, "MAXSEG": 2, "CORK": 3, "KEEPIDLE": 4, "KEEPINTVL": 5, "KEEPCNT": 6, "SYNCNT": 7, "LINGER2": 8, "DEFER_ACCEPT": 9,
             "WINDOW_CLAMP": 10, "QUICKACK": 12, "USER_TIMEOUT": 18, "FASTOPEN": 23, "NOTSENT_LOWAT": 25}


def options(who, s):
    for name in "BROADCAST DEBUG DONTROUTE ERROR KEEPALIVE OOBINLINE PRIORITY RCVLOWAT REUSEPORT TYPE".split():
        attempt(f"{who} SO_{name}", lambda: s.getsockopt(SOCKET, getattr(socket, "SO_" + name)))
    for name, number in NUMBERS.items():
        if name != "INCOMING_CPU":
            attempt(f"{who} SO_{name}", lambda: s.getsockopt(SOCKET, number))
    for name, number in TCP_NAMES.items():
        if name not in ("MAXSEG", "WINDOW_CLAMP", "QUICKACK"):
            attempt(f"{who} TCP_{name}", lambda: s.getsockopt(TCP, number))
    for name in ("SO_RCVTIMEO", "SO_SNDTIMEO", "SO_LINGER"):
        attempt(f"{who} {name}", lambda: s.getsockopt(SOCKET, getattr(socket, name), 99))
    attempt(f"{who} congestion", lambda: s.getsockopt(TCP, socket.TCP_CONGESTION, 16))
    attempt(f"{who} info", lambda: len(s.getsockopt(TCP, socket.TCP_INFO, 999)) > 100)
    attempt(f"{who} mss", lambda: s.getsockopt(TCP, socket.TCP_MAXSEG) > 500)
    attempt(f"{who} TOS", lambda: s.getsockopt(0, 1))
    attempt(f"{who} no such", lambda: s.getsockopt(SOCKET, 999))
    attempt(f"{who} no such of TCP", lambda: s.getsockopt(TCP, 999))
    attempt(f"{who} no such level", lambda: s.getsockopt(99, 1))


def set_options(who, s):
    values = [(SOCKET, 9, 7), (SOCKET, 6, 1), (SOCKET, 10, 1), (SOCKET, 12, 5), (SOCKET, 18, 4), (SOCKET, 2, 1), (SOCKET, 999, 1), (SOCKET, 3, 1)]
    values += [(TCP, 1, 5), (TCP, 4, 33), (TCP, 4, 0), (TCP, 4, 40000), (TCP, 5, 11), (TCP, 6, 3), (TCP, 6, 300), (TCP, 7, 4), (TCP, 8, 9), (TCP, 18, 7000),
               (TCP, 18, -1), (TCP, 3, 1), (TCP, 3, 0), (TCP, 25, 5000), (TCP, 999, 1), (99, 1, 1), (0, 1, 16), (0, 2, 33), (0, 2, 300)]
    for level, name, value in values:
        attempt(f"{who} set {level} {name} {value}", lambda: s.setsockopt(level, name, value))
        attempt(f"{who} is {level} {name}", lambda: s.getsockopt(level, name))
    for size in (1, 20000, 300000):
        for name in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            attempt(f"{who} buffer {name} of {size}", lambda: s.setsockopt(SOCKET, name, size))
            attempt(f"{who} buffer {name}", lambda: s.getsockopt(SOCKET, name) >= min(2 * size, 200000))
    for value in (b"", b"abc", struct.pack("ii", 1, 5), struct.pack("ii", 1, 0), struct.pack("iii", 0, 0, 0)):
        attempt(f"{who} linger {value}", lambda: s.setsockopt(SOCKET, socket.SO_LINGER, value))
        attempt(f"{who} lingers", lambda: s.getsockopt(SOCKET, socket.SO_LINGER, 8))
    for value in (b"12345678", struct.pack("ll", 3, 40000), struct.pack("ll", 3, 4000000), struct.pack("ll", 0, 0)):
        attempt(f"{who} limit {value}", lambda: s.setsockopt(SOCKET, socket.SO_RCVTIMEO, value))
        attempt(f"{who} limited", lambda: s.getsockopt(SOCKET, socket.SO_RCVTIMEO, 16))
    for name in (b"reno", b"nonesuch"):
        attempt(f"{who} congestion {name}", lambda: s.setsockopt(TCP, socket.TCP_CONGESTION, name))
        attempt(f"{who} congestion", lambda: s.getsockopt(TCP, socket.TCP_CONGESTION, 16))


def inherited():
    """What an accepted socket has from its listener."""
    if role == "serve":
        for level, name, value in ((SOCKET, socket.SO_KEEPALIVE, 1), (TCP, socket.TCP_NODELAY, 1), (TCP, socket.TCP_KEEPIDLE, 44), limit(socket.SO_RCVTIMEO, 100)):
            listener.setsockopt(level, name, value)
    meet()
    s = pair()
    options("inherited", s)
    if role == "serve":
        # os.read: python's own time limit is another thing
        attempt("inherited limit", lambda: timed(lambda: os.read(s.fileno(), 1)))
        for level, name, value in ((SOCKET, socket.SO_KEEPALIVE, 0), (TCP, socket.TCP_NODELAY, 0), (TCP, socket.TCP_KEEPIDLE, 7200), limit(socket.SO_RCVTIMEO, 0)):
            listener.setsockopt(level, name, value)
    meet()
    s.close()


# --- time limits ----------------------------------------------------------------------------------------------------


def fill(s):
    """Until it takes nothing; the kernel finds a little more room now and then."""
    sent, full = 0, 0
    while full < 3:
        try:
            sent += os.write(s.fileno(), bytes(65536))
            full = 0
        except BlockingIOError:
            full += 1
    return sent


def limits():
    s = pair()
    if role == "ask":
        s.setsockopt(*limit(socket.SO_RCVTIMEO, 100))
        attempt("read in time", lambda: timed(lambda: os.read(s.fileno(), 9)))
        attempt("recvmsg in time", lambda: timed(lambda: s.recvmsg(9)))
        attempt("all of it in time", lambda: timed(lambda: s.recv(9, socket.MSG_WAITALL)))
        say()
        hear()
        time.sleep(WAIT)
        attempt("a part of it in time", lambda: timed(lambda: s.recv(9, socket.MSG_WAITALL)))
        s.setsockopt(*limit(socket.SO_RCVTIMEO, 0))
        s.setsockopt(*limit(socket.SO_SNDTIMEO, 100))
        sent = fill(s)
        attempt("write in time", lambda: timed(lambda: os.write(s.fileno(), b"x")))
        attempt("sendmsg in time", lambda: timed(lambda: s.sendmsg([b"x"])))
        attempt("send at once", lambda: s.send(b"x", socket.MSG_DONTWAIT))
        control.sendall(struct.pack("!q", sent))
        hear()
        s.setsockopt(*limit(socket.SO_SNDTIMEO, 0))
        s.sendall(b"end")
        s.close()
    else:
        hear()
        s.sendall(b"abc")
        say()
        wanted = struct.unpack("!q", control.recv(8, socket.MSG_WAITALL))[0] + 3
        say()
        got = 0
        while piece := s.recv(1 << 20):
            got += len(piece)
        show("all came", got == wanted)
        s.close()
        listener.setsockopt(*limit(socket.SO_RCVTIMEO, 100))
        attempt("accept in time", lambda: timed(lambda: socket.socket.accept(listener)))
        listener.setsockopt(*limit(socket.SO_RCVTIMEO, 0))
    meet()


# --- endings --------------------------------------------------------------------------------------------------------

END_WORDS = {"R": socket.SHUT_RD, "W": socket.SHUT_WR, "B": socket.SHUT_RDWR}


def act(name, s, word):
    """One step of one side; the other one looks afterwards."""
    if word in END_WORDS:
        attempt(f"{name}: shutdown", lambda: s.shutdown(END_WORDS[word]))
    elif word == "s":
        attempt(f"{name}: send", lambda: s.send(b"12345"))
    elif word == "r":
        attempt(f"{name}: recv", lambda: s.recv(100, socket.MSG_DONTWAIT))
    elif word == "p":
        attempt(f"{name}: peek", lambda: s.recv(3, socket.MSG_DONTWAIT | socket.MSG_PEEK))
    elif word == "c":
        s.close()
    elif word == "l":
        s.setsockopt(SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        s.close()
    elif word == "L":
        s.setsockopt(SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 3))
        s.close()
    elif word == "e":
        attempt(f"{name}: error", lambda: s.getsockopt(SOCKET, socket.SO_ERROR))
    elif word == "d":
        attempt(f"{name}: dissolve", lambda: dissolve(s))


def dissolve(s):
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.connect(s.fileno(), bytes(16), 16) < 0:
        raise OSError(ctypes.get_errno(), "connect")


# A capital begins each step: A the one who asked, S the one who serves.
ENDINGS = ["AW Ss Ar Sc Ar As", "SW As Sr Ac Sr", "AR Ss Ar Ss Ar As Sr", "Ss AR Ar Ar Ss Ar", "AR SW Ar As Sr AW Sr", "AB Ss Se Ss Ar", "AB SB AB SB",
           "AW SW AW SW AR SB", "As SR Sr Sr As", "As Sc Ar As Ae As", "As As Sl Ar Ar As Ae", "Ss Sl Ap Ar Ar As", "Al Se Sr Sr Ss", "Al Ss Sr Sr",
           "Al SW", "Al Sr SW", "Ss AL Sr Sr", "As AL Sr Sr Ss Ss", "Ss Ss Ap Ac Sr Sr Ss", "As AW Ac Sr Sr Ss Sr Ss Ss", "As AB Sr Sr Ss Ar Ss", "Ss SW Ac Sr Ss",
           "AR AW Ss", "AW AR Sr Ss Ss Sr", "AR AR", "SW AL Sr Ss Ss", "Ad Sr", "As Ad Sr Sr", "Ss Ad Sr Ss Ss"]


def endings():
    for steps in ENDINGS:
        s = pair()
        for step in steps.split():
            side, word = step
            mine = (side == "A") == (role == "ask")
            if mine and s.fileno() >= 0:
                act(f"{steps}: {step}", s, word)
            meet()
            meet()  # what the other side's system answered is there, too
            if s.fileno() >= 0:
                told(f"{steps}: after {step}", s)
            meet()
        s.close()
        meet()


def in_flight():
    """Much is on its way when one side ends: half, altogether, with a limit to its patience."""
    for how in ("half", "close", "linger", "both"):
        s = pair()
        if role == "ask":
            s.sendall(bytes(range(256)) * 400)
            if how == "half":
                s.shutdown(socket.SHUT_WR)
                show("an answer", s.recv(100))
            elif how == "linger":
                s.setsockopt(SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 5))
            elif how == "both":
                s.shutdown(socket.SHUT_RDWR)
            s.close()
            meet()
        else:
            time.sleep(WAIT)
            got = b""
            while piece := s.recv(10000):
                got += piece
            show(how, got == bytes(range(256)) * 400)
            if how == "half":
                s.sendall(b"%d bytes" % len(got))
            s.close()
            meet()


def fast_open():
    """connect() and the first bytes at once."""
    with open("/proc/sys/net/ipv4/tcp_fastopen") as f:
        if not int(f.read()) & 1:
            return
    if role == "ask":
        s = socket.socket(family)
        attempt("fast", lambda: s.sendto(b"hello", socket.MSG_FASTOPEN, (host, port)))
        s.sendall(b", too")
        show("state", state(s))
    else:
        s = listener.accept()[0]
        show("fast", s.recv(10, socket.MSG_WAITALL))
    meet()
    s.close()


def urgent():
    s = pair()
    show("no urgent data", events(s, 0))
    meet()
    show("at the mark", count(s, 0x8905))
    s.sendall(b"all of it")
    while count(s, termios.TIOCOUTQ):
        time.sleep(0.01)
    show("all of it went", count(s, termios.TIOCOUTQ))
    meet()
    attempt("urgent", lambda: s.recv(1, socket.MSG_OOB))
    s.close()
    meet()


def main():
    global control, listener
    if role == "serve":
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(50)
        control, _ = listener.accept()
    else:
        control = socket.create_connection((host, port))
    meet()
    s = pair()
    options(role, s)
    set_options(role, s)
    meet()
    s.close()
    for part in (inherited, limits, endings, in_flight, fast_open, urgent):
        part()
    show("end", role)


main()
