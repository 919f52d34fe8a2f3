"""gateway.py NUMBERS COLLECTOR COUNT: two systems that know nothing of each other, connected: takes numbers from number_server
(UDP) and hands them to a collector (UDP); asks it every now and then what it has."""
import socket
import sys

numbers, collector, count = (int(a) for a in sys.argv[1:])
left = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
right = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
handed = []
for n in range(count):
    left.sendto(b"gate-%d" % n, ("127.0.0.1", numbers))
    number, word, echo = left.recv(200).split()
    assert echo == b"gate-%d" % n, echo
    handed.append(number)
    right.sendto(number, ("127.0.0.1", collector))
    if n % 20 == 0:
        right.sendto(b"tell", ("127.0.0.1", collector))
        assert right.recv(65536) == b",".join(handed), "the collector has something else"
        print(len(handed), flush=True)
right.sendto(b"tell", ("127.0.0.1", collector))
print(right.recv(65536).decode(), flush=True)
