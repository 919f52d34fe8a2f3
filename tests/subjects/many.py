"""many.py serve PORT | ask PORT CONNECTIONS ROUNDS: thousands of connections between one pair; each is asked in turn, and answers with
its own count."""
import resource
import selectors
import socket
import sys

role, port = sys.argv[1], int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
if role == "serve":
    listener = socket.create_server(("127.0.0.1", port), backlog=4096)
    watcher, counts = selectors.DefaultSelector(), {}
    watcher.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in watcher.select():
            if key.fileobj is listener:
                s, _ = listener.accept()
                watcher.register(s, selectors.EVENT_READ)
                counts[s] = 0
            elif text := key.fileobj.recv(100):
                counts[key.fileobj] += 1
                key.fileobj.sendall(b"%s %d\n" % (text.strip(), counts[key.fileobj]))
            else:
                watcher.unregister(key.fileobj)
                del counts[key.fileobj]
                key.fileobj.close()
connections = []
for n in range(int(sys.argv[3])):
    connections.append(socket.create_connection(("127.0.0.1", port)))
    if n == 0:
        print("begun", flush=True)
print("open", flush=True)
for r in range(1, int(sys.argv[4]) + 1):
    for first in range(0, len(connections), 100):
        some = list(enumerate(connections[first:first + 100], first))
        for n, s in some:
            s.sendall(b"%d\n" % n)
        for n, s in some:
            answer = s.recv(100)
            assert answer == b"%d %d\n" % (n, r), f"{n} in round {r}: {answer}"
print("done", flush=True)
