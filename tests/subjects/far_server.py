"""Take a number, for clients anywhere: each request is answered with itself and a number, over UDP or TCP.

    far_server.py udp|info|tcp|once ADDRESS PORT

`info`: over UDP; it learns from each datagram at which interface it came, and answers through that.

`once`: over TCP, for one client; the listener is closed when that is there.
"""
import select
import socket
import sys

kind, address, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
number, family = 0, socket.AF_INET6 if ":" in address else socket.AF_INET


def answer(request):
    global number
    number += 1
    return b"%s %d\n" % (request.strip(), number)


if kind == "udp":
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.bind((address, port))
    while True:
        request, client = s.recvfrom(2000)
        s.sendto(answer(request), client)

if kind == "info":
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
    s.bind((address, port))
    while True:
        request, told, _, client = s.recvmsg(2000, 1000)
        (_, _, info), = told
        if not any(info[16:20]):
            sys.exit(f"a datagram of {client} came at {info}")
        s.sendmsg([answer(request)], [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, info)], 0, client)

listener = socket.socket(family)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind((address, port))
listener.listen(16)
clients = {}
if kind == "once":
    clients[listener.accept()[0]] = b""
    listener.close()
while clients or kind != "once":
    ready, _, _ = select.select(([] if kind == "once" else [listener]) + list(clients), [], [])
    for s in ready:
        if s is listener:
            c, _ = s.accept()
            clients[c] = b""
            continue
        data = s.recv(2000)
        if not data:
            del clients[s]
            s.close()
            continue
        *requests, clients[s] = (clients[s] + data).split(b"\n")
        for request in requests:
            s.sendall(answer(request))
