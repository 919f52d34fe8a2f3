"""Answers any datagram with a count and both clocks, read through the vdso."""
import socket
import sys
import time

s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("127.0.0.1", int(sys.argv[1])))
count = 0
while True:
    message, client = s.recvfrom(2000)
    count += 1
    s.sendto(b"%s %d %f %f" % (message.split()[0], count, time.time(), time.monotonic()), client)
