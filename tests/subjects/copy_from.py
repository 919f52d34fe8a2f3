"""Sends what SEED makes, MEGABYTES of it, over TCP to 127.0.0.1:PORT, then waits for the checksum that comes back."""
import hashlib
import random
import socket
import sys

port, megabytes, seed = map(int, sys.argv[1:])
rng, sent = random.Random(seed), hashlib.sha256()
s = socket.create_connection(("127.0.0.1", port))
for _ in range(megabytes * 16):
    piece = rng.randbytes(65536)
    sent.update(piece)
    s.sendall(piece)
s.shutdown(socket.SHUT_WR)
got = b""
while True:
    piece = s.recv(100)
    if not piece:
        break
    got += piece
print("same" if got.decode() == sent.hexdigest() else f"{got} is not {sent.hexdigest()}", flush=True)
