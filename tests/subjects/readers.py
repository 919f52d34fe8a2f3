"""readers.py serve PORT | ask PORT READERS BYTES: each connection is sent as much; one does not read until all others have everything."""
import selectors
import socket
import sys

role, port = sys.argv[1], int(sys.argv[2])
pattern = bytes(range(251)) * 400
if role == "serve":
    listener, watcher = socket.create_server(("127.0.0.1", port), backlog=100), selectors.DefaultSelector()
    watcher.register(listener, selectors.EVENT_READ)
    while True:
        for key, _ in watcher.select():
            if key.fileobj is listener:
                s = listener.accept()[0]
                wanted = int(s.recv(100))
                s.setblocking(False)
                watcher.register(s, selectors.EVENT_WRITE, [wanted, 0])
                continue
            total, done = key.data
            try:
                at = done % len(pattern)
                key.data[1] += key.fileobj.send(memoryview(pattern)[at:at + min(65536, total - done)])
            except BlockingIOError:
                continue
            if key.data[1] == total:
                watcher.unregister(key.fileobj)
                key.fileobj.close()

total = int(sys.argv[4])
watcher, connections, got = selectors.DefaultSelector(), [], {}
for n in range(int(sys.argv[3])):
    s = socket.create_connection(("127.0.0.1", port))
    s.sendall(b"%d" % total)
    connections.append(s)
    got[s] = 0
    if n == 0:
        print("begun", flush=True)


def take(s):
    piece = s.recv(200000)
    at = got[s] % len(pattern)
    assert piece == (pattern * (len(piece) // len(pattern) + 2))[at:at + len(piece)], f"wrong bytes at {got[s]}"
    got[s] += len(piece)
    return piece


for s in connections[1:]:
    watcher.register(s, selectors.EVENT_READ)
while watcher.get_map():
    for key, _ in watcher.select():
        if not take(key.fileobj):
            watcher.unregister(key.fileobj)
print("others", set(list(got.values())[1:]) == {total}, got[connections[0]], flush=True)
sys.stdin.readline()
while take(connections[0]):
    pass
print("all", got[connections[0]] == total, flush=True)
