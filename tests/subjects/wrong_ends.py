"""wrong_ends.py DIRECTORY: writes where one can only read, and reads where one can only write, alone and with a second thread; says
what comes of it."""
import os
import select
import sys
import threading

os.chdir(sys.argv[1])
over = threading.Event()


def attempt(name, function):
    try:
        print(name, function())
    except OSError as error:
        print(name, error.errno)


def all_of_them():
    r, w = os.pipe()
    r2, w2 = os.pipe()
    if not os.path.exists("fifo"):
        os.mkfifo("fifo")
    a = os.open("fifo", os.O_RDONLY | os.O_NONBLOCK)
    b = os.open("fifo", os.O_WRONLY)
    os.set_blocking(a, True)
    written, readable = os.open("file", os.O_WRONLY | os.O_CREAT), os.open(sys.argv[0], os.O_RDONLY)
    attempt("write to a pipe's other end", lambda: os.write(r, b"x"))
    attempt("writev", lambda: os.writev(r, [b"x", b"y"]))
    attempt("much", lambda: os.write(r, b"x" * 100000))
    attempt("sendfile", lambda: os.sendfile(r, readable, 0, 10))
    attempt("splice", lambda: os.splice(r2, r, 1))
    attempt("splice from one", lambda: os.splice(w2, w, 1))
    attempt("read from one", lambda: os.read(w, 1))
    attempt("readv", lambda: os.readv(w, [bytearray(1)]))
    attempt("write to a FIFO's other end", lambda: os.write(a, b"x"))
    attempt("read from one", lambda: os.read(b, 1))
    attempt("write to a file", lambda: os.write(readable, b"x"))
    attempt("read from one", lambda: os.read(written, 1))
    attempt("read from an epoll instance", lambda: os.read(select.epoll().fileno(), 8))


all_of_them()
threading.Thread(target=over.wait).start()
all_of_them()
over.set()
