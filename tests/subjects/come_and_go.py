"""come_and_go.py serve PORT | ask PORT AT_ONCE ROUNDS: thousands of connections between one pair, each for one question. They end in all
ways: closed by the one or the other side first, half first, by a reset."""
import socket
import struct
import sys

role, port = sys.argv[1], int(sys.argv[2])
if role == "serve":
    listener = socket.create_server(("127.0.0.1", port), backlog=1000)
    while True:
        s = listener.accept()[0]
        question = s.recv(100)
        s.sendall(question + b"!")
        try:
            if int(question) % 2:
                s.recv(1)
        except ConnectionResetError:
            pass
        s.close()
for r in range(int(sys.argv[4])):
    connections = [socket.create_connection(("127.0.0.1", port)) for _ in range(int(sys.argv[3]))]
    for n, s in enumerate(connections):
        s.sendall(b"%d" % n)
    for n, s in enumerate(connections):
        answer = s.recv(100)
        assert answer == b"%d!" % n, (n, answer)
        if n % 2 and n % 5:
            s.shutdown(socket.SHUT_WR)
            assert s.recv(100) == b""
        if n % 3 == 0:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        s.close()
    print(r, flush=True)
print("done", flush=True)
