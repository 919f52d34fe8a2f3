"""A member of a token ring over UDP: ring.py SELF NEXT ROUNDS MEMBERS [FIRST]: passes the token on, one higher each time, and
stops when it has seen it ROUNDS times. FIRST: makes it. Prints the first and the last value."""
import socket
import sys
import time

me, following, rounds, members = map(int, sys.argv[1:5])
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("127.0.0.1", me))
time.sleep(1)  # the others have opened by then
if len(sys.argv) > 5:
    s.sendto(b"1", ("127.0.0.1", following))
token = None
for n in range(rounds):
    value = int(s.recv(100))
    assert token is None or value == token + members, f"{value} after {token}"
    if token is None:
        print("first", value, flush=True)
    token = value
    if n < rounds - 1 or len(sys.argv) == 5:  # who made it keeps it at the end
        s.sendto(b"%d" % (token + 1), ("127.0.0.1", following))
print("last", token, flush=True)
