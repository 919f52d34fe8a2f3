"""Takes connections on 127.0.0.1:PORT one after the other, says so, reads each to its end, and answers with the checksum."""
import hashlib
import random
import socket
import sys

listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
rng = random.Random(1)
while True:
    s, _ = listener.accept()
    print("taken", flush=True)
    got = hashlib.sha256()
    while True:
        piece = s.recv(rng.choice((1000, 70000, 300000)))
        if not piece:
            break
        got.update(piece)
    s.sendall(got.hexdigest().encode())
    s.close()
