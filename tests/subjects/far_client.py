"""Takes numbers from far_server.py and prints each answer; no time-out, no repetition: it trusts the network.

    far_client.py udp|tcp ADDRESS PORT COUNT NAME
"""
import socket
import sys

kind, address, port, count, name = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
if kind == "udp":
    family, _, _, _, server = socket.getaddrinfo(address, port, type=socket.SOCK_DGRAM)[0]
    s = socket.socket(family, socket.SOCK_DGRAM)
else:
    s = socket.create_connection((address, port))
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
