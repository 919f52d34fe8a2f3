#!/usr/bin/python3
"""Programs that go into the background: what forked, and whose parent exited, is the program, under the same store."""
import os
import re
import signal
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from daemons import *
from harness import *
from pairs import *
from redis_clients import *
from servers import *

KENRUN = os.path.join(ROOT, "scripts", "kenrun")
DAEMON_KILLS = min(KILLS, 3)


def daemon(t, argv, start=True, **kw):
    if BARE:
        raise Skip("a daemon without libken has no store to be found by")
    place = os.path.join(t.dir, str(len(t.programs)))
    os.makedirs(place)
    program = Daemon(argv, os.path.join(place, "store"), place, **kw)
    t.programs.append(program)
    return program.start() if start else program


def counting(t, program, port):
    dialog = UdpDialog(program, port)
    t.at_end(dialog.close)
    count = 0

    def model(command):
        nonlocal count
        count += command == "inc"
        return str(count) if command == "inc" else "me"

    return Traffic(dialog, (t.random.choice(("inc", "inc", "who")) for _ in iter(int, 1)), model)


def run_way(t, way, kills=DAEMON_KILLS):
    port = free_port()
    program = daemon(t, [subject("daemon"), way, str(port), os.path.join(t.dir, "pid")])
    t.killed_while(program, counting(t, program, port), kills)


for name in ("libc", "single", "double", "dawdles", "lingers", "waits", "ready", "slow", "signal", "bind"):
    add_case(f"way_{name}", lambda t, way=name: run_way(t, way))


@case
def parts_slowly(t):
    """The parent has given up the store and is slow to say so: the daemon does not take it for killed."""
    with open(LIB, "rb") as f:
        if b"heir.parts_slowly" not in f.read():
            raise Skip("needs a build with -Dfaults=true")
    port, mutants = free_port(), filter(None, (os.environ.get("KEN_MUTANT"), "heir.parts_slowly"))
    program = daemon(t, [subject("daemon"), "ready", str(port), os.path.join(t.dir, "pid")], env={"KEN_MUTANT": ",".join(mutants)})
    t.killed_while(program, counting(t, program, port), 1)


@case
def killed_on_the_way(t):
    """All of its processes are killed at once, at any time from the start on: it begins again, or goes on."""
    for way in ("libc", "double", "waits", "ready"):
        port = free_port()
        program = daemon(t, [subject("daemon"), way, str(port), os.path.join(t.dir, f"pid-{way}")], start=False)
        for _ in range(5):
            Program.start(program)
            time.sleep(t.random.uniform(0, 0.08))
            program.kill_everybody()
            program.kills += 1
        Program.start(program)
        traffic = counting(t, program, port)
        traffic.start()
        traffic.wait_for(5)
        traffic.finish()
        if program.process.poll() is not None:
            program.wait_background()
        program.kill9()
        Program.start(program)
        again = traffic.dialog.ask("inc")
        counts = [int(a) for n, a in sorted(traffic.dialog.answers.items()) if a != "me" and n < traffic.dialog.seq]
        check(int(again) == (counts or [0])[-1] + 1, f"{way}: the count goes on with {again} behind {counts[-1:]}")
        program.stop()


@case
def a_killed_first_child(t):
    """It is the program while it comes to its own fork: the next incarnation of it has an heir as well."""
    port = free_port()
    program = daemon(t, [subject("daemon"), "dawdles", str(port), os.path.join(t.dir, "pid")])
    check(not is_open(port), "its second fork is over")
    program.kill9()
    Program.start(program)
    program.wait_background()
    t.killed_while(program, counting(t, program, port), 1)


@case
def a_killed_parent(t):
    """Killed while it waits for its daemon: that one ends with it, and the restart begins it anew."""
    port = free_port()
    program = daemon(t, [subject("daemon"), "slow", str(port), os.path.join(t.dir, "pid")], start=False)
    Program.start(program)
    deadline = time.monotonic() + 10
    while not os.path.exists(program.argv[3]):
        check(time.monotonic() < deadline, "it does not begin")
        time.sleep(0.01)
    program.kill9()
    Program.start(program)
    program.wait_background()
    t.killed_while(program, counting(t, program, port), 1)


