#!/usr/bin/python3
"""Programs under libken that talk to each other: whatever is killed, messages arrive once and in order."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import *
from pairs import *


def take_numbers(t, clients, count, kills, longest=0.05, kind="number", **kw):
    port = free_port()
    server = t.program([subject(f"{kind}_server"), str(port)], **kw)
    wait_until(lambda: is_open(port, "udp" if kind == "number" else "tcp"), "the server's port")
    outputs = [Output(t, f"client{i}", [subject(f"{kind}_client"), str(port), str(count), f"c{i}"], **kw)
               for i in range(clients)]
    for o in outputs:  # who was down at the first contact would be taken for a plain process
        wait_until(o.lines, "the first answer")
    kill_until(t, outputs, [server], kills, longest)
    numbers = []
    for o in outputs:
        lines = o.lines()
        check(lines[-1] == "done" and len(lines) == count + 1, f"{len(lines)} lines, the last is {lines[-1:]}")
        numbers += [int(line.split()[1]) for line in lines[:-1]]
    check(sorted(numbers) == list(range(1, clients * count + 1)), "a number is missing or was given twice")
    server.stop()


@case
def a_name_comes_before_its_port(t):
    """Who finds the port bound finds that it is a peer's: at no moment it looks like a plain process's."""
    bare = 0
    for _ in range(24):
        port = free_port()
        program = t.program([subject("udp_counter"), str(port)])
        deadline = time.monotonic() + PATIENCE
        while not is_open(port):
            check(time.monotonic() < deadline, f"the port is never bound: {program.tail()}")
        with open("/proc/net/unix") as f:
            bare += not re.search(rf"@ken/udp/.*:{port}$", f.read(), re.M)
        program.stop()
    check(not bare, f"{bare} of 24 were found without their name")


@case(limit=120)
def take_a_number(t):
    """Server and client are killed with requests in flight: each answer comes once, and no number is lost."""
    take_numbers(t, 1, 2500, KILLS * 4)


@case(limit=120)
def take_a_number_three_clients(t):
    take_numbers(t, 3, 700, KILLS * 4)


@case(limit=120)
def take_a_number_process_sync(t):
    take_numbers(t, 1, 4000, KILLS * 2, env={"KEN_SYNC": "process"})


@case
def take_a_number_unharmed(t):
    take_numbers(t, 2, 500, 0)


@case(limit=120)
def bank_over_udp(t):
    """Five branches move money; the total is conserved, whatever is killed."""
    ports = [free_port() for _ in range(5)]
    outputs = [Output(t, f"branch{p}", [PYTHON, subject("bank_branch.py"), str(p), "1500"] + [str(p) for p in ports])
               for p in ports]
    for o in outputs:
        wait_until(o.lines, "the first transfers")
    kill_until(t, outputs, [], KILLS * 3, 0.1, 100)
    total = sum(int(o.lines()[1]) for o in outputs)
    check(total == 5000, f"the total is {total}, it was 5000")


@case
def streams_unharmed(t):
    take_numbers(t, 2, 500, 0, kind="stream")


@case(limit=120)
def take_a_number_over_tcp(t):
    take_numbers(t, 1, 2500, KILLS * 4, kind="stream")


@case(limit=120)
def take_a_number_over_tcp_four_clients(t):
    take_numbers(t, 4, 600, KILLS * 4, kind="stream")


def copy(t, megabytes, kills, longest):
    port = free_port()
    server = Output(t, "server", [PYTHON, subject("copy_to.py"), str(port)])
    wait_until(lambda: is_open(port, "tcp"), "the server's port")
    o = Output(t, "copy", [PYTHON, subject("copy_from.py"), str(port), str(megabytes), str(t.random.randrange(1000))])
    wait_until(server.lines, "the connection")
    started = time.monotonic()
    kill_until(t, [o], [server.program], kills, longest, 100)
    t.note(f"{megabytes / (time.monotonic() - started):.0f} MB/s")
    check(o.lines() == ["same"], f"the copy: {o.lines()}")
    server.program.stop()


@case
def copy_unharmed(t):
    copy(t, 20, 0, 0.1)


@case(limit=120)
def copy_over_tcp(t):
    """A file copy over TCP, both sides killed: every byte arrives once."""
    copy(t, 100, KILLS, 0.1)


@case(limit=120)
def redis_pair(t):
    """redis-cli counts in a redis-server, both killed: the numbers come in order, and no client sees an error."""
    port, count = free_port(), 4000
    server = t.program([need("redis-server"), "--port", str(port), "--save", "", "--appendonly", "no"])
    wait_until(lambda: is_open(port, "tcp"), "redis")
    cli = [need("redis-cli"), "-p", str(port), "-r", str(count), "incr", "n"]
    outputs = [Output(t, "cli", cli)]
    wait_until(outputs[0].lines, "the first answer")
    kill_until(t, outputs, [server], KILLS * 2, 0.1)
    check(outputs[0].lines() == [str(n) for n in range(1, count + 1)], f"the end is {outputs[0].lines()[-3:]}")
    server.stop()


@case(limit=120)
def http_pair(t):
    """python3's urllib fetches files from python3's http.server; the server is killed all the time."""
    port = free_port()
    with open(os.path.join(t.dir, "data"), "wb") as f:
        f.write(t.random.randbytes(300000))
    server = t.program([PYTHON, "-m", "http.server", "--bind", "127.0.0.1", "--directory", t.dir, str(port)])
    wait_until(lambda: is_open(port, "tcp"), "the server's port")
    script = ("import hashlib, urllib.request\nfor i in range(120):\n"
              f" d = urllib.request.urlopen('http://127.0.0.1:{port}/data').read()\n"
              " print(hashlib.sha256(d).hexdigest(), flush=True)\nprint('done')")
    o = Output(t, "fetch", [PYTHON, "-c", script])
    server.expected_messages.append("")
    wait_until(o.lines, "the first file")
    kill_until(t, [o], [server], KILLS, 0.2)
    digests = set(o.lines()[:-1])
    check(len(digests) == 1 and len(o.lines()) == 121, f"{len(digests)} different contents, {len(o.lines())} lines")
    server.stop()


@case(limit=120)
def relay_chain(t):
    """A file goes through two relays; all four programs are killed."""
    ports = [free_port() for _ in range(3)]
    last = Output(t, "last", [PYTHON, subject("copy_to.py"), str(ports[0])])
    servers = [last.program] + [t.program([PYTHON, subject("proxy.py"), str(here), str(there)]) for here, there in zip(ports[1:], ports)]
    for p in ports:
        wait_until(lambda: is_open(p, "tcp"), "a port")
    outputs = [Output(t, f"copy{i}", [PYTHON, subject("copy_from.py"), str(ports[2]), "40", str(i)]) for i in range(1)]
    wait_until(last.lines, "the connection")  # each has met its neighbours
    kill_until(t, outputs, servers, KILLS * 2, 0.15, 100)
    for o in outputs:
        check(o.lines() == ["same"], f"the copy: {o.lines()}")
    for p in servers:
        p.stop()


@case(limit=120)
def asyncio_pair(t):
    port = free_port()
    server = t.program([PYTHON, subject("async_pair.py"), "serve", str(port)])
    wait_until(lambda: is_open(port, "tcp"), "the server's port")
    o = Output(t, "ask", [PYTHON, subject("async_pair.py"), "ask", str(port), "120"])
    wait_until(o.lines, "the first answers")
    kill_until(t, [o], [server], KILLS, 0.1)
    check(o.lines() == ["begun", "whole 2402"], f"it says {o.lines()}")
    server.stop()


@case(limit=120)
def one_order_for_all_sockets(t):
    """What one process sends to another, by connections and datagrams as it comes, can be read in the order in which it was sent."""
    ports, count = [free_port() for _ in range(3)], str(200000 if LONG else 30000)
    words = [count] + [str(port) for port in ports]
    server = Output(t, "server", [PYTHON, subject("mixed.py"), "serve", *words])
    wait_until(lambda: all(is_open(port, "tcp") for port in ports), "the server's ports")
    o = Output(t, "ask", [PYTHON, subject("mixed.py"), "ask", *words])
    wait_until(server.lines, "the connections")
    kill_until(t, [o, server], [], KILLS, 0.1, 100)
    check(server.lines() == ["met", "all"], f"it says {server.lines()} {server.program.tail()}")


@case
def a_peer_that_began_anew(t):
    """It was replaced by one with a fresh store: connections with the former run read as reset, with a line; new ones work."""
    port = free_port()
    server = t.program([PYTHON, subject("many.py"), "serve", str(port)])
    wait_until(lambda: is_open(port, "tcp"), "the server's port")
    script = ("import socket, select\na = ('127.0.0.1', PORT)\ns = socket.create_connection(a)\ns.sendall(b'x\\n')\ns.recv(100)\n"
              "print('open', flush=True)\nselect.select([s], [], [])\ntry:\n print(s.recv(10), flush=True)\n"
              "except ConnectionResetError: print('reset', flush=True)\ns = socket.create_connection(a)\ns.sendall(b'x\\n')\n"
              "print(bool(s.recv(100)), flush=True)\n")
    o = Output(t, "client", [PYTHON, "-c", script.replace("PORT", str(port))])
    o.program.expected_messages.append("a peer began anew with a fresh store")
    wait_until(o.lines, "the first answer")
    server.kill9()
    shutil.rmtree(server.store)
    server.restart()
    wait_until(o.ended, f"the end: {o.lines()}")
    o.finish()
    check(o.lines() == ["open", "reset", "True"], f"it says {o.lines()}")
    check(o.program.stderr().count("a peer began anew") == 1, f"it says {o.program.tail()}")


@case
def another_user_is_no_peer(t):
    """Under libken as well, but not ours: both speak plainly."""
    if os.geteuid():
        raise Skip("to be another user needs root")
    port, place = free_port(), os.path.join(t.dir, "theirs")
    os.mkdir(place)
    os.chown(place, 65534, 65534)
    os.chmod(t.dir, 0o755)
    argv = [need("setpriv"), "--reuid=65534", "--regid=65534", "--clear-groups", "env", f"LD_PRELOAD={LIB}", f"KEN_STORE={place}/store",
            PYTHON, subject("many.py"), "serve", str(port)]
    t.program(argv, bare=True)
    wait_until(lambda: is_open(port, "tcp"), "the server's port")
    script = ("import socket, time\ns = socket.create_connection(('127.0.0.1', PORT))\ns.sendall(b'x\\n')\nprint(bool(s.recv(100)), flush=True)\n"
              "while True: time.sleep(1)\n")
    o = Output(t, "client", [PYTHON, "-c", script.replace("PORT", str(port))])
    wait_until(o.lines, "the answer")
    check(o.lines() == ["True"] and plain_connections(port), f"it says {o.lines()}, connections: {plain_connections(port)}")


@case
def asleep(t):
    """A peer that sleeps takes what is sent to it, so that the sender may exit."""
    port = free_port()
    script = ("import socket, time\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
              f"s.bind(('127.0.0.1', {port}))\ntime.sleep(2)\nprint(s.recv(100).decode(), flush=True)\n")
    sleeper = Output(t, "sleeper", [PYTHON, "-c", script])
    wait_until(lambda: is_open(port), "the sleeper's port")
    sender = Output(t, "sender", [PYTHON, "-c", "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
                                  f"s.sendto(b'hello', ('127.0.0.1', {port}))\n"])
    started = time.monotonic()
    wait_until(sender.ended, "the sender")
    sender.finish()
    check(time.monotonic() - started < 1.5, "the sender waited for the sleeper to wake")
    wait_until(sleeper.ended, "the sleeper")
    sleeper.finish()
    check(sleeper.lines() == ["hello"], f"it got {sleeper.lines()}")


@case
def plain_stream_client(t):
    port = free_port()
    t.program([subject("stream_server"), str(port)])
    wait_until(lambda: is_open(port, "tcp"), "the server's port")
    client = Output(t, "client", [subject("stream_client"), str(port), "300", "plain"], bare=True)
    wait_until(client.ended, "the client")
    client.finish()
    check(client.lines()[-2:] == ["299 300", "done"], f"the last lines are {client.lines()[-2:]}")


@case
def plain_stream_server(t):
    port = free_port()
    t.program([subject("stream_server"), str(port)], bare=True)
    wait_until(lambda: is_open(port, "tcp"), "the server's port")
    client = Output(t, "client", [subject("stream_client"), str(port), "300", "ken"])
    wait_until(client.ended, "the client")
    client.finish()
    check(client.lines()[-2:] == ["299 300", "done"], f"the last lines are {client.lines()[-2:]}")


@case
def nothing_for_the_lonely(t):
    """A server without peers makes no call for them while it serves plain clients."""
    port, trace = free_port(), os.path.join(t.dir, "trace")
    tracer = t.program([need("strace"), "-o", trace, "-E", f"LD_PRELOAD={LIB}", "-E", f"KEN_STORE={t.dir}/lonely",
               subject("number_server"), str(port)], bare=True)
    wait_until(lambda: is_open(port), "the server's port")
    with open(f"/proc/{tracer.pid()}/task/{tracer.pid()}/children") as f:  # who is traced outlives strace
        t.at_end(lambda pids=f.read().split(): [os.kill(int(pid), 9) for pid in pids])
    time.sleep(0.2)
    began = time.monotonic()
    client = Output(t, "client", [subject("number_client"), str(port), "400", "plain"], bare=True)
    wait_until(client.ended, "the client")
    asks = 60 + 60 * (time.monotonic() - began)  # who a client is, is asked again now and then
    client.finish()
    with open(trace) as f:
        calls = [line.split("(")[0] for line in f if "(" in line]
    first = calls.index("recvfrom")
    rest = calls[first:]
    turns = rest.count("pwritev2") + rest.count("io_uring_enter")
    check(rest.count("epoll_wait") < 20 and rest.count("connect") < asks and turns > 300,
          f"{turns} turns: " + ", ".join(f"{n} {rest.count(n)}" for n in sorted(set(rest))))
    t.note(f"{len(rest) / 400:.1f} calls a request")


@case
def plain_client(t):
    """A client that is not under libken gets plain datagrams, and nothing else."""
    port = free_port()
    t.program([subject("number_server"), str(port)])
    wait_until(lambda: is_open(port), "the server's port")
    client = Output(t, "client", [subject("number_client"), str(port), "300", "plain"], bare=True)
    wait_until(client.ended, "the client")
    client.finish()
    check(client.lines()[-2:] == ["299 300", "done"], f"the last lines are {client.lines()[-2:]}")


@case
def plain_server(t):
    port = free_port()
    t.program([subject("number_server"), str(port)], bare=True)
    wait_until(lambda: is_open(port), "the server's port")
    client = Output(t, "client", [subject("number_client"), str(port), "300", "ken"])
    wait_until(client.ended, "the client")
    client.finish()
    check(client.lines()[-2:] == ["299 300", "done"], f"the last lines are {client.lines()[-2:]}")


main()
