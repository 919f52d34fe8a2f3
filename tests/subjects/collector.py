"""collector.py [ADDRESS:]PORT: takes datagrams on 127.0.0.1:PORT and keeps them; answers `hello` with `hi`, and `tell` with all that it
has. Connections are read to their end, one after the other, and kept as one text each."""
import select
import socket
import sys

host, _, port = sys.argv[1].rpartition(":")
address, kept, reading = (host or "127.0.0.1", int(port)), [], {}
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(address)
listener = socket.create_server(address)
while True:
    for ready in select.select([s, listener] + list(reading), [], [])[0]:
        if ready is listener:
            reading[listener.accept()[0]] = b""
        elif ready is s:
            text, sender = s.recvfrom(65536)
            if text in (b"hello", b"tell"):
                s.sendto(b"hi" if text == b"hello" else ",".join(kept).encode(), sender)
            else:
                kept.append(text.decode())
        elif piece := ready.recv(65536):
            reading[ready] += piece
        else:
            kept.append(f"[{reading.pop(ready).decode()}]")
            ready.close()
