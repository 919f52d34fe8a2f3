"""late_daemon.py serve PORT: answers what comes by TCP and UDP. late_daemon.py WAY PORT COUNT FILE: connects first and becomes a daemon
then, as some do, and goes on with its connection and its bound socket; what it hears goes to FILE.

    single   fork, the parent exits, setsid
    double   fork, the parent exits, setsid, fork, the first child exits
    waits    the same, and the parent waits for a byte that the daemon sends before it goes on"""
import os
import select
import socket
import sys
import time


def heard(s):
    try:
        return s.recv(100)
    except ConnectionResetError:
        return b""


def serve(address):
    listener = socket.create_server(address)
    u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    u.bind(address)
    all = [listener, u]
    while True:
        for s in select.select(all, [], [])[0]:
            if s is listener:
                all.append(listener.accept()[0])
            elif s is u:
                text, peer = u.recvfrom(100)
                u.sendto(text, peer)
            elif text := heard(s):
                s.sendall(text)
            else:
                all.remove(s)
                s.close()


def into_background(way):
    r, w = os.pipe()
    if os.fork():
        if way == "waits":
            os.close(w)
            os.read(r, 1)
        os._exit(0)
    os.setsid()
    if way != "single" and os.fork():
        os._exit(0)
    os.chdir("/")
    for fd in range(3):
        os.close(fd)
        os.open("/dev/null", os.O_RDWR)
    return w


def main(way, address, count, path):
    s = socket.create_connection(address)
    u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    u.bind(("127.0.0.1", 0))
    e = select.epoll()
    e.register(s, select.EPOLLIN)
    out = open(path, "wb", buffering=0)

    def exchange(n):
        text = b"%d\n" % n
        s.sendall(text)
        u.sendto(text, address)
        assert e.poll() == [(s.fileno(), select.EPOLLIN)]
        assert s.recv(100) == text
        assert u.recvfrom(100) == (text, address)
        out.write(text)

    for n in range(20):
        exchange(n)
    s.sendall(b"20\n")  # its answer comes on the way, to whoever is there
    w = into_background(way)
    if way == "waits":
        os.write(w, b".")
    assert s.recv(100) == b"20\n"
    out.write(b"20\n")
    for n in range(21, count):
        exchange(n)
    out.write(b"done\n")
    time.sleep(600)


address = "127.0.0.1", int(sys.argv[2])
if sys.argv[1] == "serve":
    serve(address)
else:
    main(sys.argv[1], address, int(sys.argv[3]), sys.argv[4])