@case
def a_leader_that_is_slow(t):
    """Its parent is killed, and it does not hear of it for longer than a start waits for its port: so that one waits for its end."""
    port = free_port()
    program = daemon(t, [subject("daemon"), "slow", str(port), os.path.join(t.dir, "pid")], start=False)
    Program.start(program)
    wait_until(lambda: os.path.exists(program.argv[3]), "the second child")
    os.kill(program.pid(), signal.SIGSTOP)
    wait_until(lambda: is_open(port), "its port")
    leader, = set(processes(program.argv)) - {program.pid()}
    os.kill(leader, signal.SIGSTOP)
    program.kill9()
    Program.start(program)
    time.sleep(2.5)
    check(program.process.poll() is None, f"it ended beside its former self: {program.tail()}")
    os.kill(leader, signal.SIGCONT)
    program.wait_background()
    t.killed_while(program, counting(t, program, port), 1)


@case
def a_parent_that_talks(t):
    """It has no heir, and says so; the daemon is a plain program."""
    port = free_port()
    program = t.program([subject("daemon"), "talks", str(port), os.path.join(t.dir, "pid")], stdout=subprocess.PIPE)
    t.at_end(lambda: [os.kill(pid, signal.SIGKILL) for pid in processes(program.argv)])
    out = program.process.stdout
    program.expected_messages.append("went on as a daemon, in a child, which is not protected")
    check(program.wait_gone() == 0, f"it ended with {program.status}")
    check(out.read().split() == [b"beginning"] + [b"waiting"] * 5 + [b"in", b"the", b"background"], "its output is another")
    check(program.bare or program.messages(), "it said nothing of the daemon")
    dialog = UdpDialog(program, port)
    t.at_end(dialog.close)
    program.process = None
    check([dialog.ask("inc") for _ in range(3)] == ["1", "2", "3"], "the daemon does not count")


@case
def a_service_that_fails(t):
    """The parent tells of it; its first child has ended, in a session of its own, and is no daemon."""
    port = free_port()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", port))
        program = t.program([subject("daemon"), "ready", str(port), os.path.join(t.dir, "pid")])
        check(program.wait_gone() == 1, f"it ended with {program.status}")
        check("daemon: no service" in program.stderr(), program.stderr())


@case
def a_child_that_is_none(t):
    """A service whose child called setsid() and sleeps stays the program."""
    port = free_port()
    program = t.program([subject("daemon"), "stays", str(port), os.path.join(t.dir, "pid")])
    t.at_end(lambda: [os.kill(pid, signal.SIGKILL) for pid in processes(program.argv)])
    dialog = UdpDialog(program, port)
    t.at_end(dialog.close)
    t.killed_while(program, Traffic(dialog, iter(lambda: "inc", 0), lambda _, n=iter(range(1, 1 << 30)): str(next(n))), 4)


@case
def followed(t):
    """kenrun stays with the daemon, starts it again when it was killed, and passes a signal on."""
    port = free_port()
    command = [subject("daemon"), "ready", str(port), os.path.join(t.dir, "pid")]
    program = daemon(t, command, start=False)
    env = dict(os.environ, KEN_LIB=LIB, KEN_CTL=KENCTL)
    with open(os.path.join(t.dir, "kenrun.err"), "w") as err:
        kenrun = subprocess.Popen([KENRUN, "--store", program.store, "--", *command], env=env, stdin=subprocess.DEVNULL,
                                  stdout=subprocess.DEVNULL, stderr=err, cwd=t.dir)
    t.at_end(kenrun.kill)
    t.at_end(program.kill_everybody)
    dialog = UdpDialog(program, port)
    t.at_end(dialog.close)
    for n in range(1, 9):
        check(dialog.ask("inc") == str(n), f"not {n}")
        if n in (2, 4, 6):
            program.kills += 1
            os.kill(program.holder(), signal.SIGKILL)
    check(kenrun.poll() is None, f"kenrun ended with {kenrun.returncode}")
    kenrun.terminate()
    check(kenrun.wait(10) == 143, f"kenrun ended with {kenrun.returncode}")
    check(not processes(command), "it was not told to end")
    lines = open(os.path.join(t.dir, "kenrun.err")).read()
    check(lines.count("was killed; starting it again") == 3, lines)


def forking_daemon(t, rounds, kills, *words):
    """A daemon whose children serve connections of a peer, which is killed all the time; then the daemon is, and serves again."""
    port = free_port()
    program = daemon(t, [PYTHON, subject("forking.py"), str(port), *words, "daemon"])
    for kill in range(2):
        wait_until(lambda: is_open(port, "tcp"), "the daemon's port")
        o = Output(t, f"client{kill}", [PYTHON, subject("fork_client.py"), str(port), str(rounds)])
        wait_until(lambda: o.lines() or o.ended(), "the first connection")
        check(not plain_connections(port), "the connection is a plain one")
        kill_until(t, [o], [], kills, 0.1)
        check(o.lines() == [str(n) for n in range(rounds)], f"it says {o.lines()[-3:]}; {program.tail()}")
        if not kill:
            program.kill9()
            Program.start(program)
            # its workers had the port as well, and have it for a moment yet
            wait_until(lambda: program.messages() and program.holder(), "the daemon's next life")


