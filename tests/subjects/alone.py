"""alone.py PORT: what one program does with sockets of its own, and with several at one port. With libken the same as without."""
import os
import select
import socket
import sys

from answers import attempt, show

port = int(sys.argv[1])


def exchange(what, a, b):
    a.sendall(b"there")
    b.sendall(b"and back")
    show(what, (b.recv(100), a.recv(100), a.getpeername()[1] == b.getsockname()[1]))


# one that listens and calls itself
listener = socket.create_server(("127.0.0.1", port))
s = socket.create_connection(("127.0.0.1", port))
accepted, address = listener.accept()
show("its own", address == s.getsockname())
exchange("a call to itself", s, accepted)
s.shutdown(socket.SHUT_WR)
show("half-closed", (accepted.recv(9), accepted.send(b"x"), s.recv(9)))
for x in (s, accepted, listener):
    x.close()
attempt("nobody", lambda: socket.create_connection(("127.0.0.1", port)))

# IPv4 at an IPv6 socket
listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
for host in ("127.0.0.1", "::1"):
    s = socket.create_connection((host, port))
    accepted, address = listener.accept()
    show("from", (address[0], accepted.getsockname()[0], s.getpeername()[0]))
    exchange(host, s, accepted)
    s.close()
    accepted.close()
listener.close()

# several at one port
two = [socket.create_server(("127.0.0.1", port), reuse_port=True) for _ in range(2)]
attempt("a third, without the option", lambda: socket.socket().bind(("127.0.0.1", port)))
for n in range(8):
    s = socket.create_connection(("127.0.0.1", port))
    ready = select.select(two, [], [], 5)[0]
    accepted = ready[0].accept()[0]
    exchange("either", s, accepted)
u = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(3)]
for x in u[:2]:
    x.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    x.bind(("127.0.0.1", port))
for n in range(8):
    u[2].sendto(b"%d" % n, ("127.0.0.1", port))
    ready = select.select(u[:2], [], [], 5)[0]
    show("one of them", (len(ready), ready[0].recv(9)))
u[0].sendto(b"to itself", u[0].getsockname())
ready = select.select(u[:2], [], [], 5)[0]
show("to itself", ready[0].recv(99))
os._exit(0)
