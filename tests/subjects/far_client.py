"""Takes numbers from far_server.py and prints each answer; no time-out, no repetition: it trusts the network.

    far_client.py udp|tcp|select ADDRESS PORT COUNT NAME

`select`: over TCP; the connection is made by an event loop, which says `on its way` and does not wait for it.
"""
import errno
import select
import socket
import sys

kind, address, port, count, name = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
if kind == "udp":
    family, _, _, _, server = socket.getaddrinfo(address, port, type=socket.SOCK_DGRAM)[0]
    s = socket.socket(family, socket.SOCK_DGRAM)
else:
    if kind == "tcp":
        s = socket.create_connection((address, port))
    else:
        s = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        s.setblocking(False)
        error = s.connect_ex((address, port))
        print({errno.EINPROGRESS: "on its way"}.get(error, errno.errorcode.get(error)), flush=True)
        loop = select.epoll()
        loop.register(s, select.EPOLLOUT)
        while not loop.poll(0.05):
            pass
        error = s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            sys.exit(errno.errorcode[error])
        s.setblocking(True)
    answers = s.makefile("rb")
for i in range(count):
    request = f"{name}-{i}"
    if kind == "udp":
        s.sendto(request.encode(), server)
        answer = s.recv(2000)
    else:
        s.sendall(request.encode() + b"\n")
        answer = answers.readline()
    asked, number = answer.decode().split()
    if asked != request:
        sys.exit(f"asked {request}, answered {answer}")
    print(number, flush=True)
print("done", flush=True)