@case
def children_of_a_daemon(t):
    forking_daemon(t, 8, 4)


@case
def workers_of_a_daemon(t):
    """They accept for themselves."""
    forking_daemon(t, 6, 4, "workers")


@case
def programs_of_a_daemon(t):
    """What it spawned last goes on talking while the daemon itself waits for the next."""
    port = free_port()
    daemon(t, [PYTHON, subject("forking.py"), str(port), "spawn", "daemon"])
    wait_until(lambda: is_open(port, "tcp"), "the daemon's port")
    script = ("import socket\na = ('127.0.0.1', PORT)\nall = [socket.create_connection(a) for _ in range(3)]\n"
              "for n in range(200):\n for s in all:\n  s.sendall(b'%d' % n)\n  assert s.recv(10) == b'%d' % n\n print(n, flush=True)\n")
    o = Output(t, "client", [PYTHON, "-c", script.replace("PORT", str(port))])
    wait_until(lambda: o.lines() or o.ended(), "the first answers")
    kill_until(t, [o], [], 5, 0.1)
    check(o.lines() == [str(n) for n in range(200)], f"it says {o.lines()[-3:]}")


LATE = """
import os, socket, sys, time
listener = socket.create_server(('127.0.0.1', int(sys.argv[1])))
for rest in (0.5, 0):
    if os.fork():
        if rest:
            time.sleep(rest)
        os._exit(0)
    os.setsid()
while True:
    s = listener.accept()[0]
    while text := s.recv(100):
        s.sendall(text)
"""

ECHO = """
import socket, sys
s = socket.create_connection(('127.0.0.1', int(sys.argv[1])))
for n in range(int(sys.argv[2])):
    s.sendall(b'%d' % n)
    got = s.recv(100)
    assert got == b'%d' % n, got
    print(n, flush=True)
"""


@case
def peers_on_the_way(t):
    """A peer connects while the daemon's parent, which has the listener, has not exited yet: it meets the daemon."""
    port = free_port()
    program = daemon(t, [PYTHON, "-c", LATE, str(port)], start=False)
    Program.start(program)
    wait_until(lambda: is_open(port, "tcp"), "the listener")
    o = Output(t, "client", [PYTHON, "-c", ECHO, str(port), "600"])
    program.wait_background()
    wait_until(lambda: o.lines() or o.ended(), "the first answer")
    check(not plain_connections(port), "the connection is a plain one")
    for _ in range(DAEMON_KILLS):
        time.sleep(t.random.uniform(0.02, 0.1))
        program.kill9()
        Program.start(program)
        if not o.ended():
            o.program.kill9()
            o.restart()
    wait_until(o.ended, f"the end, after {o.lines()[-1:]}")
    o.finish()
    check(o.lines() == [str(n) for n in range(600)], f"it says {o.lines()[-3:]}")


def late_daemon(t, way, kills, on_the_way=0):
    """It connects first, and becomes a daemon then: connection and bound socket go with it, through kills of both."""
    port, path, count = free_port(), os.path.join(t.dir, f"heard-{way}"), 3000 if LONG else 300
    server = t.program([PYTHON, subject("late_daemon.py"), "serve", str(port)])
    wait_until(lambda: is_open(port, "tcp") and is_open(port), "the server's ports")
    program = daemon(t, [PYTHON, subject("late_daemon.py"), way, str(port), str(count), path], start=False)
    Program.start(program)
    for _ in range(on_the_way):
        time.sleep(t.random.uniform(0, 0.3))
        program.kill_everybody()
        program.kills += 1
        Program.start(program)

    def heard():
        if not os.path.exists(path):
            return []
        with open(path) as f:
            return f.read().split()
    wait_until(lambda: len(heard()) > 25, f"the daemon's first words, after {heard()[-1:]} {program.tail()}")
    if program.process.poll() is not None:
        program.wait_background()
    for _ in range(kills):
        time.sleep(t.random.uniform(0, 0.1))
        for p in t.random.choice(((program,), (server,), (program, server))):
            p.kill9()
            Program.start(p)
    wait_until(lambda: "done" in heard(), f"the end, after {heard()[-1:]} {program.tail()}")
    check(heard() == [str(n) for n in range(count)] + ["done"], f"it heard {heard()[-3:]}; {program.tail()}")
    check(not plain_connections(port), "the connection is a plain one")


