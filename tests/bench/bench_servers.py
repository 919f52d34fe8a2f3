#!/usr/bin/python3
"""Real servers under libken against their own ways of being durable, in one run; medians of several rounds.

redis INCR against appendfsync always, beanstalkd put against its binlog with -f 0, memcached with KEN_SYNC=process
against none. Here more is better: a ratio is answers per second under libken by those of the reference.
"""
import os
import signal
import socket
import statistics
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from measure import *
from servers import need_server
from harness import LIB, Skip

ROUNDS = int(os.environ.get("KEN_ROUNDS", "5"))
SECONDS = os.environ.get("KEN_SECONDS", "1")
PLACE = scratch()


class Server:
    def __init__(self, argv, port, **env):
        os.makedirs(os.path.join(PLACE, str(port)), exist_ok=True)
        self.port = port
        self.process = subprocess.Popen(argv, cwd=os.path.join(PLACE, str(port)), stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                        env={k: v for k, v in os.environ.items() if not k.startswith("KEN_")} | env)
        for _ in range(500):
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.01)
        raise SystemExit(f"{argv[0]} does not answer")

    def load(self, connections, request):
        return float(subprocess.run([bench("line_load"), str(self.port), str(connections), SECONDS, request],
                                    check=True, capture_output=True, text=True).stdout)

    def stop(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def protected(argv, port, **env):
    return Server(argv, port, LD_PRELOAD=LIB, KEN_STORE=os.path.join(PLACE, f"store-{port}"), **env)


def compare(name, servers, connections, request, against, least):
    """`servers`: by name; "libken" is held against `against`. The rounds of all take turns."""
    rates = {which: [] for which in servers}
    for _ in range(ROUNDS):
        for which, server in servers.items():
            rates[which].append(server.load(connections, request))
    middle = {which: statistics.median(values) for which, values in rates.items()}
    ratio = middle["libken"] / middle[against]
    others = ", ".join(f"{which} {rate:.0f}/s" for which, rate in middle.items() if which != "libken")
    print(f"= {name} | {middle['libken']:.0f} /s | {others} | {ratio:.2f} | at least {least:g} x {against} | "
          f"{'within' if ratio >= least else 'UNDER'}", flush=True)


def redis():
    program = [need_server("redis-server"), "--save", "", "--port"]
    ports = [free_port() for _ in range(3)]
    servers = {
        "libken": protected(program + [str(ports[0]), "--appendonly", "no"], ports[0]),
        "appendfsync": Server(program + [str(ports[1]), "--appendonly", "yes", "--appendfsync", "always"], ports[1]),
        "bare": Server(program + [str(ports[2]), "--appendonly", "no"], ports[2]),
    }
    for connections, least in ((1, 0.9), (16, 1.1), (50, 1.0)):
        compare(f"redis INCR, {connections} clients", servers, connections, "INCR counter\\r\\n", "appendfsync", least)
    for server in servers.values():
        server.stop()


def beanstalkd():
    program = [need_server("beanstalkd"), "-l", "127.0.0.1", "-p"]
    ports = [free_port() for _ in range(3)]
    binlog = os.path.join(PLACE, "binlog")
    os.makedirs(binlog)
    servers = {
        "libken": protected(program + [str(ports[0])], ports[0]),
        "binlog": Server(program + [str(ports[1]), "-b", binlog, "-f", "0"], ports[1]),
        "bare": Server(program + [str(ports[2])], ports[2]),
    }
    compare("beanstalkd put, 16 connections", servers, 16, "put 0 0 60 5\\r\\nhello\\r\\n", "binlog", 4)
    for server in servers.values():
        server.stop()


def memcached():
    program = [need_server("memcached"), "-u", "root", "-t", "4", "-l", "127.0.0.1", "-p"]
    ports = [free_port() for _ in range(3)]
    servers = {
        "libken": protected(program + [str(ports[0])], ports[0], KEN_SYNC="process"),
        "bare": Server(program + [str(ports[1])], ports[1]),
        "libken, power": protected(program + [str(ports[2])], ports[2]),
    }
    for connections in (16, 50):
        compare(f"memcached set, {connections} connections, KEN_SYNC=process", servers, connections,
                "set k 0 0 5\\r\\nhello\\r\\n", "bare", 0.5)
    for server in servers.values():
        server.stop()


require_aslr()
chosen = sys.argv[1:] or ["redis", "beanstalkd", "memcached"]
for figure in chosen:
    try:
        globals()[figure]()
    except Skip as reason:
        note(f"SKIP {figure}: {reason}")
