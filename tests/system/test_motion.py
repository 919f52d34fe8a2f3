#!/usr/bin/python3
"""Systems of several programs under libken, killed at random: what they put out is what a run without failures could have put
out. KEN_LONG=1 kills more, and moves more."""
import os
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import *
from pairs import *

LONG = os.environ.get("KEN_LONG") == "1"
SOME = KILLS * 2 if LONG else max(2, KILLS // 3)
LIMIT = 120


def more(usual, long):
    return long if LONG else usual


@case(limit=LIMIT)
def bank_over_tcp(t):
    """Five branches, a connection between each two; the total is conserved."""
    ports = sorted(free_port() for _ in range(5))
    outputs = [Output(t, f"branch{p}", [PYTHON, subject("bank_tcp.py"), str(p), str(more(400, 3000))] + [str(p) for p in ports])
               for p in ports]
    for o in outputs:
        wait_until(o.lines, "the first transfers")
    check(not plain_connections(*ports), f"connections that are not of peers: {plain_connections(*ports)}")
    kill_until(t, outputs, [], SOME * 2, 0.1, LIMIT)
    total = sum(int(o.lines()[-1]) for o in outputs)
    check(total == 5000, f"the total is {total}, it was 5000")


@case(limit=LIMIT)
def token_ring(t):
    """Eight members, one token: it is never lost and never doubled."""
    ports, rounds = [free_port() for _ in range(8)], more(150, 2000)
    outputs = [Output(t, f"member{i}", [PYTHON, subject("ring.py"), str(p), str(ports[(i + 1) % 8]), str(rounds), "8"] +
                      (["first"] if i == 0 else [])) for i, p in enumerate(ports)]
    for o in outputs:
        wait_until(o.lines, "the token")
    kill_until(t, outputs, [], SOME * 2, 0.1, LIMIT)
    for i, o in enumerate(outputs):
        first = i or 8
        right = [f"first {first}", f"last {first + 8 * (rounds - 1)}"]
        check(o.lines() == right, f"member {i} saw {o.lines()}, not {right}")


@case(limit=LIMIT)
def publish_and_subscribe(t):
    """Listeners that join late see everything from there on, in order."""
    port, count = free_port(), more(400, 5000)
    hub = t.program([PYTHON, subject("hub.py"), "serve", str(port)])
    wait_until(lambda: is_open(port, "tcp"), "the hub")

    def listen(n):
        o = Output(t, f"listener{n}", [PYTHON, subject("hub.py"), "listen", str(port), f"l{n}"])
        wait_until(o.lines, "a welcome")
        return o
    listeners = [listen(0), listen(1)]
    publisher = Output(t, "publisher", [PYTHON, subject("hub.py"), "publish", str(port), str(count)])
    wait_until(publisher.lines, "the first message")
    for n in (2, 3):
        listeners.append(listen(n))
    kill_until(t, listeners + [publisher], [hub], SOME, 0.1, LIMIT)
    check(publisher.lines()[-1] == "published", f"the publisher says {publisher.lines()}")
    for n, o in enumerate(listeners):
        first, last = map(int, o.lines()[-1].split())
        check(last == count and (first == 1 if n < 2 else 1 < first <= count), f"listener {n} saw {first} to {last}")


@case(limit=LIMIT)
def two_systems(t):
    """A counter with clients of its own (C), and a collector (Python), written apart and then connected by a third program."""
    numbers, collected, count = free_port(), free_port(), more(200, 2000)
    servers = [t.program([subject("number_server"), str(numbers)]),
               t.program([PYTHON, subject("collector.py"), str(collected)])]
    for p in (numbers, collected):
        wait_until(lambda: is_open(p), "a port")
    outputs = [Output(t, f"client{i}", [subject("number_client"), str(numbers), str(count), f"c{i}"]) for i in range(2)]
    outputs.append(Output(t, "gateway", [PYTHON, subject("gateway.py"), str(numbers), str(collected), str(count)]))
    for o in outputs:
        wait_until(o.lines, "the first answer")
    kill_until(t, outputs, servers, SOME * 2, 0.1, LIMIT)
    got = [int(line.split()[1]) for o in outputs[:2] for line in o.lines() if line != "done"]
    handed = [int(n) for n in outputs[2].lines()[-1].split(",")]
    check(handed == sorted(handed) and sorted(got + handed) == list(range(1, 3 * count + 1)), "a number is missing or came twice")


@case(limit=LIMIT)
def copy_to_and_fro(t):
    """A file over TCP, both sides killed again and again (KEN_LONG: twenty times each)."""
    port, megabytes = free_port(), more(24, 1000)
    server = t.program([PYTHON, subject("copy_to.py"), str(port)])
    wait_until(lambda: is_open(port, "tcp"), "the server's port")
    o = Output(t, "copy", [PYTHON, subject("copy_from.py"), str(port), str(megabytes), "7"])
    wait_until(lambda: established(port), "the connection")
    done = {server: 0, o.program: 0}
    each, deadline = more(4, 20), time.monotonic() + more(LIMIT, 4 * LIMIT)
    while not o.ended():
        check(time.monotonic() < deadline, "the copy makes no progress")
        time.sleep(t.random.uniform(0.02, 0.12))
        for p in t.random.sample(list(done), t.random.choice((1, 1, 2))):
            if done[p] < each and p.process and p.process.poll() is None:
                p.process.kill()
                if p.wait_gone() == -9:
                    done[p] += 1
                    (o if p is o.program else p).restart()
                elif p is o.program:
                    o.over = True  # the kill came behind its end
    o.finish()
    check(o.lines() == ["same"], f"the copy: {o.lines()}")
    check(not LONG or min(done.values()) == each, "it was over too soon to kill both")
    t.note(f"{megabytes} MB, {sum(done.values())} kills")
    server.stop()


def moved_and_written(t, count):
    """Moves so many bytes over one connection; what receiver and sender wrote by calls, as a rule to their logs."""
    port, programs = free_port(), []
    for role in ("take", "give"):
        p = Program([os.path.join(BUILD, "tests", "bench_motion"), role, str(port), str(count)], stdout=subprocess.PIPE,
                    store=os.path.join(t.dir, f"{role}{count}"), cwd=t.dir)
        t.programs.append(p)
        p.start()
        programs.append(p)
        if role == "take":
            wait_until(lambda: is_open(port, "tcp"), "the receiver")
    check(programs[0].process.stdout.readline(), "nothing was moved")

    def written(p):
        with open(f"/proc/{p.pid()}/io") as f:
            return int(dict(line.split(": ") for line in f.read().splitlines())["wchar"])
    return [written(p) for p in programs]


@case
def bulk_is_logged_once(t):
    """A receiver logs what its program keeps of the bytes that came: at most each of them, and none for libken. A sender logs them
    once, and what its program has of them; hardly any come into its image."""
    count = 32 << 20
    little, much = (moved_and_written(t, n) for n in (1 << 16, count))
    received, sent = (b - a for a, b in zip(little, much))
    t.note(f"{received / count:.2f} bytes logged for each byte received, {sent / count:.2f} for each sent")
    check(received < 1.3 * count, f"{received} bytes were written for {count} that came")
    check(sent < 1.6 * count, f"{sent} bytes were written for {count} that were sent")


def established(port):
    """True when bytes have flowed; connections between peers are none of the kernel's, so time has to do."""
    return time.sleep(0.3) is None


# --- real programs --------------------------------------------------------------------------------------------------


def redis(t):
    port = free_port()
    server = t.program([need("redis-server"), "--port", str(port), "--save", "", "--appendonly", "no"])
    wait_until(lambda: is_open(port, "tcp"), "redis")

    def ask(*words):
        """A plain client's answer; it is refused or cut off while the server comes back from a kill, and asks again."""
        deadline = time.monotonic() + PATIENCE
        while True:
            run = subprocess.run([need("redis-cli"), "-p", str(port), *words], capture_output=True, text=True)
            if run.returncode == 0:
                return run.stdout.strip()
            check(time.monotonic() < deadline, f"redis does not answer: {run.stderr.strip()}")
            time.sleep(0.02)
    return server, port, ask


@case(limit=LIMIT)
def redis_benchmark(t):
    """redis-benchmark counts with twenty connections; both are killed, no client sees an error, no increment is lost or doubled."""
    server, port, ask = redis(t)
    count = more(6000, 100000)
    argv = [need("redis-benchmark"), "-p", str(port), "-n", str(count), "-c", "20", "incr", "benchmark"]
    o = Output(t, "benchmark", argv)
    wait_until(lambda: ask("get", "benchmark").isdigit(), "the first request")
    kill_until(t, [o], [server], KILLS if LONG else SOME * 2, 0.1, LIMIT)
    text = "\n".join(o.lines())
    check("requests completed" in text and "rror" not in text, f"it says {text[:300]}")
    check(ask("get", "benchmark") == str(count), f"redis counted {ask('get', 'benchmark')}, not {count}")
    server.stop()


@case(limit=LIMIT)
def redis_pipe(t):
    """redis-cli --pipe: a stream of commands one way, the answers the other; both killed."""
    server, port, ask = redis(t)
    count = more(100000, 400000)
    commands = os.path.join(t.dir, "commands")
    with open(commands, "w") as f:
        f.writelines(f"RPUSH list {n}\r\n" for n in range(count))
    with open(commands) as f:
        o = Output(t, "pipe", [need("redis-cli"), "-p", str(port), "--pipe"], stdin=f)
        wait_until(lambda: ask("llen", "list") not in ("", "0"), "the first command")
        kill_until(t, [o], [server], SOME, 0.03, LIMIT)
    check(f"errors: 0, replies: {count}" in "\n".join(o.lines()), f"it says {o.lines()}")
    listed = ask("lrange", "list", "0", "-1").split("\n")
    check(listed == [str(n) for n in range(count)], f"the list has {len(listed)} elements")
    server.stop()


def fetch(t, script, rounds):
    """A client of python3's http.server, which is killed with it."""
    port = free_port()
    with open(os.path.join(t.dir, "data"), "wb") as f:
        f.write(t.random.randbytes(200000))
    server = t.program([PYTHON, "-m", "http.server", "--bind", "127.0.0.1", "--protocol", "HTTP/1.1", "--directory", t.dir, str(port)])
    server.expected_messages.append("")
    wait_until(lambda: is_open(port, "tcp"), "the server's port")
    script = "import hashlib\n" + script.replace("URL", f"http://127.0.0.1:{port}").replace("PORT", str(port)).replace("ROUNDS", str(rounds))
    o = Output(t, "fetch", [PYTHON, "-c", script])
    wait_until(lambda: o.lines() or o.ended(), "the first file")
    kill_until(t, [o], [server], SOME, 0.15, LIMIT)
    lines = o.lines()
    check(len(set(lines[:-1])) == 1 and lines[-1] == "done" and len(lines) == rounds + 1,
          f"{len(lines)} lines, {len(set(lines[:-1]))} contents, the end is {lines[-2:]}")


@case(limit=LIMIT)
def http_client(t):
    """One connection that is kept alive."""
    fetch(t, "import http.client\nc = http.client.HTTPConnection('127.0.0.1', PORT)\n"
          "for i in range(ROUNDS):\n c.request('GET', '/data')\n"
          " print(hashlib.sha256(c.getresponse().read()).hexdigest(), flush=True)\nprint('done')", more(60, 500))


@case(limit=LIMIT)
def http_requests(t):
    if subprocess.run([PYTHON, "-c", "import requests"], capture_output=True).returncode:
        raise Skip("python3-requests is not installed")
    fetch(t, "import requests\ns = requests.Session()\ns.trust_env = False\n"
          "for i in range(ROUNDS):\n d = (s if i % 3 else requests).get('URL/data')\n"
          " print(hashlib.sha256(d.content).hexdigest(), flush=True)\nprint('done')", more(40, 400))


def data(t, name, megabytes):
    path = os.path.join(t.dir, name)
    with open(path, "wb") as f:
        f.write(t.random.randbytes(int(megabytes * (1 << 20))))
    return path


def same(a, b):
    with open(a, "rb") as f, open(b, "rb") as g:
        return f.read() == g.read()


@case(limit=LIMIT)
def socat_pipe(t):
    """socat to socat, a file each way."""
    port, there, back = free_port(), data(t, "there", more(3, 60)), data(t, "back", more(3, 60))
    outs = [os.path.join(t.dir, name) for name in ("there.out", "back.out")]
    socat = need("socat")
    left = Output(t, "left", [socat, "-t", "60", f"TCP-LISTEN:{port},reuseaddr", f"OPEN:{back}!!CREATE:{outs[0]}"])
    wait_until(lambda: is_open(port, "tcp"), "the listener")
    right = Output(t, "right", [socat, "-t", "60", f"TCP:127.0.0.1:{port}", f"OPEN:{there}!!CREATE:{outs[1]}"])
    wait_until(lambda: os.path.exists(outs[1]) and os.path.getsize(outs[1]), "the first bytes")
    kill_until(t, [left, right], [], SOME, 0.1, LIMIT)
    check(same(there, outs[0]) and same(back, outs[1]), "what came out is not what went in")


@case(limit=LIMIT)
def netcat_both_ways(t):
    """The one that listens ends when the other one has said everything, even if it has something left to say: so that is less."""
    port, there, back = free_port(), data(t, "there", more(12, 100)), data(t, "back", more(3, 20))
    nc = need("nc.openbsd")
    with open(there) as f, open(back) as g:
        left = Output(t, "left", [nc, "-N", "-l", "127.0.0.1", str(port)], stdin=g)
        wait_until(lambda: is_open(port, "tcp"), "the listener")
        right = Output(t, "right", [nc, "-N", "127.0.0.1", str(port)], stdin=f)
        wait_until(lambda: os.path.getsize(right.path), "the first bytes")
        kill_until(t, [left, right], [], SOME, 0.04, LIMIT)
    check(same(there, left.path) and same(back, right.path), "what came out is not what went in")


@case(limit=LIMIT)
def lua_to_python(t):
    """LuaSocket and Python over UDP."""
    lua = need("lua5.4")
    if subprocess.run([lua, "-e", 'require "socket"'], capture_output=True).returncode:
        raise Skip("lua-socket is not installed")
    port, count = free_port(), more(400, 5000)
    server = t.program([PYTHON, subject("numbers.py"), str(port)])
    wait_until(lambda: is_open(port), "the server's port")
    o = Output(t, "lua", [lua, subject("take.lua"), str(port), str(count)])
    wait_until(o.lines, "the first number")
    kill_until(t, [o], [server], SOME, 0.1, LIMIT)
    check(o.lines() == [str(n) for n in range(1, count + 1)] + ["done"], f"it took {o.lines()[-3:]}")


main()
