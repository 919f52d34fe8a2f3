"""A branch of a bank with branches on other hosts; each moves money to all others and prints what it has in the end.

    far_bank.py udp|tcp TRANSFERS ME OTHER...      ME and OTHER: ADDRESS,PORT

It knows of no losses: what is sent arrives, once, in order.
"""
import os
import random
import select
import socket
import sys
import time

kind, transfers = sys.argv[1], int(sys.argv[2])
me, *others = [(a, int(p)) for a, p in (word.split(",") for word in sys.argv[3:])]
family = socket.AF_INET6 if ":" in me[0] else socket.AF_INET
rng = random.Random(str(me))
balance, done, last = 1000, 0, {o: 0 for o in others}


def take(text, other):
    global balance, done
    word, number, amount = text.decode().split()
    assert int(number) == last[other] + 1, f"{other} sent {text} after {last[other]}"
    last[other] += 1
    balance += int(amount)
    done += word == "done"


class Datagrams:
    def __init__(self):
        self.s = socket.socket(family, socket.SOCK_DGRAM)
        self.s.bind(me)
        time.sleep(1.5)  # the others have opened by then

    def send(self, other, text):
        self.s.sendto(text.encode(), other)

    def hear(self, wait):
        if select.select([self.s], [], [], wait)[0]:
            text, source = self.s.recvfrom(100)
            take(text, source[:2])


class Streams:
    """Of each pair, the lesser one connects and says who it is."""

    def __init__(self):
        self.listener = listener = socket.socket(family)  # stays open: peers come back here after a crash
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(me)
        listener.listen(16)
        time.sleep(1.5)
        self.streams = {}
        for other in others:
            if me < other:
                self.streams[other] = s = socket.create_connection(other)
                s.sendall(f"{me[0]},{me[1]}\n".encode())
        for _ in [other for other in others if other < me]:
            s, _ = listener.accept()
            name = b""
            while not name.endswith(b"\n"):
                name += s.recv(1)
            address, port = name.decode().strip().split(",")
            self.streams[address, int(port)] = s
        self.rest = {other: b"" for other in others}

    def send(self, other, text):
        self.streams[other].sendall(text.encode() + b"\n")

    def hear(self, wait):
        for s in select.select(list(self.streams.values()), [], [], wait)[0]:
            other = next(o for o, stream in self.streams.items() if stream is s)
            *lines, self.rest[other] = (self.rest[other] + s.recv(4000)).split(b"\n")
            for line in lines:
                take(line, other)


net = Datagrams() if kind == "udp" else Streams()
for n in range(1, transfers + 1):
    if n == 5:
        while 0 in last.values():
            net.hear(None)
        print("open", flush=True)  # everybody knows everybody
    for other in others:
        amount = rng.randrange(balance // 8 + 1)
        balance -= amount
        net.send(other, f"move {n} {amount}")
        net.hear(0)
    net.hear(rng.choice((0, 0.005)))
for other in others:
    net.send(other, f"done {transfers + 1} 0")
while done < len(others):
    net.hear(None)
print(balance, flush=True)
os._exit(0)  # with all sockets open