for way in ("single", "double", "waits"):
    add_case(f"peers_from_before_{way}", lambda t, way=way: late_daemon(t, way, KILLS))


@case
def peers_from_before_killed_on_the_way(t):
    for way in ("single", "double", "waits"):
        late_daemon(t, way, 2, 3)


@case
def memory_of_a_child(t):
    """What a resumed program changes after a fork its child does not see."""
    program = t.program([PYTHON, subject("fork_memory.py"), str(port := free_port())])
    dialog = UdpDialog(program, port)
    t.at_end(dialog.close)
    dialog.ask("fill")
    if not program.bare:
        program.kill9()
        program.restart()
    dialog.ask("fork")
    for _ in range(5):
        dialog.ask("change")
    answer = dialog.ask("child")
    check(answer == "as it was", f"the child's memory: {answer}")


def client(kind, port, number=0, *rest, **kw):
    return lambda load, rng: kind(load, rng, port, number, *rest, **kw)


@case
def redis(t):
    port = free_port()
    program = daemon(t, [need_server("redis-server"), "--port", str(port), "--save", "", "--appendonly", "no",
                         "--daemonize", "yes", "--pidfile", f"{t.dir}/pid"])
    torture(t, program, DAEMON_KILLS, client(RedisKeys, port, 0), client(RedisKeys, port, 1))


@case
def redis_and_a_peer(t):
    """Its event loop waits already when it becomes the program; redis-cli, under libken as well, is heard all the same."""
    port, count = free_port(), 400
    program = daemon(t, [need_server("redis-server"), "--port", str(port), "--save", "", "--appendonly", "no", "--daemonize", "yes"])
    wait_until(lambda: is_open(port, "tcp"), "redis")
    o = Output(t, "cli", [need_server("redis-cli"), "-p", str(port), "-r", str(count), "incr", "n"])
    wait_until(lambda: o.lines() or o.ended(), "the first answer", 4)
    check(not plain_connections(port), "the connection is a plain one")
    for _ in range(DAEMON_KILLS):
        time.sleep(t.random.uniform(0.02, 0.1))
        program.kill9()
        Program.start(program)
    wait_until(o.ended, f"the end, after {o.lines()[-1:]}")
    o.finish()
    check(o.lines() == [str(n) for n in range(1, count + 1)], f"it says {o.lines()[-3:]}")


@case
def memcached(t):
    """Gives up root, and becomes a daemon then."""
    port = free_port()
    program = daemon(t, [need_server("memcached"), "-d", "-u", "nobody", "-t", "4", "-p", str(port), "-l", "127.0.0.1"])
    torture(t, program, DAEMON_KILLS, *(client(MemcacheClient, port, n) for n in range(3)))


@case
def nginx(t):
    port = free_port()
    place, files = documents(t, (1, 900, 20_000))
    settings = nginx_settings(t, port, place, "on", f"{t.dir}/error.log")
    program = daemon(t, [need_server("nginx"), "-c", settings])
    counter = "/status", re.compile(r"requests\s+\d+ \d+ (\d+)")
    torture(t, program, DAEMON_KILLS, *(client(FileClient, port, n, files, counter) for n in range(2)))


@case
def lighttpd(t):
    """Its parent waits for a byte of the daemon's."""
    port = free_port()
    place, files = documents(t, (1, 900, 20_000))
    settings = lighttpd_settings(t, port, place)
    program = daemon(t, [need_server("lighttpd"), "-f", settings])
    counter = "/status?auto", re.compile(r"Total Accesses: (\d+)")
    torture(t, program, DAEMON_KILLS, *(client(FileClient, port, n, files, counter) for n in range(2)))


@case
def dnsmasq(t):
    """Its parent waits until the daemon closes a pipe, having given up root."""
    port = free_port()
    os.chmod(t.dir, 0o755)
    hosts = written(t, "hosts", "".join(f"10.0.0.{n} host{n}.test\n" for n in range(1, 100)))
    program = daemon(t, [need_server("dnsmasq"), "--no-resolv", "--no-hosts", "--conf-file=/dev/null",
                         f"--port={port}", "--listen-address=127.0.0.1", "--bind-interfaces", f"--addn-hosts={hosts}",
                         f"--pid-file={t.dir}/pid"])
    torture(t, program, DAEMON_KILLS, client(DnsClient, port, 0), client(DnsClient, port, 1))


main()
