"""A branch of a bank over TCP: bank_tcp.py SELF TRANSFERS PORT...: one connection to each other branch, money in both directions.
Prints what it has when all are done. It knows of no losses."""
import random
import selectors
import socket
import sys
import time

me, transfers, ports = int(sys.argv[1]), int(sys.argv[2]), sorted(int(p) for p in sys.argv[3:])
listener = socket.create_server(("127.0.0.1", me))
rng, balance, over, last, rest = random.Random(me), 1000, set(), {}, {}
watcher, branch = selectors.DefaultSelector(), {}


def connect(port):
    s = socket.create_connection(("127.0.0.1", port))
    s.sendall(b"%d\n" % me)
    return s


def enter(port, s):
    branch[port], last[port], rest[port] = s, 0, b""
    watcher.register(s, selectors.EVENT_READ, port)


time.sleep(1.5)  # the others listen by then
for p in ports:  # the one with the lower number listens
    if p < me:
        enter(p, connect(p))
for p in ports:
    if p > me:
        s, _ = listener.accept()
        enter(int(s.makefile("rb", buffering=0).readline()), s)


def take(wait):
    global balance
    for key, _ in watcher.select(wait):
        piece = key.fileobj.recv(1000)
        if not piece:
            assert key.data in over, f"{key.data} hung up"
            watcher.unregister(key.fileobj)
            continue
        *lines, rest[key.data] = (rest[key.data] + piece).split(b"\n")
        for line in lines:
            word, number, amount = line.decode().split()
            assert int(number) == last[key.data] + 1, f"{key.data} sent {line} after {last[key.data]}"
            last[key.data] += 1
            balance += int(amount)
            if word == "done":
                over.add(key.data)


for n in range(1, transfers + 1):
    if n == 5:
        while 0 in last.values():
            take(None)
        print("open", flush=True)
    for p, s in branch.items():
        amount = rng.randrange(balance // 8 + 1)
        balance -= amount
        s.sendall(f"move {n} {amount}\n".encode())
        take(0)
    take(rng.choice((0, 0.001)))
for s in branch.values():
    s.sendall(f"done {transfers + 1} 0\n".encode())
while len(over) < len(branch):
    take(None)
print(balance, flush=True)
