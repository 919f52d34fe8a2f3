"""teller.py [ADDRESS:]PORT WORD...: each WORD is a step: `hello` (asks until the collector answers), `wait:FILE` (until it exists), a number
range `FROM-TO` (a datagram for each), `tcp:TEXT` (a connection that says it), `tell` (prints what the
collector has), `end` (prints that), `exit:STATUS`."""
import os
import socket
import sys
import time

host, _, port = sys.argv[1].rpartition(":")
address = (host or "127.0.0.1", int(port))
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.connect(address)
for word in sys.argv[2:]:
    if word == "hello":
        s.send(b"hello")
        assert s.recv(100) == b"hi"
        print("met", flush=True)
    elif word.startswith("wait:"):
        while not os.path.exists(word[5:]):
            time.sleep(0.01)
    elif word.startswith("tcp:"):
        with socket.create_connection(address) as stream:
            stream.sendall(word[4:].encode())
    elif word.startswith("exit:"):
        sys.exit(int(word[5:]))
    elif word == "end":
        print("end", flush=True)
    elif word == "tell":
        s.send(b"tell")
        print(s.recv(65536).decode(), flush=True)
    else:
        first, last = map(int, word.split("-"))
        for n in range(first, last + 1):
            s.send(b"%d" % n)
