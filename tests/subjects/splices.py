"""splices.py serve|ask PORT: two programs that move what a TCP connection brings with splice(2) and sendfile(2), and print what each call
answers: with libken the same as without. splices.py to PORT FILE and from PORT FILE move a whole file through a pipe, and print `done`."""
import os
import select
import signal
import socket
import sys
import tempfile

from answers import attempt

role, port = sys.argv[1], int(sys.argv[2])
signal.signal(signal.SIGPIPE, signal.SIG_IGN)
NONBLOCK = 2  # SPLICE_F_NONBLOCK


def to(path):
    """Out of the connection, into a file."""
    s = socket.create_server(("127.0.0.1", port)).accept()[0]
    r, w = os.pipe()
    with open(path, "wb") as f:
        while n := os.splice(s.fileno(), w, 1 << 20):
            while n:
                n -= os.splice(r, f.fileno(), n)


def source(path):
    """Half of the file by sendfile(), half through a pipe."""
    s = socket.create_connection(("127.0.0.1", port))
    r, w = os.pipe()
    with open(path, "rb") as f:
        left = os.fstat(f.fileno()).st_size // 2
        while left:
            left -= os.sendfile(s.fileno(), f.fileno(), None, min(left, 100000))
        while n := os.splice(f.fileno(), w, 50000):
            while n:
                n -= os.splice(r, s.fileno(), n)
    s.shutdown(socket.SHUT_WR)
    assert s.recv(1) == b""


def splice(what, source, target, count, **more):
    attempt(what, lambda: os.splice(source, target, count, **more))


def full(w):
    os.set_blocking(w, False)
    try:
        while True:
            os.write(w, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(w, True)


def empty(r):
    while select.select([r], [], [], 0)[0]:
        os.read(r, 65536)


def refused(s, files, r, w):
    """What no end of a splice is."""
    f, write_only, directory, null = files
    os.write(w, b"hello")
    splice("offset of the pipe", r, s, 5, offset_src=0)
    splice("offset of the connection", r, s, 5, offset_dst=0)
    splice("flags", r, s, 5, flags=64)
    splice("nothing", r, s, 0, flags=64)
    splice("from a file", f, s, 5)
    splice("to itself", s, s, 5)
    splice("to a file", s, f, 5)
    splice("offset of the connection, out of it", s, w, 5, offset_src=0)
    splice("offset of the pipe, out of it", s, w, 5, offset_dst=0)
    splice("the wrong end", w, s, 5)
    splice("the wrong end, out of it", s, r, 5)
    splice("no descriptor", 999, s, 5)
    splice("no descriptor, out of it", s, 999, 5)
    for what, n in (("a pipe", r), ("the connection", s), ("a directory", directory), ("an unreadable file", write_only), ("nothing", 999)):
        attempt(f"sendfile of {what}", lambda: os.sendfile(s, n, None, 5))
    attempt("sendfile with an offset of a pipe", lambda: os.sendfile(s, r, 0, 5))
    attempt("sendfile out of the connection to a file", lambda: os.sendfile(f, s, None, 5))
    attempt("sendfile out of the connection with an offset", lambda: os.sendfile(w, s, 0, 5))
    attempt("sendfile of no bytes", lambda: os.sendfile(s, f, None, 0))
    attempt("sendfile behind the end", lambda: os.sendfile(s, f, 100000, 5))
    attempt("sendfile ahead of the beginning", lambda: os.sendfile(s, f, -1, 5))
    splice("all there is", r, s, 100)
    splice("an empty pipe, without waiting", r, s, 100, flags=NONBLOCK)
    os.set_blocking(r, False)
    splice("an empty pipe that does not wait", r, s, 100)
    os.set_blocking(r, True)


def give(s, files, r, w):
    f, memory, zero = files[0], os.memfd_create("memory"), os.open("/dev/zero", os.O_RDONLY)
    os.write(memory, b"memory")
    attempt("sendfile of a file from", lambda: os.sendfile(s, f, 2, 6))
    attempt("sendfile of a file", lambda: os.sendfile(s, f, None, 4))
    attempt("where it is then", lambda: os.lseek(f, 0, os.SEEK_CUR))
    attempt("sendfile of a memfd", lambda: os.sendfile(s, memory, 0, 100))
    attempt("sendfile of a device", lambda: os.sendfile(s, zero, None, 3))
    os.write(w, b"to the connection")
    splice("a part", r, s, 6)
    splice("the rest", r, s, 100)


def take(s, r, w):
    while len(s.recv(1000, socket.MSG_PEEK)) < 36:
        pass
    splice("a part of it", s.fileno(), w, 10)
    attempt("which is", lambda: os.read(r, 100))
    attempt("sendfile to a pipe", lambda: os.sendfile(w, s.fileno(), None, 10))
    attempt("which is", lambda: os.read(r, 100))
    splice("all of it", s.fileno(), w, 1 << 20)
    attempt("which is", lambda: os.read(r, 1000))
    s.setblocking(False)
    splice("nothing there", s.fileno(), w, 10)
    s.setblocking(True)


def pipes_that_are_full(s, r, w):
    full(w)
    splice("into a full pipe, without waiting", s.fileno(), w, 10, flags=NONBLOCK)
    empty(r)
    splice("into an empty pipe, without waiting", s.fileno(), w, 100, flags=NONBLOCK)
    attempt("which is", lambda: os.read(r, 100))


def serve(s, files, r, w):
    refused(s.fileno(), files, r, w)
    s.sendall(b"!")
    give(s.fileno(), files, r, w)
    s.recv(1)
    s.sendall(b"for a full pipe")
    s.recv(1)
    s.shutdown(socket.SHUT_WR)
    os.write(w, b"x")
    splice("after shutdown", r, s.fileno(), 5)
    attempt("sendfile after shutdown", lambda: os.sendfile(s.fileno(), files[0], 0, 5))
    attempt("still there", lambda: os.read(r, 5))
    os.close(w)
    splice("a pipe that has ended", r, s.fileno(), 5)


def ask(s, files, r, w):
    s.recv(6, socket.MSG_WAITALL)
    take(s, r, w)
    s.sendall(b".")
    select.select([s], [], [])
    pipes_that_are_full(s, r, w)
    s.sendall(b".")
    splice("the end", s.fileno(), w, 5)
    os.close(r)
    s.close()


if role == "to":
    to(sys.argv[3])
    print("done", flush=True)
elif role == "from":
    source(sys.argv[3])
    print("done", flush=True)
else:
    directory = tempfile.mkdtemp()
    path = os.path.join(directory, "file")
    with open(path, "wb") as f:
        f.write(b"0123456789" * 10)
    files = (os.open(path, os.O_RDWR), os.open(path, os.O_WRONLY), os.open(directory, os.O_RDONLY), os.open("/dev/null", os.O_RDWR))
    os.unlink(path)
    os.rmdir(directory)
    s = socket.create_server(("127.0.0.1", port)).accept()[0] if role == "serve" else socket.create_connection(("127.0.0.1", port))
    {"serve": serve, "ask": ask}[role](s, files, *os.pipe())
