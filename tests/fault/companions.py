"""Workloads of two programs under libken that talk to each other; one of them is the one that dies, or whose calls fail."""
import os
import subprocess
import time

import mortal  # knows where the next one is
import hosts
from erring import Erring, Told
from harness import PYTHON, Program, check, free_port, subject
from mortal import Mortal


def converse(t, p, ours, server_argv, client_argv, port, table, right, within=None, late=0):
    """A server and a client under libken; one of them is the one whose calls fail. The server may come late: seconds."""
    path = os.path.join(t.dir, "answers")
    place = os.path.join(t.dir, "other")
    os.makedirs(place)
    other = Mortal(t, [])
    other.cwd, other.store = place, os.path.join(place, "store")
    other.env["KEN_STORE"] = other.store
    t.programs.append(other)
    server, client = (p, other) if ours == "server" else (other, p)
    server.argv, client.argv = server_argv, client_argv
    client.stdout, client.final = os.open(path, os.O_CREAT | os.O_WRONLY), 0
    t.at_end(lambda: os.close(client.stdout))
    if within:
        within(server, client)
    if late:
        client.start()
        time.sleep(late)
    server.start()
    await_port(server, port, table)
    if not late:
        client.start()
    deadline = time.monotonic() + mortal.PATIENCE
    while client.ended is None:
        p.judge()
        other.judge()
        check(time.monotonic() < deadline, f"no progress: {client.tail()}; {server.tail()}")
        time.sleep(0.002)
    if ours == "server" and server.starts > 1 and "Connection refused" in client.stderr():
        return  # it came just between two incarnations
    if client.ended and ours == "server":  # perhaps because the server was told, and left
        await_judgement(p)
    check(client.ended == 0, f"the client ended with {client.ended}: {client.tail()}")
    with open(path) as f:
        lines = f.read().splitlines()
    check(lines == right, f"{len(lines)} lines, the last is {lines[-1:]}")


def talk(kind, count, ours):
    def run(t, p):
        port = free_port()
        converse(t, p, ours, [subject(f"{kind}_server"), str(port)], [subject(f"{kind}_client"), str(port), str(count), "c"], port,
                 "udp" if kind == "number" else "tcp", [f"{n} {n + 1}" for n in range(count)] + ["done"])
    return run


def far(kind, count, ours, table=None, address="10.77.0.2", peers="10.77.0.0/24", host=0, late=0):
    """They are on two hosts, or on one that calls itself by its outer address. `once`: the server's listener is closed when its
    client is there, so they find each other again at their doors."""
    table = table or kind
    def run(t, p):
        two, key = hosts.Hosts(t), hosts.make_key(t)

        def within(server, client):
            for program, where in ((server, 1), (client, host)):
                program.env.update(KEN_PEERS=peers, KEN_KEY_FILE=key)
                program.start = lambda start=program.start, where=where: two.within(where, start)
        converse(t, p, ours, [PYTHON, subject("far_server.py"), kind, "::" if ":" in address else "0.0.0.0", "7001"],
                 [PYTHON, subject("far_client.py"), table, address, "7001", str(count), "c"], 7001, table + "6" * (":" in address),
                 [str(n + 1) for n in range(count)] + ["done"], within, late)
    run.needs = hosts.Hosts
    return run


def await_judgement(p):
    deadline = time.monotonic() + 1
    while isinstance(p, Erring) and time.monotonic() < deadline and p.ended is None:
        p.judge()
        if p.did_fail() and p.own_words():  # it lingers, for a peer that is gone
            p.outcome = "told"
            raise Told(p.tail())
        time.sleep(0.01)


def await_port(p, port, table):
    deadline = time.monotonic() + mortal.PATIENCE
    while not mortal.has_open(p, port, table):
        p.judge()
        check(time.monotonic() < deadline, f"the server's port does not open: {p.tail()}")
        time.sleep(0.002)


FORK_CLIENT = """
import socket, sys
for n in range(4):
    s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    f = s.makefile("rwb")
    for k in range(1, 4):
        f.write(b"sum %d\\n" % k)
        f.flush()
        assert f.readline() == b"%d\\n" % (k * (k + 1) // 2)
    f.write(b"send 100000\\n")
    f.flush()
    assert f.read(100000) == b"x" * 100000
    print(n, flush=True)
"""


def until_it_ends(p, client):
    """The client of p, which may die meanwhile."""
    deadline = time.monotonic() + mortal.PATIENCE
    while client.process.poll() is None:
        p.judge()
        check(time.monotonic() < deadline, f"no progress: {client.tail()}; {p.tail()}")
        time.sleep(0.002)


def forking(t, p, *way):
    """A server that forks for each connection; its client is under libken as well. A server that was killed has reset what its
    children had, so none is killed here but by the error."""
    port = free_port()
    p.argv = [PYTHON, subject("forking.py"), str(port), *way]
    p.start()
    await_port(p, port, "tcp")
    client = Program([PYTHON, "-c", FORK_CLIENT, str(port)], os.path.join(t.dir, "client"), t.dir, stdout=subprocess.PIPE)
    client.expected_messages.append("a peer began anew with a fresh store")  # one that ended before its first commit
    t.programs.append(client)
    client.start()
    until_it_ends(p, client)
    time.sleep(0.05)
    p.judge()
    text = client.process.stdout.read().decode().split()
    client.wait_gone()
    if p.starts > 1 and any(word in client.stderr() for word in ("Refused", "Reset", "reset", "BrokenPipe", "assert")):
        return
    if p.did_fail() and p.own_words():  # its fork was refused, and it says so
        p.outcome = "told"
        raise Told(p.tail())
    check(text == list("0123"), f"the client has {text}: {client.tail()}")


LENT_CLIENT = """
import socket, sys, time
broken = 0
for n in range(5):
    while True:
        try:
            with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as s:
                f = s.makefile("rwb")
                for k in range(1, 5):
                    f.write(b"sum %d\\n" % k)
                    f.flush()
                    answer = f.readline()
                    if not answer:
                        raise ConnectionResetError
                    assert answer == b"%d\\n" % (k * (k + 1) // 2), answer
                f.write(b"send 70000\\n")
                f.flush()
                if len(f.read(70000)) < 70000:
                    raise ConnectionResetError
            break
        except (ConnectionResetError, BrokenPipeError):
            broken += 1
        except ConnectionRefusedError:  # not yet met, and just down
            time.sleep(0.02)
    print(n, flush=True)
print("broken", broken, flush=True)
"""


def workers(t, p):
    forking(t, p, "workers")


def lending(*way):
    """A server whose children answer. It dies, and what they had is reset: a connection for each death, and no other. Its client,
    also under libken, asks again."""
    def run(t, p):
        port = free_port()
        p.argv = [PYTHON, subject("forking.py"), str(port), *way]
        p.start()
        await_port(p, port, "tcp")
        client = Program([PYTHON, "-c", LENT_CLIENT, str(port)], os.path.join(t.dir, "client"), t.dir, stdout=subprocess.PIPE)
        t.programs.append(client)
        client.expected_messages.append("a peer began anew with a fresh store")  # it died before its first commit
        client.start()
        until_it_ends(p, client)
        p.judge()
        *served, word, broken = client.process.stdout.read().decode().split() or ["", "none"]
        client.wait_gone()
        check(served == list("01234") and word == "broken", f"the client has {served}: {client.tail()}")
        check(int(broken) <= p.starts - 1, f"{broken} connections were broken by {p.starts - 1} deaths")
    return run
