"""Resuming a process with a heap of 1 GiB against one with 10 MB: from exec to the first answer.

    bench_resume.py [KILLS]

The time to the line that libken writes on stderr (the process is restored) is shown beside it: the rest is
the program's first touches of its own pages and the turn that answers. Pages of the image are verified during the turns
that follow (heap/verify.h): what these take is told beside what they take once that is over.
"""
import os
import socket
import sys
import threading

from measure import *

BUDGET_RATIO, BUDGET_MS = 2.0, 100.0
SIZES = {"10 MB": 10, "1 GiB": 1024}


class Resumed(Server):
    """The server with its stderr read: when did the line come?"""

    def start(self):
        reader, writer = os.pipe()
        self.line_at = None
        self.started = time.perf_counter()
        self.process = subprocess.Popen(self.argv, env=self.env, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=writer)
        os.close(writer)
        Server.running.append(self)
        self.watcher = threading.Thread(target=self.watch, args=(reader,), daemon=True)
        self.watcher.start()

    def watch(self, reader):
        while text := os.read(reader, 4096):
            if self.line_at is None and b"ken:" in text:
                self.line_at = time.perf_counter()
        os.close(reader)


def ask(client, patience=60.0):
    """Asks until it is answered."""
    deadline = time.perf_counter() + patience
    while time.perf_counter() < deadline:
        try:
            client.send(b"x")
            return client.recv(100)
        except ConnectionRefusedError:
            time.sleep(0.0005)
        except socket.timeout:
            pass
    raise SystemExit("no answer")


FOLLOWING, SETTLED = 100, 1000  # turns


def ask_many(client, count):
    """How long each took, in milliseconds."""
    took = []
    for _ in range(count):
        started = time.perf_counter()
        ask(client)
        took.append((time.perf_counter() - started) * 1e3)
    return took


def main():
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    prepare()
    place = scratch()
    servers, clients, answers, lines, following, settled = {}, {}, {}, {}, {}, {}
    for name, megabytes in SIZES.items():
        port = free_port()
        servers[name] = Resumed([bench("heap_server"), str(port), str(megabytes)], store=f"{place}/{megabytes}")
        clients[name] = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        clients[name].connect(("127.0.0.1", port))
        clients[name].settimeout(60)
        ask(clients[name])
        answers[name], lines[name], following[name], settled[name] = [], [], [], []
    for _ in range(kills):
        for name, server in servers.items():
            client = clients[name]
            client.settimeout(2)
            following[name] += ask_many(client, FOLLOWING)
            settled[name] += ask_many(client, SETTLED)[-FOLLOWING:]
            server.stop()
            client.settimeout(0.001)
            server.start()
            ask(client)
            answers[name].append((time.perf_counter() - server.started) * 1e3)
            time.sleep(0.05)
            lines[name].append(((server.line_at or time.perf_counter()) - server.started) * 1e3)
    small, large = (median(answers[name]) for name in SIZES)
    report("resume, 1 GiB of heap", large, f"{small:.1f} ms with 10 MB",
           ratio_of(answers["1 GiB"], answers["10 MB"]), BUDGET_RATIO, unit="ms")
    report("resume, 1 GiB of heap, alone", large, unit="ms", budget=BUDGET_MS)
    for name in SIZES:
        note(f"{name}: restored after {median(lines[name]):.1f} ms, answers after {median(answers[name]):.1f} ms"
             f" (all: {' '.join(f'{x:.0f}' for x in answers[name])})")
        first, later = following[name][FOLLOWING:], settled[name][FOLLOWING:]  # not those of the fresh run
        if first:
            note(f"{name}: the {FOLLOWING} turns behind take {sum(first) / len(first):.2f} ms each, the longest {max(first):.1f};"
                 f" later ones {sum(later) / len(later):.2f} ms")


main()
