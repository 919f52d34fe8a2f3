"""mixed.py serve|ask COUNT PORT...: one sequence of numbers, each over a socket that comes by: to every port a connection and datagrams.
What one process sends to another first can be read first, whichever sockets carry it: so when a number was read, all before it
can be. `serve` finds out whether it is so."""
import random
import select
import socket
import sys

role, count, addresses = sys.argv[1], int(sys.argv[2]), [("127.0.0.1", int(port)) for port in sys.argv[3:]]


def sweep(sockets):
    """All that can be read at this moment."""
    found = set()
    for s in sockets:
        try:
            while True:
                data = s.recv(4096)
                found.update(int.from_bytes(data[at:at + 4], "big") for at in range(0, len(data), 4))
                if not data:
                    break
        except BlockingIOError:
            pass
    return found


def serve():
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in addresses]
    for s, address in zip(sockets, addresses):
        s.bind(address)
    listeners = [socket.create_server(address) for address in addresses]
    sockets += [listener.accept()[0] for listener in listeners]
    for s in sockets:
        s.setblocking(False)
    print("met", flush=True)
    last, got = 0, set()
    while last < count:
        select.select(sockets, [], [])
        random.shuffle(sockets)
        got |= sweep(sockets)
        highest = max(got, default=last)
        got |= sweep(sockets)
        missing = set(range(last + 1, highest + 1)) - got
        if missing:
            sys.exit(f"{highest} could be read before {min(missing)}")
        last = highest
        got = {n for n in got if n > last}
    print("all", flush=True)


def ask():
    connections = [socket.create_connection(address) for address in addresses]
    u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    rng = random.Random(1)
    for n in range(1, count + 1):
        data, way = n.to_bytes(4, "big"), rng.randrange(len(addresses))
        if rng.random() < 0.5:
            connections[way].sendall(data)
        else:
            u.sendto(data, addresses[way])
        if n % 50 == 0:
            print(n, flush=True)


serve() if role == "serve" else ask()
