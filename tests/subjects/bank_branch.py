"""A branch of a bank over UDP: bank_branch.py SELF TRANSFERS PORT...: moves money to the branches at the other ports, and
prints what it has when all of them are done. It knows of no losses: what is sent arrives, once, in order."""
import random
import select
import socket
import sys
import time

me, transfers, ports = int(sys.argv[1]), int(sys.argv[2]), [int(p) for p in sys.argv[3:]]
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("127.0.0.1", me))
others = [p for p in ports if p != me]
rng = random.Random(me)
balance, done, last = 1000, 0, {p: 0 for p in others}
time.sleep(1.5)  # the others have opened by then


def take(wait):
    global balance, done
    if not select.select([s], [], [], wait)[0]:
        return
    text, (host, port) = s.recvfrom(100)
    word, number, amount = text.decode().split()
    assert int(number) == last[port] + 1, f"{port} sent {text} after {last[port]}"
    last[port] += 1
    balance += int(amount)
    done += word == "done"


for n in range(1, transfers + 1):
    if n == 5:
        while 0 in last.values():
            take(None)
        print("open", flush=True)
    for p in others:
        amount = rng.randrange(balance // 8 + 1)
        balance -= amount
        s.sendto(f"move {n} {amount}".encode(), ("127.0.0.1", p))
        take(0)
    take(rng.choice((0, 0.001)))
for p in others:
    s.sendto(f"done {transfers + 1} 0".encode(), ("127.0.0.1", p))
while done < len(others):
    take(None)
print(balance, flush=True)
