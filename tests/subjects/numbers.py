"""numbers.py PORT: a counter over UDP: `take` is answered by the next number."""
import socket
import sys

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("127.0.0.1", int(sys.argv[1])))
count = 0
while True:
    text, sender = s.recvfrom(100)
    assert text == b"take", text
    count += 1
    s.sendto(b"%d" % count, sender)
