#!/usr/bin/python3
"""Messages between two programs under libken: a one-way stream of datagrams, bulk TCP against what the log's disk allows, what idle
connections cost, and how soon traffic flows again after a kill of one side. References in the same run."""
import mmap
import os
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from measure import bench, environment, free_port, median, note, prepare, report, scratch, subject

PROGRAM = bench("bench_motion")
ROUNDS = 3
LOGGED = 1.2  # bytes logged for a byte moved, at most, at either side


def written(pid):
    """Bytes that the process wrote by calls: its log, and a page of the image when there is none yet; and what it caused to be sent
    to the disk: the log, and the image's pages as often as they were written back."""
    with open(f"/proc/{pid}/io") as f:
        counts = dict(line.split(": ") for line in f.read().splitlines())
    return int(counts["wchar"]), int(counts["write_bytes"])


class Pair:
    """Two roles of bench_motion, with stores or bare."""

    def __init__(self, where, roles, count, protected, **env):
        port, self.processes = free_port(), []
        for n, role in enumerate(roles):
            store = os.path.join(where, f"{role}{port}") if protected else None
            self.processes.append(subprocess.Popen([PROGRAM, role, str(port), str(count)], stdout=subprocess.PIPE, text=True,
                                                   env=environment(store, **env)))
            if n == 0:
                time.sleep(0.4)

    def line(self, n):
        return [float(word) for word in self.processes[n].stdout.readline().split()]

    def stop(self):
        for p in self.processes:
            p.kill()
            p.wait()


def disk_rate(where):
    """Bytes/s of durable writes as the log makes them: 1 MiB each, into a file that is there already."""
    size, count = 1 << 20, 48
    path, page = os.path.join(where, "disk"), mmap.mmap(-1, size)
    with open(path, "wb") as f:
        f.write(bytes(size * 8))
        os.fsync(f.fileno())
    fd = os.open(path, os.O_WRONLY | os.O_DIRECT | os.O_DSYNC)
    started = time.perf_counter()
    for i in range(count):
        os.pwrite(fd, page, i % 8 * size)
    rate = size * count / (time.perf_counter() - started)
    os.close(fd)
    return rate


def stream(where):
    """1 KiB datagrams one way; they count when the receiver's program has them, and the last is answered when that is durable."""
    for sync in ("power", "process"):
        rates = []
        for _ in range(ROUNDS):
            pair = Pair(where, ("hear", "say"), 60000, True, KEN_SYNC=sync)
            rates.append(pair.line(0)[0])
            pair.stop()
        note(f"one-way stream of 1 KiB datagrams, KEN_SYNC={sync}: {median(rates):.0f} messages/s (wanted 100000)")
        report(f"one message of a stream, {sync}", 1e6 / median(rates), "1 KiB one way", budget=10)


def move(where, count):
    """Bytes/s, and for each side what it wrote for it, as written() tells, from its start on."""
    pair = Pair(where, ("take", "give"), count, True)
    rate = pair.line(0)[0]
    amounts = [written(p.pid) for p in pair.processes]
    pair.stop()
    return rate, amounts


def bulk(where):
    # In a short transfer a good part is what comes once: the window widens, the image gets its blocks, the log's are written first.
    count, long_one, rates, steady, disks, amounts = 64 << 20, 512 << 20, [], [], [], ([], [])
    for _ in range(ROUNDS):
        disks.append(disk_rate(where))
        _, without = move(where, 1 << 16)  # what a store's beginning costs
        rate, whole = move(where, count)
        rates.append(rate)
        steady.append(move(where, long_one)[0])
        for n in (0, 1):
            amounts[n].append([b - a for a, b in zip(without[n], whole[n])])
    plain = Pair(where, ("take", "give"), count, False)
    bare = plain.line(0)[0]
    plain.processes[1].wait()
    plain.stop()
    for name, pairs in zip(("receiver", "sender"), amounts):
        logged, to_disk = (median(column) / count for column in zip(*pairs))
        note(f"bulk TCP, to the disk at the {name}, the image's write-back included: {to_disk:.2f} bytes a byte moved")
        report(f"bulk TCP, logged at the {name}", logged, "a byte moved", budget=LOGGED, unit="bytes")
    # The budget: each side may log LOGGED bytes for each byte moved, and there is one disk for both.
    logged = sum(median(column) / count for pairs in amounts for column in list(zip(*pairs))[:1])
    disk, long_rate = median(disks), median(steady)
    allowed = disk / (2 * LOGGED)
    note(f"bulk TCP, {count >> 20} MiB from the beginning {median(rates) / 1e6:.0f} MB/s, {long_one >> 20} MiB {long_rate / 1e6:.0f}, "
         f"plain {bare / 1e6:.0f}; the disk takes {disk / 1e6:.0f} MB/s of 1 MiB writes, which allows {allowed / 1e6:.0f} at {LOGGED} "
         f"bytes logged a byte at either side")
    report("bulk TCP against the log's bandwidth", long_rate / allowed * 100,
           f"70 % wanted; of half the disk {long_rate / disk * 200:.0f} %, of what both do log {long_rate * logged / disk * 100:.0f} %", unit="%")
    report("the same of a short one", median(rates) / allowed * 100, unit="%")


def idle(where):
    times = {0: [], 1000: []}
    for _ in range(ROUNDS):
        for count in times:
            pair = Pair(where, ("idle", "hold"), count, True)
            times[count].append(pair.line(1)[0])
            pair.stop()
    report("a round trip beside 1,000 idle connections", median(times[1000]), f"{median(times[0]):.1f} us beside none",
           ratio=median(a / b for a, b in zip(times[1000], times[0])), budget=1.05)


def recovery(where):
    """A busy pair; the server is killed and started at once: from the start to the client's next answer."""
    times = []
    for n in range(7):
        port = free_port()
        server_env = environment(os.path.join(where, f"server{port}"))
        server_argv = [subject("number_server"), str(port)]
        server = subprocess.Popen(server_argv, env=server_env, stdout=subprocess.DEVNULL)
        time.sleep(0.4)
        client = subprocess.Popen([subject("number_client"), str(port), "1000000", "c"], stdout=subprocess.PIPE,
                                  env=environment(os.path.join(where, f"client{port}")))
        stamps = []

        def read():
            for _ in client.stdout:
                stamps.append(time.perf_counter())
        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        time.sleep(0.5)
        server.kill()
        server.wait()
        time.sleep(0.05)
        started = time.perf_counter()
        server = subprocess.Popen(server_argv, env=server_env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(0.6)
        times.append((next(s for s in stamps if s > started) - started) * 1000)
        for p in (client, server):
            p.kill()
            p.wait()
        reader.join()
    report("traffic after a restart of one side", median(times), f"worst {max(times):.0f} ms", budget=100, unit="ms")


prepare()
place = scratch()
for measure in (stream, bulk, idle, recovery):
    measure(place)
