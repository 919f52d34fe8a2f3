#!/usr/bin/python3
"""A hop between two programs under libken, against the same ping-pong over plain sockets plus two durable 4 KiB writes
for each round trip: one for each side's turn. Alternates the two in one run; prints medians and their ratio."""
import mmap
import os
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from harness import BUILD, LIB, free_port, scratch_root

PROGRAM = os.path.join(BUILD, "tests", "bench_pingpong")
ROUNDS, REPEATS = 2000, 5


def play(protected, where):
    port, env = free_port(), dict(os.environ)
    processes = []
    for role in ("serve", "play"):
        if protected:
            env.update(LD_PRELOAD=LIB, KEN_STORE=os.path.join(where, f"{role}{port}"))
        argv = [PROGRAM, role, str(port), str(ROUNDS)]
        processes.append(subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, text=True))
        time.sleep(0.3)
    out = processes[1].communicate(timeout=60)[0]
    processes[0].kill()
    processes[0].wait()
    return float(out)


def durable_write(where):
    """Microseconds for a 4 KiB O_DIRECT|O_DSYNC write into a file that is there already, the median."""
    path = os.path.join(where, "disk")
    page = mmap.mmap(-1, 4096)
    with open(path, "wb") as f:
        f.write(bytes(1 << 22))
        os.fsync(f.fileno())
    fd = os.open(path, os.O_WRONLY | os.O_DIRECT | os.O_DSYNC)
    times = []
    for i in range(1000):
        started = time.perf_counter()
        os.pwrite(fd, page, i * 4096)
        times.append((time.perf_counter() - started) * 1e6)
    os.close(fd)
    return statistics.median(times)


with tempfile.TemporaryDirectory(dir=scratch_root(), prefix="ken-pingpong-") as where:
    runs = [(play(False, where), durable_write(where), play(True, where)) for _ in range(REPEATS)]
plain, disk, ken = (statistics.median(column) for column in zip(*runs))
ratio = statistics.median(k / (p + 2 * d) for p, d, k in runs)
print(f"plain round trip {plain:.1f} us, durable 4 KiB write {disk:.1f} us, under libken {ken:.1f} us ({ken / 2:.1f} us a hop)")
print(f"ratio {ratio:.2f} (budget 1.5)")
